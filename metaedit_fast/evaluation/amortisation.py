"""What an editor costs before its first edit, and how many models it takes to save that again."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaedit_fast.evaluation.record import Record, is_ours
from metaedit_fast.evaluation.tables import MISSING, TextTable


@dataclasses.dataclass(frozen=True)
class PopulationCost:
    """Processor seconds of a population of ``runs`` training runs, extrapolated from ``timed_runs`` of them; ``se`` is
    the standard error of that.
    """

    runs: int
    epochs: int
    seconds: float
    se: float
    timed_runs: int
    timed_epochs: int


@dataclasses.dataclass(frozen=True)
class Costs:
    """Of the populations that editors were trained on, by dataset; ``processor`` and ``command`` tell how timed."""

    populations: Mapping[str, PopulationCost]
    processor: str
    command: str

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"


def read_costs(path: str | Path) -> Costs:
    """Inverse of ``Costs.to_json``. Raises ``ValueError`` that names the file where it is anything else."""
    try:
        raw: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        populations = {name: PopulationCost(**found) for name, found in raw.pop("populations").items()}
        return Costs(populations=populations, **raw)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected the costs of populations ({error!r})") from error


@dataclasses.dataclass(frozen=True)
class Alternative:
    """A method that does the same with no editor. ``as_good``: whether its mean hypervolume is at least as large."""

    method: str
    ms_per_model: float
    hypervolume: float
    as_good: bool


def mean_ms(record: Record, method: str) -> float:
    """The mean time per model over the budgets of ``method``, as the tables show it."""
    curve = record.curves[method]
    return sum(point.ms_per_model for point in curve) / len(curve)


def alternative(record: Record, ours: str, among: Sequence[str]) -> Alternative:
    """The quickest method of ``among`` whose mean hypervolume reaches that of ``ours``; where none does, the best."""
    wanted = record.hypervolume[ours].mean
    found = [
        Alternative(name, mean_ms(record, name), record.hypervolume[name].mean, record.hypervolume[name].mean >= wanted)
        for name in among
    ]
    good = [one for one in found if one.as_good]
    return min(good, key=lambda one: one.ms_per_model) if good else max(found, key=lambda one: one.hypervolume)


def models_to_pay(seconds: float, ms: float, other_ms: float) -> float:
    """From how many models on ``seconds`` are saved by edits of ``ms`` in the place of ``other_ms``; inf for never."""
    return math.ceil(1e3 * seconds / (other_ms - ms)) if other_ms > ms else math.inf


def account(records: Sequence[Record], costs: Costs) -> TextTable:
    """For each record our editor alone and our best method, against refinement and optimisation of every model alone.

    An editor's training counts the seconds that it took times its threads, all its population's cost.
    Raises ``ValueError`` for a record without an editor's training or of a dataset without a population's cost.
    """
    rows = []
    for record in records:
        metrics = record.details.get("editor", {}).get("metrics", {})
        if record.dataset not in costs.populations or not {"seconds", "threads"} <= metrics.keys():
            raise ValueError(f"{record.experiment}: expected an editor's training and its population's cost")
        training = float(metrics["seconds"] * metrics["threads"])
        before = training + costs.populations[record.dataset].seconds
        others = [method for method in record.curves if not is_ours(method)]
        ours = [method for method in record.curves if is_ours(method)]
        best = max(ours, key=lambda method: record.hypervolume[method].mean)
        kinds = (
            [method for method in others if "refine" in method],
            [method for method in others if "adam" in method or "retrain" in method],
        )
        for method in dict.fromkeys(("editor", best)):
            ms = mean_ms(record, method)
            for found in (alternative(record, method, kind) for kind in kinds if kind):
                rows.append(
                    (
                        f"{record.dataset}, {record.requirement.replace('_', ' ')}: {method}",
                        f"{record.hypervolume[method].mean:.3f}",
                        f"{ms:.1f}",
                        f"{found.method}{'' if found.as_good else ' (falls short)'}",
                        f"{found.hypervolume:.3f}",
                        f"{found.ms_per_model:.1f}",
                        _count(models_to_pay(training, ms, found.ms_per_model)),
                        _count(models_to_pay(before, ms, found.ms_per_model)),
                    )
                )
    header = (
        "method", "hypervolume", "ms a model", "instead", "hypervolume", "ms a model", "models: training",
        "with population",
    )  # fmt: skip
    return TextTable(header, tuple(rows))


def _count(models: float) -> str:
    """Two digits are what the timings give."""
    return MISSING if math.isinf(models) else f"{float(f'{models:.2g}'):,.0f}"
