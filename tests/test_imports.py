"""Who may import whom: data flows one way, and the rooms without torch stay without it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "esc_ensemble"

# Lowest first: a room imports only rooms below it, and its own modules. Rooms of one line do not import each other.
LEVELS = [
    {"errors", "terminal"},
    {"arguments", "cores", "progress", "display", "flags", "home"},
    {"files", "processes"},
    {"settings"},
    {"config"},
    {"data"},
    {"logits_rules"},
    {"logits", "metrics", "manifest"},
    {"significance", "fold_scores"},
    {"features"},
    {"augment"},
    {"models", "memory"},
    {"predict"},
    {"training", "baseline"},
    {"submission_rules"},
    {"submission"},
    {"blend"},
    {"infer", "cost"},
    {"serve"},
    {"export"},
    {"testset"},
    {"report"},
    {"quickstart", "compare", "kaggle"},
    {"cli"},
    {"__main__"},
]
LEVEL = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}
NO_TORCH = {
    *(
        "errors",
        "cores",
        "files",
        "home",
        "processes",
        "progress",
        "terminal",
        "display",
        "arguments",
        "flags",
        "settings",
        "config",
        "data",
        "logits_rules",
        "logits",
        "metrics",
        "significance",
        "manifest",
        "fold_scores",
        "baseline",
    ),
    *("submission_rules", "submission", "blend", "infer", "serve", "cli", "__main__"),
}
HEAVY = {"torch", "torchaudio", "transformers", "accelerate", "safetensors"}


def modules() -> dict[str, Path]:
    """Dotted names below the package -> files; the package's own `__init__` is left out."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if name:
            found[name] = path
    return found


def imports(path: Path, *, at_top: bool = False) -> Iterator[str]:
    """Every module that a file names in an import, also inside functions and for type checking."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if at_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from [name if name.removeprefix("esc_ensemble.") in modules() else node.module for name in inside]


def room(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


def inner_imports(path: Path) -> Iterator[str]:
    for name in imports(path):
        if name.startswith("esc_ensemble."):
            yield name.removeprefix("esc_ensemble.")


def test_every_room_has_its_level() -> None:
    assert {room(name) for name in modules()} <= set(LEVEL)


@pytest.mark.parametrize("name", sorted(modules()))
def test_nobody_imports_upwards(name: str) -> None:
    own = room(name)
    for other in map(room, inner_imports(modules()[name])):
        assert other == own or LEVEL[other] < LEVEL[own], f"{name} imports {other}, which is not below it"


def test_nobody_imports_the_command_line() -> None:
    for name, path in modules().items():
        assert room(name) in ("cli", "__main__") or "cli" not in map(room, inner_imports(path)), name


def test_no_two_modules_import_each_other() -> None:
    graph = {name: set(inner_imports(path)) & set(modules()) for name, path in modules().items()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above, name])
        if name not in done:
            for other in graph[name]:
                visit(other, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("name", sorted(name for name in modules() if room(name) in NO_TORCH))
def test_rooms_without_torch_do_not_name_it(name: str) -> None:
    named = {module.split(".")[0] for module in imports(modules()[name])}
    assert not named & HEAVY


@pytest.mark.parametrize("name", sorted(name for name in modules() if room(name) in NO_TORCH - {"cli", "__main__"}))
def test_rooms_without_torch_import_no_room_with_it(name: str) -> None:
    assert set(map(room, inner_imports(modules()[name]))) <= NO_TORCH


def test_the_command_line_imports_rooms_with_torch_inside_commands_alone() -> None:
    paths = [path for name, path in modules().items() if room(name) == "cli"]
    top = {module.removeprefix("esc_ensemble.") for path in paths for module in imports(path, at_top=True)}
    rooms = {room(module) for module in top} & set(LEVEL)
    assert rooms <= {"cli", "config", "display", "errors", "cores", "flags", "progress", "settings"}


def test_what_needs_no_torch_loads_none() -> None:
    names = [
        *("esc_ensemble.__main__", "esc_ensemble.infer", "esc_ensemble.submission", "esc_ensemble.blend.ensemble"),
        *("esc_ensemble.serve.app", "esc_ensemble.serve.command", "esc_ensemble.serve.server"),
        *("esc_ensemble.data.audio", "esc_ensemble.data.cache", "esc_ensemble.logits", "esc_ensemble.metrics"),
    ]
    code = f"import sys, {', '.join(names)}; print(sorted({HEAVY | {'librosa'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_happens_when_the_package_is_imported() -> None:
    code = "import esc_ensemble, sys; print(sorted(name for name in sys.modules if name in ('numpy', 'pydantic')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
