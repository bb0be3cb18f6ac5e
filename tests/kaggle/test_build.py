from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from esc_ensemble.__main__ import main
from esc_ensemble.errors import WorkError
from esc_ensemble.kaggle import build
from tests.kaggle.imitation import write_onnx

Capture = pytest.CaptureFixture[str]
NAMES = ("bark", "rain")


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    """An export called loud, of both kinds, with its card."""
    folder = tmp_path / "exports"
    write_onnx(folder / "loud.onnx", NAMES)
    with zipfile.ZipFile(folder / "loud.torchscript.pt", "w") as archive:
        archive.writestr("loud/extra/esc_ensemble", json.dumps({"class_names": NAMES, "sample_rate": 8000}))
    (folder / "loud.md").write_text("# loud\n\nTrained on ESC-50 (fingerprint 0123456789ab). CC BY-NC\n")
    return folder


def run(exports: Path, *flags: object) -> int:
    told = ["kaggle", "build", *flags, "--exports", exports, "--out", exports.parent / "upload"]
    return main([str(each) for each in told])


def files(exports: Path) -> set[str]:
    top = exports.parent / "upload"
    return {path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file()}


def read(exports: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((exports.parent / "upload" / name).read_text(encoding="utf-8"))
    return content


KERNEL_FILES = {"kernel/kaggle_kernel.py", "kernel/kernel-metadata.json"}


def test_a_folder_holds_kernel_and_model(exports: Path, capsys: Capture) -> None:
    assert run(exports, "loud", "--user", "me", "--title", "Loud Sounds", "--competition", "rain-or-fire", "--gpu") == 0
    models = {"dataset/loud.onnx", "dataset/loud.torchscript.pt", "dataset/loud.md", "dataset/dataset-metadata.json"}
    assert files(exports) == KERNEL_FILES | models
    kernel, dataset = read(exports, "kernel/kernel-metadata.json"), read(exports, "dataset/dataset-metadata.json")
    assert kernel["dataset_sources"] == [dataset["id"]] == ["me/loud-sounds-model"]
    assert kernel["competition_sources"] == ["rain-or-fire"]
    assert (kernel["enable_gpu"], kernel["machine_shape"]) == (True, "NvidiaTeslaT4")
    assert kernel["is_private"] is True
    assert dataset["licenses"] == [{"name": "CC-BY-NC-4.0"}]
    assert "CC BY-NC 3.0" in dataset["description"]
    assert (exports.parent / "upload" / "dataset" / "loud.onnx").read_bytes() == (exports / "loud.onnx").read_bytes()
    printed = capsys.readouterr().out
    assert "kaggle push" in printed
    assert "Note:" not in printed


def test_it_is_built_again_to_the_same_bytes(exports: Path) -> None:
    first: dict[str, bytes] = {}
    for number in range(2):
        assert run(exports, "loud", "--user", "me") == 0
        top = exports.parent / "upload"
        content = {name: (top / name).read_bytes() for name in files(exports)}
        assert not number or content == first
        first = content


def test_one_file_is_taken_alone(exports: Path, capsys: Capture) -> None:
    flags = ["--user", "me", "--public", "--dataset-title", "Only this", "--json"]
    assert run(exports, exports / "loud.onnx", *flags) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["files"]) == files(exports)
    assert "dataset/loud.torchscript.pt" not in result["files"]
    assert result["kernel"]["is_private"] is False
    assert result["dataset"]["id"] == "me/only-this"
    assert any("--wheels" in note for note in result["notes"])


def test_a_kernel_that_trains_needs_no_model(exports: Path, capsys: Capture) -> None:
    flags = ["--no-model", "--user", "me", "--dataset", "you/esc-50", "--time-budget", "3600", "--esc10"]
    flags += ["--data-flags=--folders classes"]
    assert run(exports, *flags) == 0
    assert files(exports) == KERNEL_FILES
    assert read(exports, "kernel/kernel-metadata.json")["dataset_sources"] == ["you/esc-50"]
    source = (exports.parent / "upload" / "kernel" / "kaggle_kernel.py").read_text(encoding="utf-8")
    assert "\nTIME_BUDGET = 3600.0  #" in source
    assert "\nESC10 = True  #" in source
    assert "\nDATA_FLAGS = '--folders classes'  #" in source.replace('"', "'")
    assert run(exports, "--no-model", "--user", "me") == 0
    assert "nothing is attached" in capsys.readouterr().out


def test_the_users_name_may_stand_in_the_environment(exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_USERNAME", "her")
    assert run(exports, "loud") == 0
    assert read(exports, "kernel/kernel-metadata.json")["id"] == "her/esc-ensemble-loud"


def refused(capsys: Capture, exports: Path, *flags: object, code: int = 2) -> str:
    assert run(exports, *flags) == code
    assert not (exports.parent / "upload").exists()
    return capsys.readouterr().err


def test_what_cannot_be_built_is_refused(exports: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAGGLE_USERNAME", raising=False)
    assert "--no-model" in refused(capsys, exports, "--user", "me")
    assert "--no-model" in refused(capsys, exports, "loud", "--no-model", "--user", "me")
    assert "esc-ens export" in refused(capsys, exports, "quiet", "--user", "me")
    assert "esc-ens export" in refused(capsys, exports, "quiet.onnx", "--user", "me")
    assert "--user" in refused(capsys, exports, "loud")
    assert "--wheels" in refused(capsys, exports, "--no-model", "--wheels", "--user", "me")
    (exports / "loud.md").unlink()
    assert "--licence" in refused(capsys, exports, "loud", "--user", "me")
    (exports / "loud.torchscript.pt").write_bytes(b"something else")
    assert "torchscript" in refused(capsys, exports, "loud", "--user", "me", "--licence", "other")


def test_a_folder_of_somebody_else_is_not_replaced(exports: Path, capsys: Capture) -> None:
    keep = exports.parent / "upload" / "thesis.txt"
    keep.parent.mkdir()
    keep.write_text("years of work")
    assert run(exports, "loud", "--user", "me") == 2
    assert "--out" in capsys.readouterr().err
    assert keep.read_text() == "years of work"


def test_wheels_lie_beside_the_model(exports: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    commands: list[list[str]] = []

    def download(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        folder = Path(command[command.index("--dest") + 1])
        (folder / "onnxruntime-1.20-cp312-cp312-manylinux_2_28_x86_64.whl").write_bytes(b"wheel")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", download)
    assert run(exports, "loud", "--user", "me", "--wheels") == 0
    assert any(name.endswith(".whl") for name in files(exports))
    assert {"--no-deps", "--only-binary=:all:", "3.12", "onnxruntime"} <= set(commands[0])

    def fail(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "no network\n")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(WorkError, match="no network"):
        build.download_wheels(exports)


def test_a_kernel_too_large_for_kaggle_is_refused(
    exports: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(build, "MOST_BYTES", 1000)
    assert "Kaggle takes 1000" in refused(capsys, exports, "loud", "--user", "me")


def test_building_and_pushing_load_no_torch() -> None:
    code = "import sys, esc_ensemble.kaggle.build, esc_ensemble.kaggle.client; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
