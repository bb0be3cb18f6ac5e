"""The package as text inside the kernel: a zip in base64 with its SHA-256, the same bytes for the same files."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import zipfile
from pathlib import Path

import esc_ensemble
from esc_ensemble.errors import ConfigError

KERNEL_FILE = "kaggle_kernel.py"
LINE = 120
EARLIEST = (1980, 1, 1, 0, 0, 0)
MODE = 0o644
LEFT_OUT = ("__pycache__",)
SHA256_LINE = 'PACKAGE_SHA256 = ""'
PACKAGE_LINE = 'PACKAGE = ""'


def package_folder() -> Path:
    """Gives where the package's files are."""
    return Path(esc_ensemble.__file__).resolve().parent


def read_kernel() -> str:
    """Gives the kernel's source, which lies beside the package in the repository and when installed.

    Raises:
        ConfigError: it is not there.
    """
    path = package_folder().parent / KERNEL_FILE
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}). Take it from the project's top level, or install the package "
            "again."
        ) from error


def pack(folder: Path) -> bytes:
    """Gives a zip of a package's files, in which they stand below the folder's name.

    Order, times and modes do not depend on the disk, and nothing that Python or an editor leaves behind is in it.

    Args:
        folder: the package's.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(_files(folder), key=lambda path: path.relative_to(folder).as_posix()):
            name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
            entry = zipfile.ZipInfo(name, EARLIEST)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, wherever it is made
            entry.external_attr = MODE << 16
            archive.writestr(entry, path.read_bytes())
    return content.getvalue()


def embed(source: str, archive: bytes) -> str:
    """Puts a zip into the kernel's source.

    Raises:
        ConfigError: the source is not the kernel's, or holds a package already.
    """
    for line in (SHA256_LINE, PACKAGE_LINE):
        if len(re.findall(rf"^{re.escape(line)}$", source, re.MULTILINE)) != 1:
            raise ConfigError(f"{KERNEL_FILE} does not hold the line {line} once. Take it from the project again.")
    text = base64.b64encode(archive).decode("ascii")
    lines = "\n".join(text[start : start + LINE] for start in range(0, len(text), LINE))
    digest = hashlib.sha256(archive).hexdigest()
    return _with_line(
        _with_line(source, SHA256_LINE, f'PACKAGE_SHA256 = "{digest}"'), PACKAGE_LINE, f'PACKAGE = """\n{lines}\n"""'
    )


def _with_line(source: str, line: str, new: str) -> str:
    return re.sub(rf"^{re.escape(line)}$", lambda _: new, source, count=1, flags=re.MULTILINE)


def _files(folder: Path) -> list[Path]:
    return [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.suffix not in (".pyc", ".pyo")
        and not any(part in LEFT_OUT or part.startswith(".") for part in path.relative_to(folder).parts)
    ]
