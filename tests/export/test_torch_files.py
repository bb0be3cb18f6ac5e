"""TorchScript and `.pt2` files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from esc_ensemble.__main__ import main
from esc_ensemble.errors import WorkError
from esc_ensemble.export import pipeline
from esc_ensemble.export.fused import FusedBlend
from esc_ensemble.export.parity import LARGEST_DIFFERENCE
from esc_ensemble.export.parts import load_parts, mixing_of
from esc_ensemble.export.pipeline import Format
from esc_ensemble.export.source import read_source
from esc_ensemble.infer import METADATA_KEY
from tests.conftest import Made


@pytest.mark.parametrize(("kind", "ending"), [("torchscript", "torchscript.pt"), ("pt2", "pt2")])
@torch.inference_mode()
def test_the_command_writes_a_file_that_gives_torchs_probabilities(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: Format, ending: str
) -> None:
    assert main(["export", str(made.blend), "--format", kind, "--exports", str(tmp_path), "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["files"]
    path = tmp_path / f"both.{ending}"
    assert (result["file"], result["format"]) == (str(path), kind)
    assert result["max_difference"] <= LARGEST_DIFFERENCE
    extra = {METADATA_KEY: ""}
    if kind == "pt2":
        network = torch.export.load(path, extra_files=extra).module()
    else:
        network = torch.jit.load(path, _extra_files=extra)  # type: ignore[no-untyped-call]
    content = read_source(made.blend)
    assert json.loads(extra[METADATA_KEY])["class_names"] == content["class_names"]
    fused = FusedBlend(load_parts(content, made.blend), mixing_of(content)).eval()
    for n_clips, n_samples in ((1, 8000), (3, 8000), (3, 5001), (2, 21111)):
        waves = 0.1 * torch.randn(n_clips, n_samples, generator=torch.Generator().manual_seed(n_clips))
        torch.testing.assert_close(network(waves), fused(waves), rtol=0.0, atol=LARGEST_DIFFERENCE)


@pytest.mark.parametrize("kind", ["torchscript", "pt2"])
def test_a_file_that_disagrees_is_not_written(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Format
) -> None:
    monkeypatch.setattr(pipeline, f"run_{kind}", lambda _: lambda waves: np.full((len(waves), 10), 0.1, np.float32))
    options = pipeline.ExportOptions(format=kind, check_clips=2, accuracy_clips=0)
    with pytest.raises(WorkError, match=r"disagree.*was not written"):
        pipeline.export_blend(read_source(made.blend), made.blend, tmp_path / "new", options)
    assert not list(tmp_path.iterdir())
