"""The HTTP interface: which path does what, and the one form of all errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse

from esc_ensemble import __version__
from esc_ensemble.errors import did_you_mean
from esc_ensemble.infer.classifier import Classifier
from esc_ensemble.serve.guard import PREDICT, Guard
from esc_ensemble.serve.hearing import Question
from esc_ensemble.serve.limits import Limits
from esc_ensemble.serve.metrics import CONTENT_TYPE
from esc_ensemble.serve.page import make_page
from esc_ensemble.serve.refusals import RefusalError, error_response
from esc_ensemble.serve.service import Service

PATHS = (PREDICT, "/model", "/health", "/metrics", "/openapi.json", "/")
AUDIO = {
    "description": "An audio file's bytes: WAV, FLAC, Ogg, Opus, MP3, AIFF. Its content type does not matter.",
    "required": True,
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The body is empty."},
    408: {"description": "The body did not come in time."},
    413: {"description": "The upload or the recording is larger than the limits."},
    415: {"description": "The body is no audio that can be decoded."},
    422: {"description": "The audio is broken, or a query value cannot be."},
    503: {"description": "Too many requests are waiting; Retry-After says when to come again."},
}


def create_app(
    classifier: Classifier, limits: Limits | None = None, name: str = "model", top: int = Question.top
) -> FastAPI:
    """Makes the service around a classifier; its `state.service` is a `Service`.

    Args:
        classifier: the model.
        limits: what is taken on at most; the defaults where not given.
        name: what the model is called in answers.
        top: classes to name where a request does not say.
    """
    limits = limits or Limits()
    service = Service(classifier, name, limits)
    page = make_page(service.about())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:  # noqa: ARG001 - the shape of a lifespan
        yield
        service.stop()

    # The pages of documentation would fetch their scripts from elsewhere; /openapi.json is there.
    app = FastAPI(
        title="esc-ens serve",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.service = service
    app.state.top = top
    app.add_middleware(Guard, metrics=service.metrics, paths=PATHS, max_bytes=limits.max_bytes)
    app.add_exception_handler(RefusalError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_query)
    app.add_exception_handler(HTTPException, _refuse_path)

    @app.post(PREDICT, openapi_extra={"requestBody": AUDIO}, responses=ERRORS)
    async def predict(request: Request, question: Annotated[Question, Depends(_ask)]) -> Response:
        """Names the sounds in a recording."""
        return Response(await service.predict(request, question), media_type="application/json")

    @app.get("/model")
    @app.head("/model", include_in_schema=False)
    async def model() -> JSONResponse:
        """Tells what the model is, and the limits."""
        return JSONResponse(service.about())

    @app.get("/health")
    @app.head("/health", include_in_schema=False)
    async def health() -> JSONResponse:
        """Tells that the service answers."""
        n_classes = len(classifier.class_names)
        return JSONResponse({"status": "ok", "model": name, "classes": n_classes, "version": __version__})

    @app.get("/metrics")
    @app.head("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        """Gives counts in Prometheus' text format."""
        return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE})

    @app.get("/", include_in_schema=False)
    @app.head("/", include_in_schema=False)
    async def show() -> HTMLResponse:
        return HTMLResponse(page.html, headers=page.headers)

    return app


async def _ask(
    request: Request,
    top: Annotated[int | None, Query(ge=1, description="classes to name")] = None,
    threshold: Annotated[float, Query(ge=0, le=1, description="name no class that is less probable")] = 0.0,
    windows: Annotated[bool, Query(description="hear all of a long recording, stretch by stretch")] = False,
    overlap: Annotated[float, Query(ge=0, lt=1, description="part of a window that the next one hears too")] = 0.5,
) -> Question:
    known = ("top", "threshold", "windows", "overlap")
    for key in request.query_params:
        if key not in known:
            raise RefusalError(HTTPStatus.UNPROCESSABLE_ENTITY, f'unknown query "{key}".{did_you_mean(key, known)}')
    return Question(top or request.app.state.top, threshold, windows, overlap)


async def _refuse(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001 - the shape of a handler
    assert isinstance(error, RefusalError)
    return error_response(error.status, str(error), error.headers)


async def _refuse_query(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001
    assert isinstance(error, RequestValidationError)
    problems = [f"{each['loc'][-1]}: {each['msg']} (found {each.get('input')!r})" for each in error.errors()]
    return error_response(HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(problems))


async def _refuse_path(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message = str(error.detail)
    if error.status_code == HTTPStatus.NOT_FOUND:
        message = f"There is nothing here. There are {', '.join(PATHS)}."
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and request.url.path == PREDICT:
        message = f"POST audio to {PREDICT} (curl --data-binary @FILE)."
    return error_response(error.status_code, message, error.headers)
