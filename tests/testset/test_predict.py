"""Unlabelled clips through a blend: what is computed, kept, brought, refused and written."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from esc_ensemble.__main__ import main
from esc_ensemble.blend.ensemble import blend_runs
from esc_ensemble.config import BlendConfig
from esc_ensemble.data.audio import decode
from esc_ensemble.data.cache import build_cache
from esc_ensemble.data.catalog import load_catalog, load_unlabelled
from esc_ensemble.data.rows import ReadOptions
from esc_ensemble.errors import ConfigError, DataError, LogitsError, ModelFileError
from esc_ensemble.export.fused import FusedBlend
from esc_ensemble.export.parts import load_parts, mixing_of
from esc_ensemble.export.source import read_source
from esc_ensemble.logits import FoldLogits, LogitsPart, empty_part, read_logits, read_run, write_logits
from esc_ensemble.models.checkpoint import load_checkpoint
from esc_ensemble.predict import predict_logits
from esc_ensemble.testset import logits as test_logits
from esc_ensemble.testset.options import PredictOptions, choose_device
from esc_ensemble.testset.predict import Predicted, predict_test
from esc_ensemble.training.crossval import RunOptions, train_run
from tests.conftest import Made
from tests.tiny import tiny_config

FORMATS = (
    (8000, 2, "wav", "PCM_16"),
    (44100, 1, "ogg", "VORBIS"),
    (22050, 1, "flac", "PCM_16"),
    (48000, 2, "wav", "FLOAT"),
)
"""Rate in Hz, channels, ending and encoding of the test clips, over and over."""


def noise(path: Path, number: int) -> None:
    """Writes a clip of its own kind: of another pitch, between 0.05 and 1.2 s long."""
    rate, channels, _, subtype = FORMATS[number % len(FORMATS)]
    seconds = (0.05, 0.4, 1.2)[number % 3]
    time = np.arange(round(seconds * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * 150.0 * (number + 1) * time)
    tone += 0.05 * np.random.default_rng(number).standard_normal(len(time))
    soundfile.write(path, np.stack([tone] * channels, axis=1), rate, subtype=subtype)


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """Seven clips, flat."""
    folder = tmp_path / "audio"
    folder.mkdir()
    for number in range(7):
        noise(folder / f"clip{number}.{FORMATS[number % len(FORMATS)][2]}", number)
    return folder


@pytest.fixture
def mine(made: Made, tmp_path: Path) -> Made:
    """A copy of the runs and their blend, free to be spoiled; both members are heard."""
    root = Path(shutil.copytree(made.root, tmp_path / "made"))
    blend = root / "submissions" / "both"
    weigh(blend, 0.5, 0.5)
    return Made(root, (root / "runs" / "one", root / "runs" / "two"), blend)


def change(blend: Path, how: Any) -> None:
    content = json.loads((blend / "blend.json").read_text())
    how(content)
    (blend / "blend.json").write_text(json.dumps(content))


def weigh(blend: Path, *weights: float) -> None:
    def how(content: dict[str, Any]) -> None:
        for member, weight in zip(content["members"], weights, strict=True):
            member["weight"] = weight

    change(blend, how)


def predict(
    folder: Path, audio: Path, *, tta: bool = False, options: PredictOptions | None = None, **how: Any
) -> Predicted:
    content = read_source(folder, tta=tta, needs_models=False)
    return predict_test(content, folder, [audio], options=options or PredictOptions(device="cpu"), **how)


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.reader(handle))


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, tuple[float, ...]]]:
    """Which model was loaded, and at which shifts it heard the clips."""
    calls: list[tuple[Path, tuple[float, ...]]] = []
    load, listen = load_checkpoint, predict_logits

    def loads(folder: Path) -> Any:
        calls.append((folder, ()))
        return load(folder)

    def listens(model: Any, read: Any, index: Any, shifts: Sequence[float], **how: Any) -> Any:
        calls[-1] = (calls[-1][0], tuple(shifts))
        return listen(model, read, index, shifts, **how)

    monkeypatch.setattr(test_logits, "load_checkpoint", loads)
    monkeypatch.setattr(test_logits, "predict_logits", listens)
    return calls


# --- what comes out


@torch.inference_mode()
def test_a_blend_says_of_new_clips_what_its_exported_module_says(mine: Made, audio: Path) -> None:
    change(
        mine.blend, lambda content: content.update(combiner="arithmetic", temperature=1.3, bias=[0.1] * 5 + [-0.2] * 5)
    )
    done = predict(mine.blend, audio)
    content = read_source(mine.blend)
    parts = load_parts(content, mine.blend)
    cache, catalog = build_cache(load_unlabelled([audio]), parts[0].spec.data)
    waves = torch.from_numpy(cache.batch(np.arange(7))).float() / 32768.0
    expected = FusedBlend(parts, mixing_of(content)).eval()(waves).numpy()
    np.testing.assert_allclose(done.prediction.probabilities, expected, atol=1e-5)
    ids = sorted(path.name for path in audio.iterdir())
    assert done.clip_ids.tolist() == catalog.clip_ids.tolist() == ids

    assert done.submission == mine.blend / "submission.csv"
    other = predict(mine.blend, audio, options=PredictOptions(name="other"))
    assert other.submission == mine.blend / "submission-other.csv" and rows(other.submission) == rows(done.submission)
    names = [content["class_names"][label] for label in expected.argmax(axis=1)]
    assert rows(done.submission) == [["clip_id", "label"], *map(list, zip(ids, names, strict=True))]
    with np.load(mine.blend / "test.npz", allow_pickle=False) as arrays:
        assert arrays["clip_ids"].tolist() == ids
        assert arrays["class_names"].tolist() == content["class_names"]
        assert arrays["members"].tolist() == ["one", "two"]
        np.testing.assert_array_equal(arrays["probabilities"], done.prediction.probabilities)
        assert arrays["member_probabilities"].shape == (2, 7, 10)
        alone = predict(mine.runs[1], audio, tta=True).prediction.probabilities
        # By itself a member is the blend of one; only its temperatures were fitted with the other beside it.
        np.testing.assert_allclose(arrays["member_probabilities"][1], alone, atol=1e-5)


def test_logits_are_kept_by_the_contract_and_disturb_no_run(mine: Made, audio: Path) -> None:
    before = read_run(mine.runs[0])
    predict(mine.blend, audio)
    kept = read_logits(mine.runs[0] / "fold-2" / "test.npz")
    assert kept.test.labels.tolist() == [-1] * 7
    assert kept.selection.logits.shape == (3, 0, 10)
    assert (kept.run, kept.fold, kept.config_hash) == ("one", 2, before.folds[1].config_hash)
    np.testing.assert_allclose(kept.shifts, [-0.1, 0.0, 0.1])
    assert kept.dataset_fingerprint != before.folds[0].dataset_fingerprint
    after = read_run(mine.runs[0])
    assert after.clip_ids.tolist() == before.clip_ids.tolist()
    np.testing.assert_array_equal(after.logits, before.logits)
    assert main(["blend", *map(str, mine.runs), "--trials", "5", "--submissions", str(mine.root / "again")]) == 0


def test_a_run_is_predicted_by_all_its_folds(mine: Made, audio: Path, heard: list[Any]) -> None:
    done = predict(mine.runs[0], audio)
    assert heard == [(mine.runs[0] / f"fold-{fold}", (0.0,)) for fold in (1, 2)]
    assert done.submission == mine.runs[0] / "submission.csv"
    assert (mine.runs[0] / "test.npz").exists()
    assert done.prediction.members == ("one",)
    np.testing.assert_allclose(done.prediction.probabilities.sum(axis=1), 1.0, atol=1e-5)
    assert read_run(mine.runs[0]).fold_numbers == (1, 2)


def test_ids_below_folders_and_files_that_are_named(mine: Made, audio: Path) -> None:
    (audio / "deep" / "er").mkdir(parents=True)
    (audio / "clip1.ogg").rename(audio / "deep" / "er" / "clip1.ogg")
    (audio / "._clip1.ogg").write_bytes(b"left by an archiver")
    assert "deep/er/clip1.ogg" in predict(mine.runs[0], audio).clip_ids
    two = [audio / "clip0.wav", audio / "deep"]
    done = predict_test(read_source(mine.runs[0]), mine.runs[0], two)
    assert done.clip_ids.tolist() == ["clip0.wav", "er/clip1.ogg"]


def test_members_that_hear_at_other_rates_and_lengths(mine: Made, audio: Path, synthetic_dir: Path) -> None:
    """Each hears clips in its own way, in one exported file too."""
    other = {"sample_rate": 16000, "clip_seconds": 0.5, "fit": "pad", "trim_db": 0.0}
    model = {"name": "spec_cnn_reference", "widths": [8]}
    config = tiny_config(data=other, model=model, train={"epochs": 1}, shift_mode="zero", shift_seconds=[-0.05, 0.0])
    run = mine.root / "runs" / "other"
    train_run(run, config, load_catalog(synthetic_dir), RunOptions(folds=(1, 2), n_workers=1))
    how = BlendConfig(method="uniform", combiner="geometric", tta=True, bootstrap=5)
    blend_runs([mine.runs[0], run], how, mine.root / "mix")
    change(mine.root / "mix", lambda content: content.update(temperature=1.0))
    mixed = predict(mine.root / "mix", audio)
    kept = read_logits(run / "fold-1" / "test.npz")
    assert kept.shift_mode == "zero"
    np.testing.assert_allclose(kept.shifts, [-0.05, 0.0])
    for number, folder in enumerate((mine.runs[0], run)):
        alone = predict(folder, audio, tta=True).prediction.probabilities
        np.testing.assert_allclose(mixed.prediction.member_probabilities[number], alone, atol=1e-5)
    both = np.exp(np.log(mixed.prediction.member_probabilities).mean(axis=0))
    expected = both / both.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(mixed.prediction.probabilities, expected, atol=1e-5)
    content = read_source(mine.root / "mix")
    fused = FusedBlend(load_parts(content, mine.root / "mix"), mixing_of(content)).eval()
    with torch.inference_mode():
        found = [fused(torch.from_numpy(decode(audio / name, 16000))[None])[0].numpy() for name in mixed.clip_ids]
    np.testing.assert_allclose(found, expected, atol=2e-3)  # rates are changed inside by another resampler


# --- what is not done twice


def test_a_start_that_failed_goes_on_to_the_same_bytes(
    mine: Made, audio: Path, tmp_path: Path, heard: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = predict(mine.blend, audio)
    expected = [path.read_bytes() for path in (whole.submission, whole.arrays)]
    files = sorted(mine.root.glob("runs/*/fold-*/test.npz"))
    kept = {path: path.read_bytes() for path in files}
    for path in (*files, whole.submission, whole.arrays):
        path.unlink()

    def fails_at_the_second(path: Path, logits: FoldLogits) -> None:
        if path == files[1]:
            raise KeyboardInterrupt
        write_logits(path, logits)

    heard.clear()
    with monkeypatch.context() as patch:
        patch.setattr(test_logits, "write_logits", fails_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            predict(mine.blend, audio)
    assert not whole.submission.exists()
    assert [path.exists() for path in files] == [True, False, False, False]

    heard.clear()
    (files[1].parent / ".test-abc.part.npz").write_bytes(b"left by a process that was killed")
    predict(mine.blend, audio)
    assert [folder for folder, _ in heard] == [path.parent for path in files[1:]]
    assert [path.read_bytes() for path in (whole.submission, whole.arrays)] == expected
    assert {path: path.read_bytes() for path in files} == kept
    assert not (files[1].parent / ".test-abc.part.npz").exists()


def test_another_blend_loads_no_model_and_decodes_nothing(
    mine: Made, audio: Path, tmp_path: Path, heard: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = predict(mine.blend, audio)
    weigh(mine.blend, 0.9, 0.1)
    heard.clear()
    monkeypatch.setattr(test_logits, "build_cache", lambda *_, **__: pytest.fail("decoded"))
    second = predict(mine.blend, audio)
    assert heard == []
    assert not np.allclose(first.prediction.probabilities, second.prediction.probabilities, atol=1e-6)
    # The same audio elsewhere, younger, is the same.
    moved = Path(shutil.copytree(audio, tmp_path / "moved"))
    for path in moved.iterdir():
        os.utime(path, (1e9, 1e9))
    predict(mine.blend, moved)
    assert heard == []


def test_only_shifts_that_are_missing_are_computed(mine: Made, audio: Path, heard: list[Any]) -> None:
    plain = predict(mine.runs[0], audio)
    heard.clear()
    shifted = predict(mine.runs[0], audio, tta=True)
    assert [shifts for _, shifts in heard] == [(-0.1, 0.1)] * 2
    np.testing.assert_allclose(read_logits(mine.runs[0] / "fold-1" / "test.npz").shifts, [-0.1, 0.0, 0.1])
    heard.clear()
    np.testing.assert_array_equal(predict(mine.runs[0], audio).prediction.probabilities, plain.prediction.probabilities)
    assert heard == []
    for path in mine.runs[0].glob("fold-*/test.npz"):
        path.unlink()
    at_once = predict(mine.runs[0], audio, tta=True)
    np.testing.assert_allclose(at_once.prediction.probabilities, shifted.prediction.probabilities, atol=1e-6)


@pytest.mark.parametrize("names", ["wanted", "unwanted"])
def test_a_shift_that_is_not_the_clip_as_it_is(mine: Made, audio: Path, heard: list[Any], names: str) -> None:
    """The file has the plain clip by its contract; the blend may not want it."""

    def late_only(content: dict[str, Any]) -> None:
        for member in content["members"]:
            member.update(shifts=[0.1], shift_weights=[1.0])

    if names == "unwanted":
        change(mine.blend, late_only)
    done = predict(mine.blend, audio)
    kept = read_logits(mine.runs[0] / "fold-1" / "test.npz")
    assert {shifts for _, shifts in heard} == ({(0.0, 0.1)} if names == "unwanted" else {(-0.1, 0.0, 0.1)})
    assert 0.0 in kept.shifts
    if names == "unwanted":
        content = read_source(mine.blend)
        parts = load_parts(content, mine.blend)
        cache, _ = build_cache(load_unlabelled([audio]), parts[0].spec.data)
        waves = torch.from_numpy(cache.batch(np.arange(7))).float() / 32768.0
        with torch.inference_mode():
            expected = FusedBlend(parts, mixing_of(content)).eval()(waves).numpy()
        np.testing.assert_allclose(done.prediction.probabilities, expected, atol=1e-5)


def spoil_bytes(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def spoil_hash(path: Path) -> None:
    write_logits(path, replace(read_logits(path), config_hash="another"))


def spoil_clips(path: Path) -> None:
    kept = read_logits(path)
    part = LogitsPart(kept.test.clip_ids[1:], kept.test.labels[1:], kept.test.logits[:, 1:])
    write_logits(path, replace(kept, test=part))


@pytest.mark.parametrize("spoil", [spoil_bytes, spoil_hash, spoil_clips])
def test_kept_logits_that_do_not_fit_are_computed_anew(
    mine: Made, audio: Path, heard: list[Any], capsys: pytest.CaptureFixture[str], spoil: Any
) -> None:
    first = predict(mine.blend, audio)
    path = mine.runs[1] / "fold-1" / "test.npz"
    before = path.read_bytes()
    spoil(path)
    heard.clear()
    second = predict(mine.blend, audio)
    assert [folder for folder, _ in heard] == [path.parent]
    assert str(path) in capsys.readouterr().err
    assert path.read_bytes() == before
    np.testing.assert_array_equal(first.prediction.probabilities, second.prediction.probabilities)


def same_size(path: Path) -> None:
    """Other sound in as many bytes."""
    content = bytearray(path.read_bytes())
    content[60:400] = bytes(340)
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "how", [lambda path: noise(path, 8), same_size, lambda path: path.rename(path.with_name("new.wav"))]
)
def test_other_audio_is_computed_anew(mine: Made, audio: Path, heard: list[Any], how: Any) -> None:
    predict(mine.blend, audio)
    heard.clear()
    how(audio / "clip0.wav")
    predict(mine.blend, audio)
    assert len(heard) == 4


def test_two_test_sets_keep_apart(mine: Made, audio: Path, heard: list[Any]) -> None:
    predict(mine.runs[0], audio)
    (audio / "clip0.wav").unlink()
    fewer = predict(mine.runs[0], audio, options=PredictOptions(device="cpu", name="final.2"))
    assert fewer.arrays.name == "final.2.npz"
    heard.clear()
    predict(mine.runs[0], audio, options=PredictOptions(device="cpu", name="final.2"))
    assert heard == []


# --- members of other frameworks


@dataclass(frozen=True)
class Foreign:
    """A blend of a run of ours and one that has logits alone."""

    run: Path
    blend: Path


@pytest.fixture
def foreign(mine: Made) -> Foreign:
    run = mine.root / "runs" / "forest"
    for fold in read_run(mine.runs[1]).folds:
        write_logits(run / f"fold-{fold.fold}" / "logits.npz", replace(fold, run="forest", config_hash="200 trees"))
    how = BlendConfig(method="uniform", combiner="geometric", bootstrap=5)
    blend_runs([mine.runs[0], run], how, mine.root / "submissions" / "mix")
    change(mine.root / "submissions" / "mix", lambda content: content.update(temperature=1.0))
    return Foreign(run, mine.root / "submissions" / "mix")


def bring(foreign: Foreign, clip_ids: Sequence[str], seed: int = 0, **over: Any) -> np.ndarray:
    """Writes the file that another framework brings, a file a fold; gives the logits (K, N, C)."""
    out_of_fold = read_run(foreign.run)
    values = np.random.default_rng(seed).normal(size=(2, len(clip_ids), 10)).astype(np.float32)
    for logits, fold in zip(values, out_of_fold.folds, strict=True):
        part = LogitsPart(np.array(clip_ids), np.full(len(clip_ids), -1), logits[None])
        brought = replace(fold, test=part, selection=empty_part(1, 10), shifts=np.zeros(1, dtype=np.float32))
        write_logits(foreign.run / f"fold-{fold.fold}" / "test.npz", replace(brought, **over))
    return values


def test_a_foreign_member_takes_part_by_bringing_its_logits(foreign: Foreign, mine: Made, audio: Path) -> None:
    ids = [path.name for path in audio.iterdir()]
    ids.sort(reverse=True)
    values = bring(foreign, ids)
    done = predict(foreign.blend, audio)
    ours = predict(mine.runs[0], audio).prediction.probabilities
    content = read_source(foreign.blend, needs_models=False)
    temperatures = np.array([*content["members"][1]["temperatures"].values()])[:, None, None]
    scaled = values[:, ::-1] / temperatures  # (K, N, C), back in the order of the clips
    log_probs = scaled - np.log(np.exp(scaled).sum(axis=2, keepdims=True))
    both = np.exp(0.5 * np.log(ours) + 0.5 * log_probs.mean(axis=0))
    np.testing.assert_allclose(done.prediction.probabilities, both / both.sum(axis=1, keepdims=True), atol=1e-5)


def test_a_foreign_member_without_logits_is_refused_before_any_work(
    foreign: Foreign, audio: Path, heard: list[Any]
) -> None:
    with pytest.raises(
        LogitsError, match=r"(?s)fold-1.test\.npz does not exist.*fold-2.test\.npz.*foreign-members\.md"
    ):
        predict(foreign.blend, audio)
    assert heard == []
    with pytest.raises(LogitsError, match=r"forest.fold-1.test\.npz"):
        predict(foreign.run, audio)


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"dataset_fingerprint": "0123456789ab"}, "other clips, of fingerprint 0123456789ab"),
        ({"config_hash": "300 trees"}, "config_hash '300 trees', in the blend the member has '200 trees'"),
        ({"class_names": tuple("abcdefghij")}, "class_names"),
        ({"run": "shares"}, "run 'shares'"),
        ({"shift_mode": "zero"}, "shift_mode 'zero'"),
    ],
)
def test_foreign_logits_that_do_not_fit_are_named(foreign: Foreign, audio: Path, over: Any, said: str) -> None:
    bring(foreign, [path.name for path in audio.iterdir()], **over)
    with pytest.raises(LogitsError, match=said):
        predict(foreign.blend, audio)


def test_foreign_logits_must_be_of_these_clips(foreign: Foreign, audio: Path) -> None:
    bring(foreign, ["clip0.wav", "other.wav"])
    with pytest.raises(
        LogitsError, match=r"lacks 6 of the clips, clip1\.ogg, .* \.\.\.; it has clip0\.wav, other\.wav"
    ):
        predict(foreign.blend, audio)
    skipping = PredictOptions(device="cpu", skip_bad=True)
    done = predict(foreign.blend, audio, options=skipping)
    assert done.clip_ids.tolist() == ["clip0.wav"]
    assert len(done.skipped) == 6


def test_foreign_logits_must_have_the_shifts_of_the_blend(foreign: Foreign, audio: Path) -> None:
    bring(foreign, [path.name for path in audio.iterdir()])
    change(foreign.blend, lambda content: content["members"][1].update(shifts=[0.0, 0.1], shift_weights=[0.5, 0.5]))
    with pytest.raises(LogitsError, match=r"fold-1.test\.npz lacks the shifts 0\.1"):
        predict(foreign.blend, audio)


def test_a_foreign_member_of_weight_0_needs_bring_nothing(foreign: Foreign, mine: Made, audio: Path) -> None:
    weigh(foreign.blend, 1, 0)
    done = predict(foreign.blend, audio)
    assert done.prediction.members == ("one",)
    alone = predict(mine.runs[0], audio).prediction.probabilities
    np.testing.assert_allclose(done.prediction.probabilities, alone, atol=1e-6)


def test_logits_that_were_kept_serve_a_run_whose_models_are_gone(mine: Made, audio: Path) -> None:
    first = predict(mine.blend, audio)
    for path in mine.root.glob("runs/*/fold-*/model.*"):
        path.unlink()
    second = predict(mine.blend, audio)
    np.testing.assert_array_equal(first.prediction.probabilities, second.prediction.probabilities)
    (audio / "clip0.wav").unlink()
    with pytest.raises(LogitsError, match="other clips"):
        predict(mine.blend, audio)


# --- what is refused


def test_bad_clips_are_listed_together_or_left_out(mine: Made, audio: Path, heard: list[Any]) -> None:
    (audio / "empty.wav").write_bytes(b"")
    (audio / "text.ogg").write_text("not a sound")
    (audio / "other.m4a").write_bytes(b"of a kind that cannot be decoded")
    with pytest.raises(DataError, match=r"(?s)3 of the 10 clips.*empty\.wav.*other\.m4a.*text\.ogg.*--skip-bad"):
        predict(mine.blend, audio)
    assert heard == []
    skipping = PredictOptions(device="cpu", skip_bad=True)
    done = predict(mine.blend, audio, options=skipping)
    assert done.skipped == ("empty.wav", "other.m4a", "text.ogg")
    assert len(rows(done.submission)) == 8
    assert len(read_logits(mine.runs[0] / "fold-1" / "test.npz").test.clip_ids) == 7
    heard.clear()
    predict(mine.blend, audio, options=skipping)
    assert heard == []

    sample = audio.parent / "sample.csv"
    sample.write_text("id,label\nclip0,x\nempty,rain\n")
    done = predict(mine.blend, audio, options=skipping, sample=sample)
    assert heard == []
    assert [row[0] for row in rows(done.submission)] == ["id", "clip0", "empty"]
    assert rows(done.submission)[2] == ["empty", "rain"]  # as in the sample


def test_ids_that_are_not_there_are_refused_before_any_work(mine: Made, audio: Path, heard: list[Any]) -> None:
    sample = audio.parent / "sample.csv"
    sample.write_text("id,label\nclip0,x\nclip77,x\n")
    with pytest.raises(DataError, match=r"1 of 2 ids .*\n.*clip77 was not predicted"):
        predict(mine.blend, audio, sample=sample)
    assert heard == []


def test_a_run_that_was_trained_anew_since_is_refused(mine: Made, audio: Path) -> None:
    path = mine.runs[0] / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"config_hash": "another"}))
    with pytest.raises(ModelFileError, match=r"one was trained with other settings after.*Blend again"):
        predict(mine.blend, audio)


def test_a_damaged_model_is_named_before_any_other_is_heard(mine: Made, audio: Path, heard: list[Any]) -> None:
    spoil_bytes(mine.runs[1] / "fold-2" / "model.safetensors")
    with pytest.raises(ModelFileError, match=r"two.fold-2.model\.safetensors is damaged"):
        predict(mine.blend, audio)
    assert heard == []


def test_a_run_that_was_moved_is_named(mine: Made, audio: Path) -> None:
    mine.runs[0].rename(mine.root / "elsewhere")
    with pytest.raises(LogitsError, match=r"runs.one.fold-1 does not exist: the run was moved"):
        predict(mine.blend, audio)


@pytest.mark.parametrize("name", ["logits", "oof", "a/b", "../x", "", ".hidden", "-x"])
def test_names_that_would_hit_other_files_are_refused(mine: Made, audio: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="--name"):
        predict(mine.blend, audio, options=PredictOptions(name=name))


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match="--device"):
        choose_device("cuda")


# --- the command


def command(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    assert main(["predict", *map(str, arguments)]) == code
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_the_command(mine: Made, audio: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--submissions", mine.root / "submissions", "--device", "cpu"]
    out, _ = command(capsys, "both", "--audio", audio, *where, "--labels", "numbers", "--json")
    result = json.loads(out)
    assert (result["n_clips"], result["labels"], result["members"]) == (7, "numbers", ["one", "two"])
    assert sum(result["class_counts"].values()) == 7
    numbers = json.loads((mine.runs[0] / "manifest.json").read_text())["class_numbers"]
    assert {int(row[1]) for row in rows(Path(result["submission"]))[1:]} <= set(numbers)
    files = sorted(audio.iterdir())[:2]
    target = mine.root / "own" / "sub.csv"
    out, _ = command(capsys, mine.blend, "--audio", *files, "--out", target, "--name", "few", "--batch-size", 1, *where)
    assert "2 clips predicted" in out
    assert out.splitlines()[1].split() == ["clips", "by", "class", "blend", "one", "two"]
    out, _ = command(capsys, mine.runs[0], "--audio", *files, "--out", target, "--name", "few", *where)
    assert out.splitlines()[1].split() == ["clips", "by", "class", "one"]  # which is the blend
    assert len(rows(target)) == 3
    assert (mine.root / "own" / "few.npz").exists()


@pytest.mark.parametrize(
    ("folder", "said"), [("empty", "holds no audio"), ("gone", "does not exist"), ("gone.wav", "does not exist")]
)
def test_wrong_audio_is_one_message(mine: Made, capsys: pytest.CaptureFixture[str], folder: str, said: str) -> None:
    (mine.root / "empty").mkdir()
    out, err = command(capsys, mine.blend, "--audio", mine.root / folder, code=2)
    assert out == ""
    assert said in err
    assert folder in err
    assert "Traceback" not in err


def test_a_folder_that_is_neither_blend_nor_run(
    tmp_path: Path, audio: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, err = command(capsys, audio, "--audio", audio, code=2)
    assert "neither a blend" in err


def test_class_numbers_of_older_runs_are_unknown_and_that_is_said(
    mine: Made, audio: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in mine.runs:
        values = json.loads((run / "manifest.json").read_text())
        values.pop("class_numbers")
        (run / "manifest.json").write_text(json.dumps(values))
    sample = audio.parent / "sample.csv"
    sample.write_text("id,target\n" + "".join(f"{path.stem},0\n" for path in audio.iterdir()))
    _, err = command(capsys, mine.blend, "--audio", audio, "--sample-submission", sample)
    assert "class numbers are not known; 0 to 9" in err


@pytest.mark.parametrize(
    ("numbers", "said"), [([1, 2], "10 different whole numbers"), (list(range(10)), "differently")]
)
def test_class_numbers_that_contradict_are_refused(mine: Made, audio: Path, numbers: list[int], said: str) -> None:
    path = mine.runs[1] / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"class_numbers": numbers[::-1]}))
    with pytest.raises(ConfigError, match=said):
        predict(mine.blend, audio)


def test_in_a_process_of_its_own(mine: Made, audio: Path, tmp_path: Path) -> None:
    sample = tmp_path / "sample_submission.csv"
    names = read_source(mine.blend)["class_names"]
    ids = [path.stem for path in sorted(audio.iterdir(), reverse=True)]
    with sample.open("w", newline="") as handle:
        csv.writer(handle).writerows([["fname", *names[::-1]], *([clip_id, *["0.1"] * 10] for clip_id in ids)])
    arguments = ["predict", "both", "--audio", audio, "--sample-submission", sample, "--json"]
    process = [sys.executable, "-m", "esc_ensemble", *map(str, arguments)]
    done = subprocess.run(process, capture_output=True, text=True, check=False, cwd=mine.root)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_clips"] == 7
    found = rows(mine.blend / "submission.csv")
    assert found[0] == ["fname", *names[::-1]]
    assert [row[0] for row in found[1:]] == ids
    with np.load(mine.blend / "test.npz") as arrays:
        by_id = dict(zip([Path(i).stem for i in arrays["clip_ids"]], arrays["probabilities"], strict=True))
    for clip_id, *values in found[1:]:
        np.testing.assert_allclose([float(value) for value in values], by_id[clip_id][::-1], rtol=1e-6)


# --- real clips


@pytest.fixture(scope="module")
def real_run(esc10_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tiny run on a few of ESC-10's clips, whose class numbers have gaps."""
    from esc_ensemble.data.catalog import thin_out  # noqa: PLC0415

    catalog = thin_out(load_catalog(esc10_dir, ReadOptions(esc10=True)), 50)
    run = tmp_path_factory.mktemp("real") / "runs" / "a"
    train_run(run, tiny_config(train={"epochs": 1}), catalog, RunOptions(folds=(1, 2), n_workers=1))
    yield run


def test_real_clips_fit_a_sample_of_the_data_sets_own_numbers(real_run: Path, esc10_dir: Path, tmp_path: Path) -> None:
    catalog = load_catalog(esc10_dir, ReadOptions(esc10=True))
    assert json.loads((real_run / "manifest.json").read_text())["class_numbers"] == [
        0,
        1,
        10,
        11,
        12,
        20,
        21,
        38,
        40,
        41,
    ]
    chosen = [clip for clip in catalog.clips if clip.fold == 1][:6]
    folder = tmp_path / "test"
    folder.mkdir()
    for clip in chosen:
        shutil.copy(clip.path, folder)
    ids = [clip.path.stem for clip in chosen][::-1]
    sample = tmp_path / "sample.csv"
    sample.write_text("filename,target\n" + "".join(f"{clip_id},0\n" for clip_id in ids))
    done = predict(real_run, folder, sample=sample)
    found = rows(done.submission)
    assert found[0] == ["filename", "target"]
    assert [row[0] for row in found[1:]] == ids
    by_id = dict(zip([Path(i).stem for i in done.clip_ids], done.prediction.probabilities.argmax(axis=1), strict=True))
    assert [int(row[1]) for row in found[1:]] == [catalog.class_numbers[by_id[clip_id]] for clip_id in ids]
