"""The interface, asked inside this process."""

from __future__ import annotations

import asyncio
import io
import json
import re
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from esc_ensemble.serve.limits import Limits
from tests.serve.conftest import Opener
from tests.serve.models import CLASSES, SAMPLE_RATE, Stub, expected


def audio(seconds: float = 1.0, level: float = 0.1, rate: int = SAMPLE_RATE, kind: str = "WAV") -> bytes:
    buffer = io.BytesIO()
    samples = level * np.sign(np.sin(np.arange(round(seconds * rate)) / 3 + 0.1))
    soundfile.write(buffer, samples, rate, format=kind, subtype="FLOAT" if kind == "WAV" else None)
    return buffer.getvalue()


def ask(client: httpx.AsyncClient, *requests: tuple[Any, ...], **options: Any) -> list[httpx.Response]:
    """Sends requests (method, path, and a body if any), one after the other."""

    async def send() -> list[httpx.Response]:
        async with client:
            return [
                await client.request(method, path, content=b"".join(body), **options)
                for method, path, *body in requests
            ]

    return asyncio.run(send())


def post(client: httpx.AsyncClient, body: bytes, query: str = "", **options: Any) -> httpx.Response:
    return ask(client, ("POST", f"/predict{query}", body), **options)[0]


def test_an_answer_names_classes_and_their_probabilities(open_client: Opener) -> None:
    found = post(open_client(), audio(level=0.25)).json()
    assert set(found) == {"model", "seconds", "top", "probabilities"}
    assert (found["model"], found["seconds"]) == ("tiny", 1.0)
    np.testing.assert_allclose(list(found["probabilities"].values()), expected(0.25), atol=2e-6)
    assert tuple(found["probabilities"]) == CLASSES
    assert [each["class"] for each in found["top"]] == ["loud", "sea_waves", "clock_tick", "dog", "<b>& rain</b>"]


@pytest.mark.parametrize("kind", ["FLAC", "OGG", "MP3", "AIFF", "WAV"])
@pytest.mark.parametrize("content_type", ["audio/x-whatever", "application/x-www-form-urlencoded", None])
def test_the_bytes_tell_the_format_and_nothing_else(open_client: Opener, kind: str, content_type: str | None) -> None:
    headers = {"content-type": content_type} if content_type else {}
    found = post(open_client(), audio(2.0, 0.4, 16000, kind), headers=headers)
    assert found.status_code == 200, found.text
    assert found.json()["top"][0]["class"] == "loud"


def test_queries_say_what_is_named(open_client: Opener) -> None:
    client = open_client()
    body = audio(level=0.15)
    one, none, many = ask(
        client,
        ("POST", "/predict?top=1", body),
        ("POST", "/predict?threshold=1", body),
        ("POST", "/predict?top=99999999999999999999&threshold=0.01", body),
    )
    assert len(one.json()["top"]) == 1
    assert none.json()["top"] == [] and len(none.json()["probabilities"]) == len(CLASSES)
    probabilities = [each["probability"] for each in many.json()["top"]]
    assert probabilities == sorted(probabilities, reverse=True) and min(probabilities) >= 0.01


def test_windows_tell_when_it_was_loud(open_client: Opener) -> None:
    body = io.BytesIO()
    soundfile.write(body, np.repeat([0.0, 0.5, 0.0], SAMPLE_RATE), SAMPLE_RATE, format="FLAC")
    found = post(open_client(), body.getvalue(), "?windows=true&overlap=0&top=1").json()
    assert [(each["start"], each["end"]) for each in found["windows"]] == [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)]
    assert [each["top"][0]["class"] for each in found["windows"]] == ["quiet", "loud", "quiet"]
    mean = np.mean([expected(0), expected(0.5), expected(0)], axis=0)
    np.testing.assert_allclose(list(found["probabilities"].values()), mean, atol=1e-4)
    assert len(post(open_client(), body.getvalue(), "?windows=1").json()["windows"]) == 5
    assert len(post(open_client(), audio(0.3), "?windows=1").json()["windows"]) == 1


@pytest.mark.parametrize("query", ["", "?windows=1"])
def test_channels_that_cancel_are_noted(open_client: Opener, query: str) -> None:
    body = io.BytesIO()
    wave = 0.5 * np.sin(np.arange(SAMPLE_RATE) / 3)
    soundfile.write(body, np.stack([wave, -wave], axis=1), SAMPLE_RATE, format="WAV")
    assert "channels cancel" in post(open_client(), body.getvalue(), query).json()["notes"][0]
    assert "notes" not in post(open_client(), audio(), query).json()


def nan() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(800, np.nan), SAMPLE_RATE, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("body", "query", "status", "text"),
    [
        (b"", "", 400, "The body is empty"),
        (b"hello, this is a text", "", 415, "does not begin as WAV"),
        (b"ID3\x04\0\0\0\0\0\x05hello" + b"SDS" * 9, "", 415, "does not begin as WAV"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "", 415, "does not begin as WAV"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "", 422, "truncated"),
        (audio()[:-1000], "", 422, "truncated: its header promises 32000 bytes of samples, 31000 are there"),
        (audio(kind="FLAC")[:-100], "", 422, "The upload is"),
        (audio(kind="OGG")[:-100], "", 422, "last page is not whole"),
        (b"fLaC" + bytes(99), "", 422, "ends before its samples begin"),
        (nan(), "", 422, "NaN or infinite"),
        (audio(level=400.0), "", 422, r"reaches 400; .*\[-1, 1\]"),
        (audio(0.0), "", 422, "no samples"),
        (audio(5.01), "", 413, "longer than 5 s"),
        (bytes(300_001), "", 413, r"larger than 0\.3 MB"),
        (audio(5), "?windows=1&overlap=0.9", 413, "makes 41 windows with an overlap of 0.9; at most 20"),
        (audio(), "?top=0", 422, r"top: .*greater than or equal to 1 \(found '0'\)"),
        (audio(), "?top=many", 422, "top: .*valid integer"),
        (audio(), "?threshold=1.5", 422, "threshold: .*less than or equal to 1"),
        (audio(), "?threshold=nan", 422, "threshold: "),
        (audio(), "?overlap=1", 422, "overlap: .*less than 1"),
        (audio(), "?windows=perhaps", 422, "windows: .*boolean"),
        (audio(), "?thresold=1", 422, 'unknown query "thresold". Did you mean "threshold"'),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else None,  # audio files hold the time
)
def test_what_is_wrong_is_said(open_client: Opener, body: bytes, query: str, status: int, text: str) -> None:
    client = open_client(Limits(max_bytes=300_000, max_seconds=5.0, max_windows=20))
    found = post(client, body, query)
    assert found.status_code == status, found.text
    assert set(found.json()) == {"error"}
    assert re.search(text, found.json()["error"]), found.text
    assert "BytesIO" not in found.text and "Traceback" not in found.text


def test_forms_and_compressed_bodies_are_refused(open_client: Opener) -> None:
    form = post(open_client(), b"--x", headers={"content-type": "multipart/form-data; boundary=x"})
    assert form.status_code == 415 and "--data-binary" in form.json()["error"]
    assert post(open_client(), audio(), headers={"content-encoding": "gzip"}).status_code == 415


def test_paths_and_methods(open_client: Opener) -> None:
    found = ask(
        open_client(),
        *[("GET", "/nothing"), ("GET", "/predict"), ("DELETE", "/health"), ("GET", "/predict/"), ("GET", "/docs")],
        *[("HEAD", "/health"), ("HEAD", "/"), ("HEAD", "/metrics"), ("HEAD", "/model"), ("HEAD", "/nothing")],
    )
    assert [each.status_code for each in found] == [404, 405, 405, 404, 404, 200, 200, 200, 200, 404]
    assert all(set(each.json()) == {"error"} for each in found[:5])
    assert found[1].headers["allow"] == "POST"
    for each in found:
        assert each.headers["x-content-type-options"] == "nosniff"


def test_health_and_model_tell_what_is_served(open_client: Opener) -> None:
    health, model, schema = ask(open_client(), ("GET", "/health"), ("GET", "/model"), ("GET", "/openapi.json"))
    assert health.json() == {"status": "ok", "model": "tiny", "classes": 6, "version": health.json()["version"]}
    about = model.json()
    assert about["classes"] == list(CLASSES)
    assert about["members"] == [{"run": "a", "folds": [1, 2], "weight": 1.0}]
    assert about["scores"] == [{"name": "chosen", "title": "Chosen", "cross_fitted": True, "top1": 0.9}]
    assert "secret" not in model.text, "where runs stood is nobody's business"
    assert about["limits"] == {"megabytes": 20.0, "seconds": 600.0, "windows": 500}
    operation = schema.json()["paths"]["/predict"]["post"]
    assert {each["name"] for each in operation["parameters"]} == {"top", "threshold", "windows", "overlap"}
    assert "application/octet-stream" in operation["requestBody"]["content"]


def test_metrics_are_counted(open_client: Opener) -> None:
    body = audio(2.0)
    requests = [("POST", "/predict", body), ("POST", "/predict", b"x"), ("BREW", "/coffee"), ("GET", "/metrics")]
    text = ask(open_client(), *requests)[-1].text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert values['esc_ens_requests_total{method="POST",path="/predict",status="200"}'] == "1"
    assert values['esc_ens_requests_total{method="POST",path="/predict",status="415"}'] == "1"
    assert values['esc_ens_requests_total{method="other",path="other",status="404"}'] == "1"
    assert values["esc_ens_received_bytes_total"] == str(len(body) + 1)
    assert values["esc_ens_heard_seconds_total"] == "2"
    assert values["esc_ens_requests_in_flight"] == "1"
    assert values['esc_ens_prediction_seconds_bucket{le="+Inf"}'] == values["esc_ens_prediction_seconds_count"] == "1"
    counts = [int(value) for name, value in values.items() if "_bucket" in name]
    assert counts == sorted(counts)
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) \w+ .+|\w+(\{(\w+=\"[^\"\\]*\",?)+\})? [0-9.e+-]+", line), line


def test_a_fault_is_one_line_here_and_nothing_there(open_client: Opener, capsys: pytest.CaptureFixture[str]) -> None:
    class Broken(Stub):
        def listen(self, waveforms: np.ndarray) -> np.ndarray:
            raise RuntimeError("the secret\nreason")

    found = post(open_client(own=Broken()), audio())
    assert (found.status_code, found.json()) == (500, {"error": "This failed, and it is our fault."})
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert re.fullmatch(
        r"esc-ens serve: POST /predict failed: RuntimeError: the secret reason \(\w+\.py:\d+\)", lines[0]
    )


def at_once(client: httpx.AsyncClient, paths: list[str], begun: Callable[[], None]) -> list[httpx.Response]:
    async def send() -> list[httpx.Response]:
        async with client:
            tasks = [asyncio.create_task(client.post(path, content=audio())) for path in paths]
            while not all(task.done() for task in tasks):
                begun()
                await asyncio.sleep(0.02)
            return [task.result() for task in tasks]

    return asyncio.run(send())


def test_no_more_are_heard_at_once_than_allowed_and_none_is_lost(open_client: Opener) -> None:
    stub = Stub(seconds=0.02)
    found = at_once(open_client(Limits(max_concurrent=3, queue=40), stub), ["/predict"] * 40, lambda: None)
    assert {each.status_code for each in found} == {200}
    assert (stub.most, stub.n_heard) == (3, 40)


def test_who_finds_the_queue_full_comes_back_later(open_client: Opener) -> None:
    gate = threading.Event()
    stub = Stub(gate=gate)
    rounds = iter(range(1000))
    found = at_once(
        open_client(Limits(max_concurrent=2, queue=3), stub),
        ["/predict"] * 9,
        lambda: gate.set() if next(rounds) > 5 else None,
    )
    assert sorted(each.status_code for each in found) == [200] * 5 + [503] * 4
    refused = next(each for each in found if each.status_code == 503)
    assert refused.headers["retry-after"] == "1"
    assert refused.json() == {"error": "3 requests are waiting already. Try again."}


def test_long_recordings_leave_a_turn_to_others(open_client: Opener) -> None:
    gate = threading.Event()

    class Slow(Stub):
        """Hears windows when it is let to, and all else at once."""

        def listen(self, waveforms: np.ndarray) -> np.ndarray:
            if waveforms.shape[1] == SAMPLE_RATE:
                gate.wait(20)
            return super().listen(waveforms)

    async def send() -> int:
        async with open_client(Limits(max_concurrent=2), Slow()) as client:
            long = [asyncio.create_task(client.post("/predict?windows=1", content=audio(3.0))) for _ in range(4)]
            await asyncio.sleep(0.1)
            short = await asyncio.wait_for(client.post("/predict", content=audio(0.5)), 10)
            gate.set()
            assert {each.status_code for each in await asyncio.gather(*long)} == {200}
            return short.status_code

    assert asyncio.run(send()) == 200


def test_the_loop_goes_on_while_models_work(open_client: Opener) -> None:
    async def send() -> list[int]:
        async with open_client(Limits(max_concurrent=1), Stub(seconds=0.5)) as client:
            task = asyncio.create_task(client.post("/predict", content=audio()))
            await asyncio.sleep(0.1)
            health = await asyncio.wait_for(client.get("/health"), 0.3)
            return [health.status_code, (await task).status_code]

    assert asyncio.run(send()) == [200, 200]


def test_a_body_is_refused_as_soon_as_it_is_too_large(open_client: Opener) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1000
            yield bytes(1000)

    async def send() -> httpx.Response:
        async with open_client(Limits(max_bytes=50_000)) as client:
            return await client.post("/predict", content=endless())

    found = asyncio.run(send())
    assert found.status_code == 413
    assert found.headers["connection"] == "close"
    assert sent <= 50_000 * 6, "a little is read on, so that the client gets to see the answer"


def test_the_page_holds_its_own_policy(open_client: Opener) -> None:
    found = ask(open_client(name="</script><b>&'\""), ("GET", "/"))[0]
    policy = dict(part.strip().split(" ", 1) for part in found.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert "unsafe" not in found.headers["content-security-policy"]
    assert "<b>" not in found.text
    data = re.search(r'<script type="application/json" id="about">(.*?)</script>', found.text, re.DOTALL)
    assert data and json.loads(data[1])["model"] == "</script><b>&'\""
    assert not re.findall(r'(?:src|href)="(?!data:)[^"]*//', found.text), "nothing comes from elsewhere"
