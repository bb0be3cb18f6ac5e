"""Model B from the command line, with the real shapes of published backbones (95 M parameters) and real clips."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from esc_ensemble.__main__ import main
from esc_ensemble.export.parity import LARGEST_DIFFERENCE
from esc_ensemble.logits import read_logits
from esc_ensemble.models.backbones import build_backbone, load_weights, read_backbone
from tests.backbones import save_backbone, save_base

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ESC_ENSEMBLE_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("family", ["wav2vec2", "wavlm"])
def test_a_backbone_of_real_size_trains_resumes_and_exports(
    family: str, esc10_dir: Path, here: Path, capsys: Capture
) -> None:
    source = save_base(here / "backbone", family)
    small = ["--limit=50", "--data.clip-seconds=1", "--frontend.views=1", "--train.epochs=1", "--shift-seconds=0"]
    command = ["train-b", f"--data={esc10_dir}", f"--model.source={source}", "--fold=1", *small]
    assert main(command) == 0
    capsys.readouterr()
    logits = read_logits(Path("runs/b/fold-1/logits.npz"))
    assert logits.test.logits.shape == (1, 10, 10)

    assert main(command) == 0
    assert "b fold 1: done already" in capsys.readouterr().err

    trained = load_file("runs/b/fold-1/model.safetensors")
    given = build_backbone(read_backbone(source))
    load_weights(source, given)
    weights = given.state_dict()
    for name, tensor in weights.items():
        _, _, rest = name.partition("encoder.layers.")
        if not rest or int(rest.split(".")[0]) < 8:
            inside = f"frontend.blocks.{rest}" if rest else f"frontend.{name.removeprefix('encoder.')}"
            if name != "masked_spec_embed":  # which only pretraining uses
                assert torch.equal(trained[inside], tensor), name
        else:
            number, _, rest = rest.partition(".")
            if tensor.ndim == 2:
                assert not torch.equal(trained[f"blocks.{int(number) - 8}.{rest}"], tensor), name

    # To ONNX a network of this size takes a minute; smaller ones go there in tests/export.
    assert main(["export", "b", "--format=torchscript", "--check-clips=3", "--json"]) == 0
    (exported,) = json.loads(capsys.readouterr().out.splitlines()[-1])["files"]
    assert exported["max_difference"] <= LARGEST_DIFFERENCE


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.source=/gone"], "does not exist"),
        (["--model.source=torchaudio:WAV2VEC2_BASE"], "wav2vec2_fairseq_base_ls960.pth, and https.*TORCH_HOME"),
        (["--model.unfreeze=5"], "model.unfreeze is 5, but .* has 4 blocks"),
        (["--data.sample-rate=8000"], "set data.sample_rate to 16000"),
        (["--frontend.n-mels=3"], "--frontend.n-mels"),
    ],
)
def test_what_cannot_work_is_told_in_one_message(
    flags: list[str], message: str, synthetic_dir: Path, no_network: Path, capsys: Capture
) -> None:
    source = save_backbone(no_network / "backbone")
    given = [] if "--model.source" in flags[0] else [f"--model.source={source}"]
    assert main(["train-b", f"--data={synthetic_dir}", f"--runs={no_network}", *given, *flags]) == 2
    error = capsys.readouterr().err
    assert error.count("esc-ens: ") == 1
    assert re.search(message, error), error
    assert "Traceback" not in error
    assert not (no_network / "b" / "manifest.json").exists()
