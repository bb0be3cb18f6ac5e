"""Answers to requests that get no prediction."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import JSONResponse

GONE = 499
"""What is counted where a client left before its answer; nobody gets to see it."""
LIKELY_SECONDS = 1
"""After which a service that was full is worth another try."""


class RefusalError(Exception):
    """A request that is answered with an error; its text is for the client."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})


def too_busy(message: str) -> RefusalError:
    """Gives the answer of a service that is full."""
    return RefusalError(HTTPStatus.SERVICE_UNAVAILABLE, message, {"retry-after": str(LIKELY_SECONDS)})


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Gives the one form that all errors have."""
    return JSONResponse({"error": message}, status, dict(headers or {}))
