"""A model that is made in a moment, and the service around it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from esc_ensemble.infer import Classifier
from esc_ensemble.serve.app import create_app
from esc_ensemble.serve.limits import Limits
from tests.serve.models import write_model

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # whose clients these tests send too

Opener = Callable[..., httpx.AsyncClient]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny.onnx")


@pytest.fixture(scope="session")
def classifier(model: Path) -> Classifier:
    return Classifier(model, threads=1)


@pytest.fixture
def open_client(classifier: Classifier) -> Iterator[Opener]:
    """Opens a client of an application in this process, by default around the tiny model."""
    services = []

    def opened(limits: Limits | None = None, own: Classifier | None = None, name: str = "tiny") -> httpx.AsyncClient:
        app = create_app(own or classifier, limits, name)
        services.append(app.state.service)
        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service", timeout=20)

    yield opened
    for service in services:
        service.stop()
