from __future__ import annotations

import io
import json
import re
import shutil
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from markupsafe import escape
from PIL import Image

from esc_ensemble.__main__ import main
from esc_ensemble.augment.waveform import augment_waveform
from esc_ensemble.config import AugmentConfig, TrainAConfig
from esc_ensemble.data.catalog import load_for_inspection
from esc_ensemble.data.rows import ReadOptions
from esc_ensemble.report import dataset_figures
from esc_ensemble.report.augmented import augmented, front_end, probabilities
from esc_ensemble.report.clips import waveform_picture
from esc_ensemble.report.dataset import write_dataset_report
from esc_ensemble.settings import build
from tests.browser import chromium
from tests.report.test_browser import Visit

RATE = 8000
SETTINGS: dict[str, Any] = {
    "data": {"sample_rate": RATE, "clip_seconds": 0.5},
    "frontend": {"n_fft": 256, "window": 256, "hop": 80, "n_mels": 16, "f_max": 4000.0},
}
HOSTILE = "<img src=x onerror='window.broken=1'> \"&\" é"
N_AUGMENTATIONS = 17  # with the clip as it is


def noise(path: Path, seconds: float = 0.5, *, n_channels: int = 1, level: float = 0.1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(abs(hash(str(path))) % 2**32)
    soundfile.write(path, level * rng.standard_normal((round(seconds * RATE), n_channels)), RATE)
    return path


@dataclass(frozen=True)
class Page:
    path: Path
    text: str
    media: dict[str, Any]
    result: dict[str, Any]


def report(data: Path, folder: Path, *flags: str, capsys: pytest.CaptureFixture[str]) -> Page:
    (folder / "a.yaml").write_text(json.dumps({**SETTINGS, "train": {"epochs": 3}}))  # JSON is YAML
    path = folder / "page.html"
    command = ["data", "report", str(data), "--out", str(path), "--config", str(folder / "a.yaml"), "--json", *flags]
    assert main(command) == 0
    return read_page(path, json.loads(capsys.readouterr().out))


def read_page(path: Path, result: dict[str, Any]) -> Page:
    text = path.read_text(encoding="utf-8")
    payload = re.search(r'<script type="application/json" id="payload">(.*?)</script>', text)
    assert payload
    return Page(path, text, json.loads(payload[1])["media"], result)


@pytest.fixture(scope="module")
def untidy(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Two classes, one with a hostile name, of stereo, silent, long and loud clips, and one shorter than a frame."""
    data = tmp_path_factory.mktemp("untidy")
    kinds: list[dict[str, Any]] = [
        *({}, {"n_channels": 2}, {"level": 0.0}, {"seconds": 0.003}, {"seconds": 1.5}, {"level": 3.0})
    ]
    for name in ("dog", HOSTILE):
        for number, how in enumerate(kinds):
            noise(data / "set" / name / f"<b>{number}</b>.wav", **how)
    config = build(TrainAConfig, SETTINGS, "")
    written = write_dataset_report(
        data / "set", ReadOptions(), config, out=data / "page.html", clips_per_class=9, n_augmented=1
    )
    return read_page(written.path, written.to_json())


def test_all_sections_of_an_untidy_set(untidy: Page) -> None:
    page = untidy
    assert page.result["n_clips"] == 12 and page.result["missing"] == []
    assert len(page.media) == 12 + N_AUGMENTATIONS
    assert HOSTILE not in page.text and str(escape(HOSTILE)) in page.text
    assert "mono (10), stereo (2)" in page.text
    assert "2 clips of digital silence" in page.text
    titles = {len(key): [picture["title"][:8] for picture in page.media[key]["pictures"]] for key in page.media}
    assert titles[1] == ["waveform", "log-mel", "PCEN"] and titles[len("0-mixup")] == ["log-mel"]
    with_sound = [key for key, content in page.media.items() if content["audio"] and not key.isdigit()]
    assert not {"SpecAugment", "band_gain", "mixup", "cutmix"} & {key.partition("-")[2] for key in with_sound}
    assert {"unchanged", "roll", "noise", "between_class", "energy_mixup"} <= {
        key.partition("-")[2] for key in with_sound
    }


def test_what_training_refuses_is_shown_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(6):
        noise(tmp_path / "one" / "siren" / f"{number}.wav")
        noise(tmp_path / "plain" / f"{number}.wav")
    page = report(tmp_path / "one", tmp_path, "--augmented-clips", "0", capsys=capsys)
    assert "Training would refuse this data set" in page.text and "at least 2 are needed" in page.text
    assert "No clip was asked for" in page.text
    page = report(tmp_path / "plain", tmp_path, "--augmented-clips", "0", capsys=capsys)
    assert "Training would refuse this data set" in page.text and "no label" in page.text
    catalog, refusal = load_for_inspection(tmp_path / "plain")
    assert catalog.labels.tolist() == [-1] * 6 and refusal


def test_bad_clips_and_copies_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "set"
    for label in "ab":
        for number in range(6):
            noise(data / label / f"{label}{number}.wav")
    shutil.copy(data / "a" / "a0.wav", data / "b" / "copy.wav")
    (data / "b" / "broken.wav").write_bytes(b"nothing")
    page = report(data, tmp_path, "--augmented-clips", "0", capsys=capsys)
    assert "1 clip cannot be decoded" in page.text and "broken.wav" in page.result["missing"][0]
    assert "1 group of equal clips in several folds or classes" in page.text
    assert "Not looked for: some clips cannot be decoded" in page.text
    assert "No two folds hold nearly" in report(data, tmp_path, "--skip-bad", capsys=capsys).text


def test_wrong_input_exits_with_2(untidy: Page, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.yaml").write_text("frontend: {n_mel: 3}\n")
    out = ["--out", str(tmp_path / "page.html")]
    assert main(["data", "report", str(tmp_path / "nowhere"), *out]) == 2
    assert main(["data", "report", str(untidy.path.parent / "set"), *out, "--config", str(tmp_path / "bad.yaml")]) == 2
    assert "n_mels" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.wav").write_bytes(b"nothing")
    assert main(["data", "report", str(tmp_path / "empty"), *out]) == 2
    assert "None of the 1 clips" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_each_augmentation_is_trainings_own() -> None:
    config = build(TrainAConfig, SETTINGS, "")
    frontend = front_end(config)
    rng = np.random.default_rng(0)
    waveform, partner = (0.1 * rng.standard_normal((2, RATE // 2))).astype(np.float32)
    items = {item["name"]: item for item in augmented(waveform, partner, ("dog", "rain"), config, frontend, seed=3)}
    assert len(items) == N_AUGMENTATIONS
    assert items["gain"]["note"] == "probability 0.5, gain_db 6"
    assert items["noise"]["note"] == "off in training, noise_snr_db 15 to 40, noise_colour 0 to 2"
    assert "time_mask_max 40" in items["SpecAugment"]["note"]
    assert re.search(r"label: dog 0\.\d\d, rain 0\.\d\d$", items["mixup"]["note"])
    assert items["energy_mixup"]["note"].endswith("label: dog 1.00, rain 1.00")
    off = dict.fromkeys(probabilities(config.augment), 0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        rolled = augment_waveform(
            torch.from_numpy(waveform).repeat(4, 1), AugmentConfig(**{**off, "roll": 1.0}), RATE
        ).numpy()
    decoded, _ = soundfile.read(io.BytesIO(b64decode(items["roll"]["media"]["audio"].split(",")[1])), dtype="float32")
    assert max(np.corrcoef(decoded, each)[0, 1] for each in rolled) > 0.7  # an MP3 of noise
    assert not [
        item for item in augmented(waveform, None, ("dog", ""), config, frontend, seed=3) if item["name"] == "mixup"
    ]


def test_a_waveform_is_drawn_on_the_spectrograms_time() -> None:
    waveform = np.zeros(RATE, dtype=np.float32)
    waveform[RATE // 4 : RATE // 2] = 0.5
    picture = waveform_picture(waveform, (0.0, 2.0), RATE)
    image = np.asarray(Image.open(io.BytesIO(b64decode(picture["uri"].split(",")[1]))).convert("L"))
    drawn = np.flatnonzero(image[0] > 50)  # at the upper edge: the clip's own peak
    assert picture["title"] == "waveform, ±0.5"
    assert drawn[0] / image.shape[1] * 2.0 == pytest.approx(0.25, abs=0.005)
    assert drawn[-1] / image.shape[1] * 2.0 == pytest.approx(0.5, abs=0.005)
    assert not (image[:, 420:] > 50).any()  # past the end


@pytest.mark.parametrize("n_classes", [1, 50, 500])
def test_figures_read_with_few_and_with_very_many_classes(n_classes: int) -> None:
    rng = np.random.default_rng(0)
    names, counts = [f"class {n}" for n in range(n_classes)], rng.integers(0, 9, (n_classes, 3))
    drawn = dataset_figures.class_counts(names, ["fold 1", "fold 2", "<b>"], counts)
    assert 100 < drawn.layout.height < 2500 and len(drawn.data) == 3 and drawn.data[2].name == "&lt;b&gt;"
    groups = [rng.standard_normal(max(1, n % 7)) for n in range(n_classes)]
    groups[0][:] = -np.inf
    spread = dataset_figures.spread(names, groups, "loudness", "dB")
    n_drawn = min(n_classes - 1, dataset_figures.MOST_NAMED)
    assert spread.layout.height < 2500 and len(spread.data[0].y if spread.data else ()) == n_drawn


@pytest.fixture
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


def test_the_page_in_a_browser_on_a_phone(browser: Any, untidy: Page) -> None:
    opened = Visit(browser, untidy.path, width=400)
    page = opened.page
    opened.show_all()
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    assert page.evaluate("window.broken") is None
    screens = page.locator("#clips .screen")
    assert screens.count() == 12 and screens.first.locator("img").count() == 3
    assert page.locator("#augmentations .player").count() == N_AUGMENTATIONS
    page.locator("#clips .play").first.click()
    page.wait_for_function("() => parseFloat(document.querySelector('#clips .playhead').style.left) > 20")
    screens.nth(1).press("ArrowRight")
    assert float(screens.nth(1).get_attribute("aria-valuenow") or "nan") == pytest.approx(0.1)
    page.locator("#filter").fill("DOG")
    assert page.locator("#clips article:visible").count() == 6
    page.get_by_role("button", name="bandwidth", exact=True).click()
    page.wait_for_selector('.chart[data-chart="bandwidth"] .main-svg')
    assert [url for url in opened.requests if not url.startswith(("data:", "blob:"))] == [untidy.path.as_uri()]
    assert opened.complaints == []
    opened.context.close()
