from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esc_ensemble.errors import ConfigError
from esc_ensemble.kaggle.build import MOST_BYTES, make_kernel
from esc_ensemble.kaggle.package import embed, pack, package_folder, read_kernel

names = st.from_regex(r"[a-z]{1,5}(/[a-z]{1,5}){0,2}\.(py|css|html)", fullmatch=True)


@settings(max_examples=30, deadline=None)
@given(files=st.dictionaries(names, st.binary(max_size=200), max_size=6), order=st.randoms())
def test_the_same_files_give_the_same_bytes(files: dict[str, bytes], order: object) -> None:
    """Whatever their times, modes and the order they were written in, and whatever Python left beside them."""
    archives = []
    for later in (False, True):
        with tempfile.TemporaryDirectory() as top:
            folder = Path(top) / "thing"
            folder.mkdir()
            listed = sorted(files)
            if later:
                order.shuffle(listed)  # type: ignore[attr-defined]
            for name in listed:
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(files[name])
                if later:
                    path.chmod(0o600)
                    os.utime(path, (1e9, 1e9))
            if later:
                for litter in ("__pycache__/a.cpython-311.pyc", ".hidden/x", "left.pyc"):
                    (folder / litter).parent.mkdir(exist_ok=True)
                    (folder / litter).write_bytes(b"x")
            archives.append(pack(folder))
    assert archives[0] == archives[1]
    with zipfile.ZipFile(io.BytesIO(archives[0])) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            f"thing/{name}": content for name, content in files.items()
        }
        assert archive.namelist() == sorted(archive.namelist())


def test_the_kernel_holds_the_whole_package_and_its_sum() -> None:
    source = make_kernel({"TIME_BUDGET": 60.0})
    assert source == make_kernel({"TIME_BUDGET": 60.0})
    compile(source, "kernel.py", "exec")
    assert max(map(len, source.splitlines())) <= 120
    assert len(source.encode()) < MOST_BYTES
    found = re.search(r'^PACKAGE = """\n(.*?)\n"""$', source, re.MULTILINE | re.DOTALL)
    assert found
    content = base64.b64decode(found[1])
    assert f'PACKAGE_SHA256 = "{hashlib.sha256(content).hexdigest()}"' in source
    assert re.search(r"^TIME_BUDGET = 60\.0  # Seconds", source, re.MULTILINE)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        packed = set(archive.namelist())
    assert packed == {
        f"esc_ensemble/{path.relative_to(package_folder()).as_posix()}"
        for path in package_folder().rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_a_setting_that_the_kernel_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match="no setting SPEED"):
        make_kernel({"SPEED": 1})


@pytest.mark.parametrize("line", ['PACKAGE = ""', 'PACKAGE_SHA256 = ""'])
def test_a_kernel_without_room_for_the_package_is_refused(line: str) -> None:
    source = read_kernel()
    for spoiled in (source.replace(f"\n{line}\n", "\n"), f"{source}\n{line}\n"):
        with pytest.raises(ConfigError, match="once"):
            embed(spoiled, b"zip")
