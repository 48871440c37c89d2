"""What all commands share: where text goes, how errors look, how rows are read."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import typer

from metaedit_fast.errors import MetaeditError

REFUSED = 1
BAD_INPUT = 2

ReturnT = TypeVar("ReturnT")


def reports_errors(command: Callable[..., ReturnT]) -> Callable[..., ReturnT]:
    """Show errors about the input as one line on stderr and leave with code 2, without a traceback."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> ReturnT:
        try:
            return command(*args, **kwargs)
        except (MetaeditError, ValueError, OSError) as error:
            text = " ".join(str(error).split()) or type(error).__name__
            say(f"error: {text}")
            raise typer.Exit(BAD_INPUT) from None

    return wrapped


def say(text: str) -> None:
    """A line for a person, on stderr."""
    typer.echo(text, err=True)


def give(result: dict[str, Any], text: str, *, as_json: bool) -> None:
    """The outcome of a command on stdout: ``result`` as one JSON object, or ``text``."""
    typer.echo(json.dumps(result, indent=1, allow_nan=False) if as_json else text)


def shows_progress(*, as_json: bool) -> bool:
    """Whether a progress bar has somebody to watch it."""
    return not as_json and sys.stderr.isatty()
