"""TorchScript files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from esc_ensemble.__main__ import main
from esc_ensemble.errors import WorkError
from esc_ensemble.export.fused import FusedBlend, load_parts, mixing_of
from esc_ensemble.export.parity import LARGEST_DIFFERENCE
from esc_ensemble.export.source import find_clips, read_source
from esc_ensemble.export.torchscript import export_torchscript
from esc_ensemble.infer import METADATA_KEY
from tests.conftest import Made


@torch.inference_mode()
def test_the_command_writes_a_file_that_gives_torchs_probabilities(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(made.blend), "--format", "torchscript", "--exports", str(tmp_path), "--json"]
    assert main(command) == 0
    result = json.loads(capsys.readouterr().out)
    path = tmp_path / "both.torchscript.pt"
    assert result["file"] == str(path)
    assert result["max_difference"] <= LARGEST_DIFFERENCE
    extra = {METADATA_KEY: ""}
    network = torch.jit.load(path, _extra_files=extra)  # type: ignore[no-untyped-call]
    content = read_source(made.blend)
    assert json.loads(extra[METADATA_KEY])["class_names"] == content["class_names"]
    fused = FusedBlend(load_parts(content, made.blend), mixing_of(content)).eval()
    for n_clips, n_samples in ((1, 8000), (3, 8000), (3, 5001), (2, 21111)):
        waves = 0.1 * torch.randn(n_clips, n_samples, generator=torch.Generator().manual_seed(n_clips))
        torch.testing.assert_close(network(waves), fused(waves), rtol=0.0, atol=LARGEST_DIFFERENCE)


def test_a_file_that_disagrees_is_not_written(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = read_source(made.blend)
    parts, clips = load_parts(content, made.blend), find_clips(content, made.blend, None, 2)
    other = torch.jit.trace(lambda waves: waves[:, :10].softmax(dim=1), torch.zeros(2, 8000))  # type: ignore[no-untyped-call]
    monkeypatch.setattr(torch.jit, "trace", lambda *_, **__: other)
    with pytest.raises(WorkError, match=r"TorchScript and torch disagree.*was not written"):
        export_torchscript(parts, content, clips, tmp_path / "new.pt")
    assert not (tmp_path / "new.pt").exists()
