"""What the documentation shows is run as it stands there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from esc_ensemble.logits import read_run

DOCS = Path(__file__).parents[1] / "docs"


def code_blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of each fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def walked(synthetic_dir: Path, shared_cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all of foreign-members.md was typed, from top to bottom, on a set named my-data."""
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "my-data").symlink_to(synthetic_dir)
    (folder / "my-test").symlink_to(synthetic_dir / "audio")
    (folder / "esc-ens").write_text(f'#!/bin/sh\nexec {sys.executable} -m esc_ensemble "$@"\n')
    (folder / "esc-ens").chmod(0o755)
    # No shared cache of other tests: the variable is set for each test, not for this fixture.
    environment = os.environ | {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(DOCS.parent),
        "ESC_ENSEMBLE_CACHE": str(shared_cache_dir),
    }
    blocks = code_blocks((DOCS / "foreign-members.md").read_text(encoding="utf-8"))
    assert [language for language, _ in blocks] == ["sh", "python", "python", "sh", "python", "sh"]
    for language, code in blocks:
        command = ["sh", "-e", "-c", code] if language == "sh" else [sys.executable, "-W", "error", "-c", code]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    return folder


def test_the_documented_members_blend_with_a_baseline(walked: Path) -> None:
    blend = json.loads((walked / "submissions" / "mix" / "blend.json").read_text())
    assert [member["run"] for member in blend["members"]] == ["mfcc", "shares", "forest"]


def test_the_documented_members_hold_what_they_say(walked: Path) -> None:
    shares, forest, mfcc = (read_run(walked / "runs" / name) for name in ("shares", "forest", "mfcc"))
    for run in (shares, forest):
        assert run.class_names == mfcc.class_names
        by_id = np.argsort(run.clip_ids)
        np.testing.assert_array_equal(run.labels[by_id], mfcc.labels[np.argsort(mfcc.clip_ids)])
        np.testing.assert_array_equal(run.sources[by_id], mfcc.sources[np.argsort(mfcc.clip_ids)])
    np.testing.assert_allclose(np.exp(shares.logits).sum(axis=2), 1.0, rtol=1e-6)
    assert (forest.logits[0].argmax(axis=1) == forest.labels).mean() > 0.5  # ten classes: it has learned


def test_the_documented_member_is_predicted(walked: Path) -> None:
    with np.load(walked / "submissions" / "alone" / "test.npz") as arrays:
        assert arrays["members"].tolist() == ["shares"]
        np.testing.assert_allclose(arrays["probabilities"], 0.1, atol=1e-5)  # all classes are equally frequent
    lines = (walked / "submissions" / "alone" / "submission.csv").read_text().splitlines()
    assert len(lines) == 1 + 100


def test_the_numpy_example_is_numpy_alone_and_short() -> None:
    code = code_blocks((DOCS / "foreign-members.md").read_text(encoding="utf-8"))[1][1]
    imported = re.findall(r"^(?:import|from) (\w+)", code, flags=re.MULTILINE)
    assert set(imported) <= {"csv", "json", "pathlib", "numpy"}
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
