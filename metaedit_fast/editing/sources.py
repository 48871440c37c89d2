"""What ``edit`` is given, one by one: each model with its name, its size and a way to open it."""

from __future__ import annotations

import dataclasses
import itertools
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from metaedit_fast.models.convert import open_model
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.opened import Opened
from metaedit_fast.population.record import PopulationRecord
from metaedit_fast.population.store import Population

# Tracing a torch module replaces methods of torch.nn.Module while it lasts, in all threads.
_TRACING = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Source:
    """One model of a call. ``name`` is how reports and files call it; ``record`` is set for one of a population."""

    index: int
    name: str
    model: Any
    record: PopulationRecord | None = None

    def open(self) -> Opened[Any]:
        """Read the model. Raises what the adapters raise."""
        if is_torch(self.model):
            with _TRACING:
                return open_model(self.model)
        return open_model(self.model)

    @property
    def size(self) -> int:
        """About how large the model is, from what can be asked without reading it; 0 where unknown."""
        model = self.model
        try:
            if isinstance(model, MLP):
                return model.spec.n_parameters
            if isinstance(model, str | os.PathLike):
                path = Path(model)
                files = path.iterdir() if path.is_dir() else [path]
                return sum(file.stat().st_size for file in files) // 4
            if hasattr(model, "ByteSize"):
                return int(model.ByteSize()) // 4
            if is_torch(model) or is_exported(model):
                return sum(parameter.numel() for parameter in model.parameters())
            return sum(weights.size for weights in getattr(model, "coefs_", ()))
        except (OSError, TypeError, ValueError, AttributeError):  # such a model is refused when it is opened
            return 0


def sources_of(models: Any) -> Iterator[Source]:
    """The models as sources, in order, each read when it is asked for; a single model is one source.

    Lists, tuples, other sequences and iterators are many; a torch module is one, also where it is iterable.
    Raises ``ValueError`` for a dictionary, a set or None, and when it comes to a population inside a list.
    """
    if models is None or isinstance(models, dict | set | frozenset | bytes):
        raise ValueError(f"models: expected one model or a list of them, got {type(models).__name__}")
    return itertools.starmap(_source, enumerate(models if _is_many(models) else [models]))


def _source(index: int, model: Any) -> Source:
    if isinstance(model, PopulationRecord):
        return Source(index, _run_name(model), model.mlp, model)
    if isinstance(model, Population):
        raise ValueError(f"models[{index}]: a population is given alone, not inside a list")
    return Source(index, _name(index, model), model)


def require_writable(sources: Iterable[Source]) -> None:
    """Raise ``ValueError`` unless all can be edited in place.

    Paths and populations cannot; nor can models that share a parameter: they would be edited twice.
    """
    owners: dict[int, int] = {}
    for source in sources:
        where = f"models[{source.index}]"
        if source.record is not None:
            raise ValueError("models: a population cannot be edited in place; use edit(...).population")
        if isinstance(source.model, str | os.PathLike):
            raise ValueError(
                f"{where}: the file {str(source.model)!r} cannot be edited in place; use edit(...).save(folder)"
            )
        for memory in _memories(source.model):
            owner = owners.setdefault(memory, source.index)
            if owner != source.index:
                raise ValueError(f"models[{owner}] and {where} share parameters: they cannot both be edited in place")


def _memories(model: Any) -> list[int]:
    """Numbers that two models have in common where they share memory."""
    if isinstance(model, MLP):
        return [model.theta.__array_interface__["data"][0]]
    if is_torch(model) or is_exported(model):
        return [id(parameter) for parameter in model.parameters()]
    return [id(model)]


def is_torch(model: object) -> bool:
    """Whether ``model`` is a torch module; imports nothing."""
    return any(base.__module__.startswith("torch.nn") for base in type(model).__mro__)


def is_exported(model: object) -> bool:
    """Whether ``model`` is a program of ``torch.export``; imports nothing."""
    return any(base.__module__.startswith("torch.export") for base in type(model).__mro__)


def _is_many(models: object) -> bool:
    if isinstance(models, str | os.PathLike | MLP) or is_torch(models):
        return False
    return isinstance(models, (Sequence, Iterator))


def _name(index: int, model: object) -> str:
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        return path.resolve().name if path.is_dir() else path.stem
    return f"model-{index:05d}"


def _run_name(record: PopulationRecord) -> str:
    return f"run-{record.run:05d}-{record.checkpoint}"
