"""The official client: the real one without credentials and without network, and imitations of what it says."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from esc_ensemble.__main__ import main
from esc_ensemble.errors import ConfigError, WorkError
from esc_ensemble.kaggle import client
from esc_ensemble.kaggle.build import BuildOptions, build_folder
from tests.kaggle.imitation import write_onnx

Capture = pytest.CaptureFixture[str]
real = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("kagglesdk", "six")),
    reason='Kaggle\'s client is not installed whole: pip install "esc_ensemble[kaggle]"',
)


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    """What `esc-ens kaggle build` makes."""
    model = write_onnx(tmp_path / "loud.onnx", ("bark", "rain"))
    options = BuildOptions(owner="me", title="Loud Sounds", licence="other", competitions=("rain-or-fire",), gpu=True)
    return build_folder(str(model), tmp_path / "upload", options).folder


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home without credentials, and a network that leads nowhere."""
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for name in ("https_proxy", "http_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that the client takes for real until it asks Kaggle."""
    monkeypatch.setenv("KAGGLE_USERNAME", "me")
    monkeypatch.setenv("KAGGLE_KEY", "0" * 32)


# --- the real client


@real
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("command", [["push"], ["push", "--part", "kernel"], ["status"]])
def test_without_credentials_the_message_says_how_to_get_them(
    upload: Path, capsys: Capture, command: list[str]
) -> None:
    assert main(["kaggle", command[0], str(upload), *command[1:]]) == 2
    message = capsys.readouterr().err
    assert "no valid credentials" in message
    assert "KAGGLE_API_TOKEN" in message
    assert "~/.kaggle/kaggle.json" in message
    assert "Traceback" not in message


@real
@pytest.mark.usefixtures("alone")
def test_what_we_write_passes_all_of_the_clients_checks(upload: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a key it checks the folder first, and only then fails for want of a network."""
    key(monkeypatch)
    with pytest.raises(WorkError, match="cannot be reached"):
        client.push(upload, "kernel")
    with pytest.raises(WorkError, match="cannot be reached"):
        client.run_client(["datasets", "create", "-p", str(upload / "dataset"), "-r", "zip", "-q"])


@real
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    "case",
    [
        ("kernel", "title", "Loud", "Title must be at least five characters"),
        ("kernel", "code_file", "gone.py", "Source file not found"),
        ("kernel", "dataset_sources", ["nobodys"], "Dataset must be specified in the form"),
        ("dataset", "title", "Short", "title must be between 6 and 50"),
        ("dataset", "id", "me/abc", "slug must be between 6 and 50"),
        ("dataset", "licenses", [], "exactly one license"),
        ("dataset", "subtitle", "short", "Subtitle length must be between 20 and 80"),
    ],
)
def test_the_clients_own_refusals_reach_the_user(
    upload: Path, monkeypatch: pytest.MonkeyPatch, case: tuple[str, str, object, str]
) -> None:
    """And so these are the rules that `esc_ensemble.kaggle.metadata` holds to."""
    part, key_changed, value, reason = case
    key(monkeypatch)
    path = upload / part / f"{part}-metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key_changed: value}))
    command = ["kernels", "push", "-p"] if part == "kernel" else ["datasets", "create", "-r", "zip", "-p"]
    with pytest.raises(WorkError) as refused:
        client.run_client([*command, str(upload / part)])
    assert reason in str(refused.value)


# --- imitations


def imitate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str) -> Path:
    """Puts a program in the client's place; it writes down how it was called."""
    log = tmp_path / "calls.txt"
    script = tmp_path / "client.py"
    script.write_text(
        f"import sys\ncall = ' '.join(sys.argv[1:])\nopen({str(log)!r}, 'a').write(call + '\\n')\n"
        f"n = open({str(log)!r}).read().count(call)\n{program}"
    )
    monkeypatch.setattr(client, "_client", lambda: [sys.executable, str(script)])
    monkeypatch.setattr(client, "ASK_SECONDS", 0.01)
    return log


NEW = """
if call.startswith("datasets status"):
    made = any(line.startswith("datasets create") for line in open(sys.argv[0].replace("client.py", "calls.txt")))
    if not made:
        sys.exit("403 Client Error: Forbidden for url")
    print("ready" if n > 2 else "pending")
elif call.startswith("datasets create"):
    print("Your private Dataset is being created.")
else:
    print("Kernel version 1 successfully pushed.  Please check progress at https://www.kaggle.com/code/me/loud-sounds")
"""


def test_the_data_set_goes_first_and_the_kernel_waits_for_it(
    upload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    log = imitate(monkeypatch, tmp_path, NEW)
    assert main(["kaggle", "push", str(upload), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["dataset"], result["kernel"]) == ("me/loud-sounds-model", "me/loud-sounds")
    calls = [" ".join(line.split()[:2]) for line in log.read_text().splitlines()]
    asked = calls.count("datasets status")
    assert asked >= 3
    assert calls == ["datasets status", "datasets create", *["datasets status"] * (asked - 1), "kernels push"]
    assert "-r zip" in log.read_text()
    assert "--public" not in log.read_text()


def test_a_data_set_that_is_there_gets_a_new_version(
    upload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = imitate(monkeypatch, tmp_path, "print('ready')")
    pushed = client.push(upload, "dataset", "better weights")
    assert pushed.kernel == ""
    assert "datasets version -p" in log.read_text()
    assert "-m better weights" in log.read_text()
    assert "kernels" not in log.read_text()


def test_a_public_kernel_makes_its_data_set_public(
    upload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = upload / "kernel" / "kernel-metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"is_private": False}))
    log = imitate(monkeypatch, tmp_path, NEW)
    client.push(upload, "dataset")
    assert "--public" in log.read_text()


@pytest.mark.parametrize(
    "case",
    [
        ("print('Kernel push error: Notebook not found')", WorkError, "Notebook not found"),
        ("print('Dataset creation error: The title is in use')", WorkError, "in use"),
        ("sys.exit(\"ModuleNotFoundError: No module named 'six'\")", ConfigError, "pip install six"),
        ("sys.exit('401 Client Error: Unauthorized for url')", ConfigError, "no valid credentials"),
        ("sys.exit('requests.exceptions.ConnectionError: Max retries exceeded')", WorkError, "cannot be reached"),
        ("sys.exit('500 Server Error')", WorkError, "500 Server Error"),
        ("sys.exit(1)", WorkError, "printed nothing"),
    ],
)
def test_what_the_client_says_becomes_one_sentence(
    upload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: tuple[str, type[Exception], str]
) -> None:
    program, kind, told = case
    imitate(monkeypatch, tmp_path, program)
    with pytest.raises(kind, match=told):
        client.push(upload, "kernel")


def test_sources_that_kaggle_leaves_out_are_a_failure(
    upload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "The following are not valid dataset sources and could not be added to the kernel: ['me/loud-sounds-model']"
    imitate(monkeypatch, tmp_path, f'print("{said}")\nprint("Kernel version 1 successfully pushed.")')
    with pytest.raises(WorkError, match=r"dataset sources: .*loud-sounds-model"):
        client.push(upload, "kernel")


def test_a_data_set_that_never_gets_ready_is_told(
    upload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imitate(monkeypatch, tmp_path, "print('pending')")
    monkeypatch.setattr(client, "READY_SECONDS", 0.1)
    with pytest.raises(WorkError, match="--part kernel"):
        client.push(upload)


@pytest.mark.parametrize(
    "case",
    [
        ('me/loud-sounds has status "KernelWorkerStatus.COMPLETE"', "complete", None),
        ('me/loud-sounds has status "running"', "running", None),
        ('me/loud-sounds has status "error"\nFailure message: "out of memory"', "error", "out of memory"),
        ("something new", "unknown", None),
    ],
)
def test_the_status_is_read_off(
    upload: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    case: tuple[str, str, str | None],
) -> None:
    said, status, failure = case
    imitate(monkeypatch, tmp_path, f"print({said!r})")
    assert main(["kaggle", "status", str(upload), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["status"], told.get("failure")) == (status, failure)
    assert main(["kaggle", "status", str(upload)]) == 0
    assert f"me/loud-sounds: {status}" in capsys.readouterr().out


def test_without_a_client_the_extra_is_named(upload: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(client, "version", absent)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ConfigError, match=r"esc_ensemble\[kaggle\]"):
        client.push(upload)


@pytest.mark.parametrize("content", [None, "no json", "[]", '{"title": "x"}', '{"id": 5}'])
def test_what_is_no_upload_folder_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "kernel").mkdir()
        (tmp_path / "kernel" / "kernel-metadata.json").write_text(content)
    for command in (client.push, client.status):
        with pytest.raises(ConfigError, match="esc-ens kaggle build"):
            command(tmp_path)


def test_a_folder_without_a_data_set_has_none_to_push(tmp_path: Path) -> None:
    options = BuildOptions(owner="me", title="Loud Sounds", competitions=("rain-or-fire",))
    folder = build_folder(None, tmp_path / "upload", options).folder
    with pytest.raises(ConfigError, match="--no-model"):
        client.push(folder, "dataset")
