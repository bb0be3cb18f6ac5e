"""The page as a visitor meets it, in a Chromium that is there already."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clients
import numpy as np
import pytest
import soundfile

from tests.browser import chromium
from tests.serve.models import CLASSES

RATE = 44100
DROP = """([name, text]) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const carried = new DataTransfer();
    carried.items.add(new File([bytes], name));
    for (const kind of ["dragenter", "dragover", "drop"]) {
        document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: carried, bubbles: true, cancelable: true }));
    }
}"""
BRIGHTEST = """() => {
    const canvas = document.querySelector("#spectrogram"), { width, height } = canvas;
    const data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
    const sums = Array.from({ length: height }, (_, row) => {
        let sum = 0;
        for (let n = 0; n < 4 * width; n++) sum += n % 4 < 3 ? data[4 * width * row + n] : 0;
        return sum;
    });
    return { colours: new Set(sums).size, width, height: 1 - (sums.indexOf(Math.max(...sums)) + 0.5) / height };
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    fake = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")  # a microphone that beeps
    with chromium("--disable-gpu", *fake) as started:
        yield started


@pytest.fixture(scope="module")
def service(model: Path) -> Iterator[clients.Running]:
    with clients.running(model, ["--max-megabytes", "1"]) as running:
        yield running


class Visit:
    """The page in a window of its own, with all that it complained of or asked for."""

    def __init__(self, browser: Any, url: str, width: int = 1400, scheme: str = "light") -> None:
        self.url = url
        self.context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type != "log" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url))
        self.page.goto(url)

    def _note(self, url: str) -> None:
        if not url.startswith(("data:", "blob:")):  # which never leave the browser
            self.requests.append(url)

    def drop(self, content: bytes, name: str = "clip.wav") -> None:
        self.page.evaluate(DROP, [name, base64.b64encode(content).decode("ascii")])

    def answer(self, content: bytes, name: str = "clip.wav") -> None:
        """Drops a clip and waits for its answer and its picture."""
        self.drop(content, name)
        self.page.wait_for_selector(".guess")
        self.wait("document.querySelector('#spectrogram').width > 1")

    def wait(self, expression: str, seconds: float = 10.0) -> None:
        """Waits until an expression holds; playwright's own way is forbidden by the page's policy."""
        end = time.monotonic() + seconds
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, expression
            self.page.wait_for_timeout(20)

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).inner_text())

    def left(self) -> float:
        """Where the playhead stands, in percent."""
        return float(self.page.locator("#playhead").evaluate("head => parseFloat(head.style.left)"))


@pytest.fixture
def visit(browser: Any, service: clients.Running) -> Iterator[Visit]:
    opened = Visit(browser, service.url)
    yield opened
    opened.context.close()


def tone(seconds: float = 2.0, hz: float = 2000.0, level: float = 0.6) -> bytes:
    buffer = io.BytesIO()
    times = np.arange(round(seconds * RATE)) / RATE
    fades = np.clip(np.minimum(times, seconds - times) / 0.2, 0.0, 1.0)  # a tone cut off has all frequencies
    samples = level * (1 - np.cos(np.pi * fades)) / 2 * np.sin(2 * np.pi * hz * times)
    soundfile.write(buffer, samples, RATE, format="FLAC")
    return buffer.getvalue()


def test_a_dropped_clip_is_seen_and_named(visit: Visit) -> None:
    visit.answer(tone(1.2, level=0.9), "beep.flac")
    picture = visit.page.evaluate(BRIGHTEST)
    assert picture["width"] > 100 and picture["colours"] > 10
    assert picture["height"] == pytest.approx(visit.page.evaluate("Sound.heightOf(2000, 4000)"), abs=0.02)
    labels = visit.page.locator(".hz").all_inner_texts()
    assert "1k" in labels and "4k" not in labels, "a tone of 2 kHz needs no picture up to 22 kHz"
    assert visit.text("#verdict").startswith("loud")
    assert visit.text("#title") == "beep.flac"
    rows = visit.page.locator(".guess").all_inner_texts()
    assert len(rows) == 5 and rows[0].split("\n")[0] == "loud" and rows[0].endswith("%")
    assert "sea waves" in rows[1]
    assert visit.requests == [f"{visit.url}/", f"{visit.url}/predict?top=5"]
    assert visit.complaints == []


def test_the_playhead_follows_the_sound(visit: Visit) -> None:
    visit.answer(tone(2.0))
    assert visit.left() == 0
    play = visit.page.get_by_role("button", name="Play")
    play.click()
    visit.wait("parseFloat(document.querySelector('#playhead').style.left) > 10")
    assert visit.page.locator("#play").get_attribute("aria-pressed") == "true"
    visit.page.get_by_role("button", name="Pause").click()
    visit.page.wait_for_timeout(100)
    rests = visit.left()
    visit.page.wait_for_timeout(150)
    assert visit.left() == rests > 10
    assert visit.complaints == []


def test_clicks_drags_and_keys_move_the_playhead(visit: Visit) -> None:
    visit.answer(tone(2.0))
    screen = visit.page.locator("#screen")
    box = screen.bounding_box()
    assert box
    y = box["y"] + 30
    visit.page.mouse.click(box["x"] + 0.5 * box["width"], y)
    assert visit.left() == pytest.approx(50, abs=0.5)
    visit.page.mouse.move(box["x"] + 0.9 * box["width"], y)
    visit.page.mouse.down()
    visit.page.mouse.move(box["x"] + 0.25 * box["width"], y)
    visit.page.mouse.up()
    assert visit.left() == pytest.approx(25, abs=0.5)
    screen.press("ArrowRight")
    assert visit.left() == pytest.approx(30, abs=0.5)
    assert screen.get_attribute("aria-valuetext") == "0.6 s of 2.0 s"
    screen.press("End")
    assert visit.left() == 100
    screen.press("Home")
    screen.press("Space")
    visit.wait("parseFloat(document.querySelector('#playhead').style.left) > 5")


def test_long_recordings_are_heard_stretch_by_stretch(visit: Visit) -> None:
    buffer = io.BytesIO()
    samples = np.repeat([0.0, 0.5, 0.0, 0.0, 0.0, 0.5], 8000) * np.sign(np.sin(np.arange(48000)))
    soundfile.write(buffer, samples, 8000, format="WAV", subtype="PCM_16")
    visit.answer(buffer.getvalue())
    assert "windows" in visit.requests[-1]
    assert visit.text("#verdict").startswith("quiet") and "11 windows" in visit.text("#facts")
    assert visit.page.locator(".lane").all_inner_texts() == ["quiet", "loud"]
    box = visit.page.locator("#screen").bounding_box()
    assert box
    said = []
    for share in (0.08, 0.25, 0.95):
        visit.page.mouse.click(box["x"] + share * box["width"], box["y"] + 30)
        said.append(visit.text("#heard-now").split()[1])
    assert said == ["quiet", "loud", "loud"]
    assert visit.complaints == []


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "The file is empty."),
        (b"this is no audio", "does not begin as WAV"),
        (bytes(1_100_000), "The file has 1.1 MB; up to 1 MB are taken."),
    ],
)
def test_what_is_wrong_is_said(visit: Visit, content: bytes, text: str) -> None:
    visit.drop(content)
    visit.page.wait_for_selector("#error:not([hidden])")
    assert text in visit.text("#error")
    assert visit.page.locator("#result").is_hidden()
    visit.answer(tone(0.5))
    assert visit.page.locator("#error").is_hidden(), "the next clip starts afresh"


def test_a_service_that_is_gone_is_told(visit: Visit) -> None:
    visit.page.route("**/predict*", lambda route: route.abort())
    visit.drop(tone(0.5))
    visit.page.wait_for_selector("#error:not([hidden])")
    assert "The service does not answer" in visit.text("#error")
    assert visit.page.locator("#result").is_visible(), "what the browser decoded can still be seen and heard"


def test_a_recording_of_the_microphone_is_heard(visit: Visit) -> None:
    record = visit.page.locator("#record")
    record.click()
    visit.wait("document.querySelector('#record').textContent.includes('0.8')")
    assert record.get_attribute("aria-pressed") == "true"
    record.click()
    visit.page.wait_for_selector(".guess")
    assert visit.text("#title") == "recording.wav"
    assert visit.complaints == []


def test_what_only_the_browser_decodes_is_sent_as_wav(visit: Visit) -> None:
    webm = visit.page.evaluate(
        """async () => {
            const context = new AudioContext(), source = context.createOscillator();
            const end = context.createMediaStreamDestination(), recorder = new MediaRecorder(end.stream), parts = [];
            recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
            const done = new Promise((resolve) => recorder.addEventListener("stop", resolve));
            source.connect(end);
            source.start();
            recorder.start();
            setTimeout(() => recorder.stop(), 500);
            await done;
            const bytes = new Uint8Array(await new Blob(parts).arrayBuffer());
            return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
        }"""
    )
    content = base64.b64decode(webm)
    assert content.startswith(b"\x1aE\xdf\xa3")
    visit.answer(content, "memo.webm")
    assert visit.text("#verdict").startswith("loud")
    assert [url.partition("?")[0] for url in visit.requests[-2:]] == [f"{visit.url}/predict"] * 2


def test_the_spectrum_is_numpys(visit: Visit) -> None:
    frame = np.random.default_rng(0).normal(size=256)
    found = visit.page.evaluate("frame => [...Sound.makePowers(256)(frame)]", frame.tolist())
    np.testing.assert_allclose(found, np.abs(np.fft.rfft(frame)) ** 2, rtol=1e-9)


def test_the_wav_file_is_the_sound(visit: Visit) -> None:
    samples = np.random.default_rng(0).uniform(-1.1, 1.1, 1000)
    content = visit.page.evaluate(
        "async samples => [...new Uint8Array(await Sound.toWav(Float32Array.from(samples)).arrayBuffer())]",
        samples.tolist(),
    )
    found, rate = soundfile.read(io.BytesIO(bytes(content)))
    assert rate == RATE
    np.testing.assert_allclose(found, np.clip(samples, -1, 1), atol=1e-4)


def test_names_with_markup_run_nothing(visit: Visit) -> None:
    visit.answer(tone(0.3, level=0.0), "<img src=x onerror='window.broken=1'>.flac")
    assert visit.text("#title").startswith("<img")
    assert "<b>& rain</b>" in visit.page.locator("#classes li").all_inner_texts()
    assert len(visit.page.locator("#classes li").all()) == len(CLASSES)
    assert visit.page.evaluate("window.broken") is None
    assert visit.page.locator("main img, main b").count() == 0
    assert visit.complaints == []


@pytest.mark.parametrize("width", [320, 400, 760, 1400])
def test_nothing_hangs_over_the_edge(browser: Any, service: clients.Running, width: int) -> None:
    opened = Visit(browser, service.url, width=width)
    assert opened.page.evaluate("document.documentElement.scrollWidth") == width
    opened.answer(tone(6.0), f"{'a-long-name-' * 9}.flac")
    assert opened.page.evaluate("document.documentElement.scrollWidth") == width
    too_wide = "all => all.filter((one) => one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.id)"
    assert opened.page.eval_on_selector_all("section, article, p, h2, .screen, .guess, .button", too_wide) == []
    opened.context.close()


def test_the_theme_is_the_machines_until_it_is_switched(browser: Any, service: clients.Running) -> None:
    opened = Visit(browser, service.url, scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert opened.page.evaluate(ground) == "rgb(18, 20, 24)"
    opened.page.locator("#theme").click()
    assert opened.page.evaluate(ground) == "rgb(245, 245, 243)"
    opened.page.reload()
    assert opened.page.evaluate(ground) == "rgb(245, 245, 243)"
    opened.context.close()
