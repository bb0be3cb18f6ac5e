from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from esc_ensemble.blend.combine import COMBINERS, Mixture, blend_probabilities
from esc_ensemble.config import DataConfig
from esc_ensemble.data.audio import fit_to_length, trim_silence
from esc_ensemble.errors import ModelFileError
from esc_ensemble.export.fused import FusedBlend
from esc_ensemble.export.parts import Mixing, Part, heard_data, load_parts
from esc_ensemble.export.source import read_source
from esc_ensemble.features.frontend import SpectrogramFrontend
from esc_ensemble.features.logmel import MelPower
from esc_ensemble.models.checkpoint import load_checkpoint, save_checkpoint
from esc_ensemble.models.registry import ModelSpec, build_model
from esc_ensemble.predict import shift_waveform
from tests.conftest import Made
from tests.export.graphs import graph_of, listen
from tests.tiny import N_CLASSES, tiny_spec

SHIFTS = (-0.1, 0.0, 0.1)


def part(  # noqa: PLR0917 - all but the last are given by place, as in a table
    seed: int,
    weight: float | tuple[float, ...],
    temperature: float,
    shifts: tuple[float, ...] = SHIFTS,
    shares: tuple[float, ...] = (),
    mode: Any = "cyclic",
    **over: Any,
) -> Part:
    torch.manual_seed(seed)
    spec = tiny_spec(**over)
    model = build_model(spec)
    with torch.no_grad():  # fresh weights say next to nothing; make the parts disagree
        model.get_parameter("head.weight").mul_(20)
        model.get_parameter("head.bias").copy_(torch.randn(spec.to_json()["class_names"].__len__()))
    return Part(model.eval(), spec, temperature, weight, shifts, shares or (1.0 / len(shifts),) * len(shifts), mode)


def entry(name: str) -> dict[str, Any]:
    """A member of blend.json that has one fold and no shifts."""
    return {
        "run": name, "path": name, "weight": 0.5, "class_weights": None, "folds": [1], "temperatures": {"1": 1.0},
        "shifts": [0.0], "shift_weights": [1.0], "shift_mode": "cyclic",
    }  # fmt: skip


def waveform(n_clips: int = 5, n_samples: int = 8000) -> torch.Tensor:
    return 0.1 * torch.randn(n_clips, n_samples, generator=torch.Generator().manual_seed(0))


def prepared(waves: torch.Tensor, data: DataConfig) -> torch.Tensor:
    """Waveforms as a trainer hears them."""
    rows = [trim_silence(row, data.sample_rate, data.trim_db) for row in waves.numpy()]
    return torch.from_numpy(np.stack([fit_to_length(row, data.n_samples, data.fit) for row in rows]))


def expected(parts: list[Part], waves: torch.Tensor, mixing: Mixing) -> np.ndarray:
    """The formula of the blender on logits that each model gives by itself."""
    logits = []
    for item in parts:
        data = item.spec.data
        shifted = shift_waveform(prepared(waves, data), item.shift_seconds, 8000, data.window_seconds, item.shift_mode)
        logits.append(np.stack([item.model(rows).detach().numpy() for rows in shifted]))
    by_class = isinstance(parts[0].weight, tuple)
    weights = np.array([item.weight for item in parts], dtype=np.float64)
    mixture = Mixture(
        mixing.combiner,
        weights=weights.mean(axis=1) if by_class else weights,
        shift_weights=tuple(np.array(item.shift_weights) for item in parts),
        temperature=mixing.temperature,
        class_weights=weights if by_class else None,
        bias=np.array(mixing.bias) if mixing.bias else None,
    )
    return blend_probabilities(logits, [item.temperature for item in parts], mixture)


@pytest.mark.parametrize("temperature", [1.0, 0.4])
@pytest.mark.parametrize("combiner", COMBINERS)
@pytest.mark.parametrize(
    "shifts", [((0.0,), (0.0,)), (SHIFTS, SHIFTS), (SHIFTS, (0.0, 0.25))], ids=["no tta", "tta", "own shifts"]
)
def test_two_members_of_two_folds_give_the_blenders_probabilities(
    combiner: Any, shifts: tuple[tuple[float, ...], tuple[float, ...]], temperature: float
) -> None:
    parts = [
        part(0, 0.35, 0.7, shifts[0]),
        part(1, 0.35, 1.9, shifts[0]),
        part(2, 0.15, 1.0, shifts[1], frontend={"channels": ["logmel"]}),
        part(3, 0.15, 3.1, shifts[1], frontend={"channels": ["logmel"]}),
    ]
    mixing = Mixing(combiner, temperature)
    found = FusedBlend(parts, mixing).eval()(waveform()).detach().numpy()
    np.testing.assert_allclose(found, expected(parts, waveform(), mixing), atol=2e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-6)
    assert found.std(axis=0).max() > 1e-3


def test_weights_of_shifts_classes_and_zero_padding_also_in_a_graph() -> None:
    by_class = [tuple(np.linspace(0.1, 0.9, N_CLASSES)), tuple(np.linspace(0.9, 0.1, N_CLASSES))]
    parts = [
        part(0, by_class[0], 1.3, SHIFTS, (0.2, 0.5, 0.3), "zero"),
        part(1, by_class[1], 0.8, (-0.3, 0.0), (0.1, 0.9)),
    ]
    mixing = Mixing("geometric", 0.7, tuple(np.linspace(-1.0, 1.0, N_CLASSES)))
    fused = FusedBlend(parts, mixing).eval()
    wanted = expected(parts, waveform(3), mixing)
    np.testing.assert_allclose(fused(waveform(3)).detach().numpy(), wanted, atol=2e-6)
    cyclic = expected([replace(item, shift_mode="cyclic") for item in parts], waveform(3), mixing)
    assert np.abs(wanted - cyclic).max() > 1e-4  # silence is heard
    np.testing.assert_allclose(listen(graph_of(fused))(waveform(3).numpy()), wanted, atol=1e-5)


@pytest.mark.parametrize("combiner", ["logits", "rank", "arithmetic"])
def test_combiners_in_a_graph(combiner: Any) -> None:
    parts = [part(0, 0.7, 1.3, (0.0,)), part(1, 0.3, 0.8, (0.0,))]
    mixing = Mixing(combiner, 1.4)
    found = listen(graph_of(FusedBlend(parts, mixing).eval()))(waveform(3).numpy())
    np.testing.assert_allclose(found, expected(parts, waveform(3), mixing), atol=1e-5)


def test_members_with_windows_of_their_own_hear_crops_also_in_a_graph() -> None:
    reference = {"name": "spec_cnn_reference", "widths": [8]}  # quick to export
    parts = [
        part(0, 0.5, 1.0, (-0.25, 0.0, 0.25), name="spec_cnn_reference", model=reference, data={"window_seconds": 0.5}),
        part(1, 0.5, 1.0, (0.0,), name="spec_cnn_reference", model=reference),
    ]
    fused = FusedBlend(parts, Mixing("geometric")).eval()
    assert [group.n_window for group in fused.groups] == [4000, 0]
    hear = listen(graph_of(fused))
    for n_samples in (8000, 8001, 4000, 30000, 1):
        waves = waveform(3, n_samples)
        wanted = expected(parts, waves, Mixing("geometric"))
        np.testing.assert_allclose(fused(waves).detach().numpy(), wanted, atol=1e-6)
        np.testing.assert_allclose(hear(waves.numpy()), wanted, atol=1e-5)


def test_a_model_of_windows_of_long_recordings_takes_what_its_windows_need() -> None:
    reference = {"name": "spec_cnn_reference", "widths": [8]}
    data = {"clip_seconds": 90.0, "window_seconds": 0.5}
    parts = [part(0, 1.0, 1.0, (-0.25, 0.0, 0.25), name="spec_cnn_reference", model=reference, data=data)]
    assert heard_data(parts).clip_seconds == 1.0
    waves = waveform(2, 91 * 8000)
    wanted = expected(parts, waves, Mixing("geometric"))
    np.testing.assert_allclose(FusedBlend(parts, Mixing("geometric")).eval()(waves).detach().numpy(), wanted, atol=1e-6)


def test_members_that_hear_clips_of_different_lengths_share_a_file() -> None:
    reference: dict[str, Any] = {"name": "spec_cnn_reference", "model": {"name": "spec_cnn_reference", "widths": [8]}}
    parts = [
        part(0, 0.4, 1.0, **reference),
        part(1, 0.3, 1.0, **reference, data={"clip_seconds": 2.0, "fit": "pad"}),
        part(2, 0.3, 1.0, **reference, data={"trim_db": 0.0}),
    ]
    fused = FusedBlend(parts, Mixing("geometric")).eval()
    hear = listen(graph_of(fused))
    waves = waveform(2, 9000)
    waves[0, :3000] = 0.0
    wanted = expected(parts, waves, Mixing("geometric"))
    np.testing.assert_allclose(fused(waves).detach().numpy(), wanted, atol=1e-6)
    np.testing.assert_allclose(hear(waves.numpy()), wanted, atol=1e-5)


def test_one_part_without_shifts_is_its_models_softmax() -> None:
    only = part(0, 1.0, 2.0, (0.0,))
    found = FusedBlend([only], Mixing("geometric")).eval()(waveform())
    torch.testing.assert_close(found, (only.model(waveform()) / 2.0).softmax(dim=1))


def n_frontend_calls(parts: list[Part]) -> tuple[int, int]:
    """How many spectra and how many sets of features are computed for one waveform."""
    calls: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for kind, name in ((MelPower, "spectrum"), (SpectrogramFrontend, "from_spectrum")):
            original = getattr(kind, name)

            def count(self: Any, values: torch.Tensor, *, own: Any = original, name: str = name) -> torch.Tensor:
                calls.append(name)
                return cast(torch.Tensor, own(self, values))

            patch.setattr(kind, name, count)
        FusedBlend(parts, Mixing("geometric"))(waveform(1))
    return calls.count("spectrum"), calls.count("from_spectrum")


def test_what_parts_have_in_common_is_computed_once() -> None:
    assert n_frontend_calls([part(0, 0.5, 1.0), part(1, 0.5, 1.0)]) == (1, 1)
    assert n_frontend_calls([part(0, 0.5, 1.0), part(1, 0.5, 1.0, (0.0,))]) == (2, 2)
    assert n_frontend_calls([part(0, 0.5, 1.0), part(1, 0.5, 1.0, frontend={"n_mels": 20})]) == (1, 2)
    assert n_frontend_calls([part(0, 0.5, 1.0), part(1, 0.5, 1.0, frontend={"n_fft": 400})]) == (2, 2)


def test_front_ends_with_weights_are_shared_where_these_are_the_same() -> None:
    learned = {"pcen": {"learnable": True}}
    parts = [part(0, 0.5, 1.0, frontend=learned), part(1, 0.5, 1.0, frontend=learned)]
    assert n_frontend_calls(parts) == (1, 1)
    with torch.no_grad():
        next(parts[1].model.frontend.parameters()).mul_(1.1)
    assert n_frontend_calls(parts) == (1, 2)


def test_load_parts_takes_every_fold_of_every_member_with_its_temperature_and_share(made: Made) -> None:
    content = read_source(made.blend)
    parts = load_parts(content, made.blend)
    assert len(parts) == 4
    assert sum(cast(float, item.weight) for item in parts) == pytest.approx(1.0)
    for number, item in enumerate(parts):
        member, fold = content["members"][number // 2], (1, 2)[number % 2]
        assert item.temperature == member["temperatures"][str(fold)]
        assert item.weight == pytest.approx(member["weight"] / 2)
        assert item.shift_seconds == pytest.approx(SHIFTS)
        assert (item.run, item.fold) == (member["run"], fold)
        model, _ = load_checkpoint(made.runs[number // 2] / f"fold-{fold}")
        assert torch.equal(item.model(waveform(2)), model(waveform(2)))


def test_a_member_of_weight_0_is_left_out(made: Made) -> None:
    content = read_source(made.blend)
    content["members"][0]["weight"], content["members"][1]["weight"] = 0.0, 1.0
    assert len(load_parts(content, made.blend)) == 2


def test_a_missing_checkpoint_is_named(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.root / "runs", tmp_path / "runs")
    shutil.copytree(made.blend, tmp_path / "submissions" / "both")
    (tmp_path / "runs" / "two" / "fold-2" / "model.safetensors").unlink()
    blend = tmp_path / "submissions" / "both"
    with pytest.raises(ModelFileError, match=r"two/fold-2/model\.safetensors does not exist"):
        load_parts(read_source(blend), blend)


def test_members_of_other_classes_are_refused(tmp_path: Path) -> None:
    def save(name: str, spec: ModelSpec) -> dict[str, Any]:
        save_checkpoint(tmp_path / name / "fold-1", build_model(spec), spec, fold=1, run=name)
        return entry(name)

    first = tiny_spec()
    renamed = ModelSpec(first.model, first.frontend, first.data, ("a", "b", "c"))
    members = [save("one", first), save("three", renamed)]
    with pytest.raises(ModelFileError, match=r"(?s)other classes.*three, fold 1"):
        load_parts({"members": members, "class_names": list(first.class_names)}, tmp_path)


def test_a_selection_split_does_not_keep_members_apart(made: Made, tmp_path: Path) -> None:
    first, other = tiny_spec(), tiny_spec(data={"selection_fraction": 0.2})
    for name, spec in (("one", first), ("two", other)):
        save_checkpoint(tmp_path / name / "fold-1", build_model(spec), spec, fold=1, run=name)
    members = [entry(name) for name in ("one", "two")]
    assert len(load_parts({"members": members, "class_names": list(first.class_names)}, tmp_path)) == 2


def test_blend_json_is_the_source_of_what_is_fused(made: Made) -> None:
    written = json.loads((made.blend / "blend.json").read_text())
    assert read_source(made.blend) == written | {"class_numbers": list(range(10))}  # which the runs know
