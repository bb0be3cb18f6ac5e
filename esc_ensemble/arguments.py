"""Command lines without cyclopts, for the commands that run where little is installed."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from esc_ensemble.errors import ConfigError, did_you_mean


class Parser(argparse.ArgumentParser):
    """Flags of one command of `esc-ens`; what is wrong with them is raised, with the nearest right one."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(prog=f"esc-ens {command}", description=description, allow_abbrev=False)
        self.command = command

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Reads flags.

        Raises:
            ConfigError: a flag is unknown, lacks its value, or has one that cannot be.
        """
        flags, rest = self.parse_known_intermixed_args(args, namespace)
        if rest:
            known = [flag for action in self._actions for flag in action.option_strings]
            unknown = rest[0].partition("=")[0]
            self.error(f'unknown flag "{unknown}".{did_you_mean(unknown, known)}' if unknown[:1] == "-" else rest[0])
        return flags

    def error(self, message: str) -> NoReturn:
        """Raises what argparse has to say."""
        raise ConfigError(f"{message} (esc-ens {self.command} --help lists what there is)")


def at_least(least: int) -> Callable[[str], int]:
    """Gives a kind of flag: a whole number of at least so much."""

    def count(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number (found {text!r})") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least} (found {value})")
        return value

    return count


def share(text: str) -> float:
    """A kind of flag: a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1 (found {text})")
    return value
