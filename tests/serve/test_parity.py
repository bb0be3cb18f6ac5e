"""The service gives what `esc-ens infer` gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from esc_ensemble.infer import Classifier
from esc_ensemble.infer.output import to_json
from tests.serve.conftest import Opener
from tests.serve.test_app import post


@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("sound", [(8000, 1, 0.7), (44100, 2, 3.3), (11025, 1, 9.1)])
def test_answers_are_those_of_infer(
    classifier: Classifier, open_client: Opener, tmp_path: Path, sound: tuple[int, int, float], windows: bool
) -> None:
    rate, channels, seconds = sound
    times = np.linspace(0, 3 * np.pi, round(seconds * rate))[:, np.newaxis]
    samples = np.random.default_rng(0).uniform(-1, 1, (len(times), channels)) * np.abs(np.sin(times))
    path = tmp_path / "a.flac"
    soundfile.write(path, samples, rate)
    (prediction,) = classifier.predict([path], windows=windows)
    expected = to_json(prediction, 3)
    found = post(open_client(), path.read_bytes(), f"?top=3&windows={windows}").json()
    assert [each["class"] for each in found["top"]] == [each["class"] for each in expected["top"]]
    assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)
    assert found["seconds"] == pytest.approx(seconds, abs=1e-3)
    spans = [[(each["start"], each["end"]) for each in one.get("windows", ())] for one in (found, expected)]
    assert spans[0] == spans[1]
    assert bool(spans[0]) == windows
