"""A line of the result."""

from __future__ import annotations

import dataclasses
from typing import Any

from metaedit_fast.bench.timing import Timed

TASKS = ("forward", "training", "evaluation", "refinement", "edit")


@dataclasses.dataclass(frozen=True)
class Row:
    """What was measured of one engine in one case of one task; None where a column has no meaning.

    ``error`` is the norm-wise relative error against float64, ``peak_mb`` what the process grew by at its highest
    over the imported package, ``extra`` further columns.
    """

    task: str
    case: str
    engine: str
    form: str | None = None
    precision: str | None = None
    threads: int | None = None
    ms_per_model: float | None = None
    ratio_to_pyg: float | None = None
    fraction_of_bound: float | None = None
    error: float | None = None
    peak_mb: float | None = None
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """One flat object: the fields, then what is in ``extra``."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "extra"}
        return {**found, **self.extra}

    def timed(self, timed: Timed, n_models: int, **extra: Any) -> Row:
        """With the time of a call for ``n_models`` models, the throughput and the spread."""
        more = {
            "models_per_second": n_models / timed.median,
            "spread": timed.spread,
            "repetitions": len(timed.seconds),
            **extra,
        }
        return dataclasses.replace(self, ms_per_model=1e3 * timed.median / n_models, extra={**self.extra, **more})

    def with_bound(self, seconds: float | None, timed: Timed) -> Row:
        """With the share of ``seconds``, the least that the call can take, in the time that it took."""
        return dataclasses.replace(self, fraction_of_bound=None if seconds is None else seconds / timed.median)

    def without_figure(self, note: str) -> Row:
        """No figure, and why."""
        return dataclasses.replace(self, extra={**self.extra, "note": note})
