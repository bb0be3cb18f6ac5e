"""Python with chosen distributions and nothing else, without network: a folder of links in the place of a new venv."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

# Refuses the network to this process; `unshare`, where it may be used, does so for those that it starts too.
BOOT = """
import runpy, socket, sys
def refuse(*arguments, **named):
    raise OSError("the network is refused")
for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
socket.create_connection = socket.getaddrinfo = refuse
site, script = sys.argv[1:3]
sys.path.append(site)
sys.argv = sys.argv[2:]
if script == "-c":
    exec(sys.argv.pop(1))
else:
    runpy.run_path(script, run_name="__main__")
"""


def with_needs(names: Iterable[str]) -> set[str]:
    """Names of distributions that are installed, with all that they require, extras apart."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found:
            continue
        try:
            needs = distribution(name).requires or []
        except PackageNotFoundError:
            continue  # of another platform
        found.add(name)
        parsed = map(Requirement, needs)
        waiting += [need.name for need in parsed if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


def make_site(folder: Path, *names: str) -> Path:
    """Links all that these distributions and their needs have installed into a new folder."""
    folder.mkdir(parents=True)
    for name in with_needs(names):
        found = distribution(name)
        for top in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
            link = folder / top
            if not link.is_symlink():
                link.symlink_to(Path(str(found.locate_file(top))).resolve())
    return folder


@functools.cache
def _no_network() -> tuple[str, ...]:
    command = ("unshare", "--net")
    if shutil.which("unshare") and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
        return command
    return ()


def run_bare(
    site: Path, script: str | Path, *arguments: str | Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a script, or `-c` and a program, by a Python that sees the standard library and `site` alone."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "OMP_NUM_THREADS")}
    command: Sequence[str | Path] = [
        *_no_network(),
        *(sys.executable, "-I", "-S", "-c", BOOT, site, script),
        *arguments,
    ]
    return subprocess.run(
        [str(each) for each in command],
        capture_output=True,
        text=True,
        check=False,
        env={**kept, **(environment or {})},
        timeout=300,
    )


def run_module(site: Path, module: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a module as `python -m` does, as `run_bare` runs scripts."""
    program = f"import runpy; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return run_bare(site, "-c", program, *arguments)


def importable(site: Path, *names: str) -> list[str]:
    """Which of these modules the bare Python can import."""
    program = f"""
import importlib
for name in {names!r}:
    try:
        importlib.import_module(name)
    except ImportError:
        continue
    print(name)
"""
    done = run_bare(site, "-c", program)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
