"""The trainer's progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from metaedit_fast.training.trainer import Trainer

_SMOOTHING = 0.98


@contextmanager
def training_progress(trainer: Trainer, *, enabled: bool) -> Iterator[Callable[[Trainer, float], None] | None]:
    """A report for ``Trainer.run`` that draws steps, smoothed loss and the best validation on stderr."""
    if not enabled:
        yield None
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(TextColumn("{task.description}"), *columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("training", total=trainer.settings.steps, completed=trainer.step)
        smoothed: float | None = None

        def report(run: Trainer, loss: float) -> None:
            nonlocal smoothed
            smoothed = loss if smoothed is None else _SMOOTHING * smoothed + (1 - _SMOOTHING) * loss
            best = "" if run.best is None else f", best validation {run.best.score:.3f} at step {run.best.step}"
            progress.update(task, completed=run.step, description=f"log JSD {smoothed:.3f}{best}")

        yield report
