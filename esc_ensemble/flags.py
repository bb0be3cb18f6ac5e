"""Kinds of command-line flags: what they accept, and how they are refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import cyclopts
from cyclopts import Group, Parameter, validators

SETTINGS = Group("Settings (defaults are in configs/)")
Json = Annotated[bool, Parameter(name="--json", negative="")]
Flag = Annotated[bool, Parameter(negative="")]
Count = Annotated[int, Parameter(validator=validators.Number(gte=1))]
CountOrAll = Annotated[int, Parameter(validator=validators.Number(gte=0))]


def _check_name(kind: Any, value: str) -> None:  # noqa: ARG001 - cyclopts' shape
    if value.strip() in ("", ".", ".."):
        raise ValueError(f'"{value}" is not a name for a folder.')


Name = Annotated[str, Parameter(validator=_check_name)]


def _numbers(kind: Any, tokens: Sequence[cyclopts.Token]) -> tuple[int, ...]:  # noqa: ARG001 - cyclopts' shape
    parts = [part.strip() for token in tokens for part in token.value.split(",")]
    if not all(part.isdigit() for part in parts):
        raise ValueError("write fold numbers with commas between, such as 1,2")
    return tuple(int(part) for part in parts)


Folds = Annotated[tuple[int, ...], Parameter(converter=_numbers, n_tokens=1)]
