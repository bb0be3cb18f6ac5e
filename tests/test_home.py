"""No home folder, one that cannot be written to, no folder for temporary files: caches go elsewhere, or it is said."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest

from esc_ensemble import home
from esc_ensemble.__main__ import _explain
from esc_ensemble.data.cache import default_cache_dir
from esc_ensemble.errors import ConfigError, DiskError
from esc_ensemble.files import temporary_folder
from esc_ensemble.home import expand_home, provide_caches, spare_home

NAMES = ("HOME", "USERPROFILE", "XDG_CACHE_HOME", "ESC_ENSEMBLE_CACHE", "MPLCONFIGDIR")
NOBODY = """
import os, pwd, sys
def none(uid): raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = none
from esc_ensemble.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder for temporary files; no variable names a home folder or a cache."""
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that it is put back afterwards, whatever the test does
        monkeypatch.delenv(name)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, temporary: Path) -> Path:
    """A user without a home folder; gives the folder for temporary files."""
    pwd = pytest.importorskip("pwd")

    def none(number: int) -> NoReturn:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", none)
    return temporary


@pytest.fixture
def no_temporary(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> NoReturn:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)


def test_without_a_home_the_cache_is_a_private_folder_among_temporary_files(
    homeless: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = default_cache_dir()
    spare = spare_home()
    assert spare.parent == homeless
    assert folder.is_relative_to(spare)
    assert spare.stat().st_mode & 0o077 == 0
    message = capsys.readouterr().err
    assert str(folder) in message
    assert "ESC_ENSEMBLE_CACHE" in message


def test_a_home_that_is_no_folder_is_not_used(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = temporary / "file"
    file.touch()
    monkeypatch.setenv("HOME", str(file))
    assert default_cache_dir().is_relative_to(spare_home())


@pytest.mark.parametrize("closed", [".", ".cache", ".cache/esc_ensemble"])
def test_a_cache_folder_that_cannot_be_written_is_not_used(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    own = temporary / "own"
    (own / closed).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(own))
    real = os.access  # root may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != own / closed and real(path, mode))
    assert default_cache_dir().is_relative_to(spare_home())


def test_a_home_that_can_be_written_is_used_without_a_word(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(temporary / "own"))
    assert default_cache_dir() == temporary / "own" / ".cache" / "esc_ensemble"
    before = dict(os.environ)
    provide_caches()
    assert {name: os.environ.get(name) for name in NAMES} == {name: before.get(name) for name in NAMES}
    assert capsys.readouterr().err == ""


def test_where_nothing_can_be_written_the_message_names_the_variable(homeless: Path, no_temporary: None) -> None:
    with pytest.raises(DiskError, match="ESC_ENSEMBLE_CACHE"):
        default_cache_dir()
    provide_caches()
    assert "HOME" not in os.environ


def test_a_cache_below_an_unknown_home_is_refused(homeless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESC_ENSEMBLE_CACHE", "~/clips")
    with pytest.raises(ConfigError, match="ESC_ENSEMBLE_CACHE is ~/clips"):
        default_cache_dir()


def test_a_folder_of_someone_else_is_not_trusted(homeless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spare_home()
    monkeypatch.setattr(home, "_spare_path", lambda: homeless / "link")
    (homeless / "link").symlink_to(homeless)
    with pytest.raises(DiskError, match="not a folder of this user"):
        spare_home()


def test_libraries_get_a_home(homeless: Path) -> None:
    provide_caches()
    assert Path.home() == spare_home()


def test_libraries_get_a_cache_where_the_home_has_none(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (temporary / "file").touch()
    monkeypatch.setenv("HOME", str(temporary / "file"))
    provide_caches()
    assert os.environ["HOME"] == str(temporary / "file")
    assert Path(os.environ["XDG_CACHE_HOME"]).is_relative_to(spare_home())
    assert Path(os.environ["MPLCONFIGDIR"]).is_relative_to(spare_home())


def test_an_unknown_home_in_a_path_stays(homeless: Path) -> None:
    assert expand_home("~/a") == Path("~/a")
    assert expand_home("~nobody-of-this-name/a") == Path("~nobody-of-this-name/a")
    assert expand_home(Path("a/~")) == Path("a/~")


def test_no_folder_for_temporary_files_is_one_message(no_temporary: None) -> None:
    with pytest.raises(DiskError, match="TMPDIR"), temporary_folder():
        pass


def test_temporary_folders_go_when_they_are_left(temporary: Path) -> None:
    with temporary_folder() as folder:
        (folder / "file").touch()
        assert folder.parent == temporary
    assert not folder.exists()


@pytest.mark.parametrize(
    ("error", "words", "code"),
    [
        (FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"), "TMPDIR", 1),
        (RuntimeError("Could not determine home directory."), "begins with ~", 2),
    ],
)
def test_what_libraries_raise_about_folders_is_explained(error: Exception, words: str, code: int) -> None:
    message, found = _explain(error)
    assert found == code
    assert words in message
    assert "fault in esc-ens" not in message


@pytest.mark.skipif(sys.platform == "win32", reason="users without a name are those of containers")
def test_commands_work_for_a_user_without_name_and_home(tmp_path: Path, synthetic_dir: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in (*NAMES, "USER", "LOGNAME")}
    (tmp_path / "tmp").mkdir()
    for arguments in (
        ["data", "info", str(synthetic_dir), "--check"],
        ["baseline", "--data", str(synthetic_dir), "--limit", "20", "--fold", "1", "--workers", "1"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", NOBODY, *arguments],
            cwd=tmp_path,
            env=environment | {"TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(Path(__file__).parents[1])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "ESC_ENSEMBLE_CACHE" in done.stderr
    assert list((tmp_path / "tmp").glob("esc_ensemble-*/.cache/esc_ensemble/*.npy"))
