"""A progress bar on stderr, for those who ask for one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Advances a bar by one step; a ``text`` replaces the one in front of it."""

    def __call__(self, text: str | None = None) -> None: ...


@contextmanager
def progress_bar(label: str, total: int | None, *, shown: bool, done: int = 0) -> Iterator[Advance]:
    """Give a function that advances the bar; without ``shown`` it does nothing.

    ``done`` of the ``total`` steps are there already; None for a total that nobody knows.
    """
    if not shown:
        yield lambda text=None: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    # stdout is for results, which may go to a file or a pipe.
    with Progress(TextColumn("{task.description}"), *columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, completed=done)
        yield lambda text=None: bar.update(task, advance=1, description=text)
