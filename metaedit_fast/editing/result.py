"""What an edit gives back: one record per model, a table to read, a folder to keep."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaedit_fast.population.record import PopulationRecord
from metaedit_fast.records import Records, aligned
from metaedit_fast.versions import versions

if TYPE_CHECKING:
    from metaedit_fast.population.store import Population

STATUSES = ("edited", "unchanged", "refused")
_NO_FIGURE = "-"


@dataclasses.dataclass(frozen=True)
class EditRecord:
    """One model of an edit.

    ``model`` is the edited model, a new object of the given type (of a path: ``ModelProto`` or ``SafetensorsModel``);
    the given object itself where the status is ``"refused"``, and for ``edit_``. ``status`` is ``"edited"``,
    ``"unchanged"`` (nothing was asked for; a copy, bit for bit) or ``"refused"``, then with ``reason``.

    ``metrics`` is ``{"before": {...}, "after": {...}}`` with ``sparsity`` (fraction of the weights that
    are zero) and, where rows were given, ``jsd`` (to the given model, in nats) and ``accuracy``; it is
    empty for a refused model. ``ms`` is the time in milliseconds that a thread worked on this model: reading,
    editing, refining and writing, metrics not counted; threads beside it make it longer, and of refinement, which
    takes many models together, it is the share of the parameters that are left. A call with several threads takes
    less than the sum.
    ``error`` is the exception behind a refusal.
    """

    index: int
    name: str
    model: Any
    status: str
    reason: str | None = None
    notes: tuple[str, ...] = ()
    metrics: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    ms: float = 0.0
    kind: str | None = None
    n_weights: int | None = None
    error: Exception | None = dataclasses.field(default=None, repr=False)
    origin: PopulationRecord | None = dataclasses.field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """All but the model, as JSON takes it."""
        origin = {}
        if self.origin is not None:
            origin = {name: getattr(self.origin, name) for name in ("run", "checkpoint", "split")}
        return {
            "index": self.index,
            "name": self.name,
            **origin,
            "kind": self.kind,
            "status": self.status,
            "reason": self.reason,
            "notes": list(self.notes),
            "n_weights": self.n_weights,
            "metrics": {
                when: {name: _number(value) for name, value in figures.items()}
                for when, figures in self.metrics.items()
            },
            "ms": round(self.ms, 3),
        }


class EditResult(Records[EditRecord]):
    """The records of one edit, in the order of the given models.

    ``settings`` tells what was asked for: target or strength as ``budget``, ``refine``, ``seed``, and on
    which rows the probe and the metrics stand. ``editor`` describes the editor.
    """

    format = "metaedit_fast.result"

    def __init__(
        self,
        records: Sequence[EditRecord],
        *,
        settings: dict[str, Any],
        editor: dict[str, Any],
        source: Population | None = None,
    ) -> None:
        super().__init__(records)
        self._source = source
        self.settings = settings
        self.editor = editor

    @functools.cached_property
    def versions(self) -> dict[str, str]:
        """The software that made it; read when first asked for, which takes longer than a small edit."""
        return versions()

    @property
    def is_population(self) -> bool:
        """Whether a population was given."""
        return self._source is not None

    @property
    def population(self) -> Population:
        """The edited population, refused models left as they were.

        What was measured of a model before the edit (``val_accuracy``, ``val_loss``) is no longer known:
        NaN, unless its θ did not change. Raises ``ValueError`` where no population was given.
        """
        from metaedit_fast.population.store import Population

        if self._source is None:
            raise ValueError("population: this result came from a list of models; use .models")
        info = {**self._source.info, **self.population_info}
        return Population(map(population_record, self._records), dataset=self._source.dataset, info=info)

    @property
    def population_info(self) -> dict[str, Any]:
        """What an edited population says about the edit."""
        return {"edit": {"settings": self.settings, "editor": self.editor}}

    @property
    def status_counts(self) -> dict[str, int]:
        """How many models were edited, left unchanged and refused."""
        counts = Counter(record.status for record in self._records)
        return {status: counts[status] for status in STATUSES}

    def to_dict(self) -> dict[str, Any]:
        """Everything but the models, as JSON takes it."""
        return {
            "status_counts": self.status_counts,
            "settings": self.settings,
            "editor": self.editor,
            "versions": self.versions,
            "records": [record.to_dict() for record in self._records],
        }

    def report(self, *, max_rows: int = 40) -> str:
        """A table as text: a line per model up to ``max_rows``, means over all, the rows measured on, refusals."""
        head = ["model", "status", "weights", "sparsity", "JSD x 1000", "accuracy", "ms"]
        rows = [_line(record) for record in self._records[:max_rows]]
        lines = aligned([head, *rows])
        if len(self) > max_rows:
            lines.append(f"... and {len(self) - max_rows} more")
        counts = ", ".join(f"{count} {status}" for status, count in self.status_counts.items())
        lines += ["", f"{len(self)} models: {counts}", *self._means(), *self._where_measured()]
        refused = [record for record in self._records if record.status == "refused"]
        lines += [f"refused: {record.name}: {record.reason}" for record in refused[:max_rows]]
        return "\n".join(lines)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the edited models and ``result.json`` into ``folder``, all or nothing; see ``saving.save_result``."""
        from metaedit_fast.editing.saving import save_result

        return save_result(self, Path(folder), overwrite=overwrite)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in self.status_counts.items() if count)
        return f"EditResult({counts or 'no models'})"

    def _means(self) -> list[str]:
        shown = []
        for name, scale in (("sparsity", 1.0), ("jsd", 1000.0), ("accuracy", 1.0)):
            pairs = [
                (record.metrics["before"][name], record.metrics["after"][name])
                for record in self._records
                if name in record.metrics.get("after", {})
            ]
            if pairs:
                before, after = (scale * sum(values) / len(pairs) for values in zip(*pairs, strict=True))
                figures = f"{after:.4g}" if name == "jsd" else f"{before:.4f} -> {after:.4f}"
                shown.append(f"mean {'JSD x 1000' if name == 'jsd' else name}: {figures}")
        return shown

    def _where_measured(self) -> list[str]:
        """On which rows the figures stand, and what of the edit saw them too; nothing without such figures."""
        measured = [name for name in ("jsd", "accuracy") if any(name in r.metrics.get("after", {}) for r in self)]
        if not measured:
            return []
        settings = self.settings
        figures = " and ".join("JSD" if name == "jsd" else name for name in measured)
        own = settings["probe_from"] == "editor"
        rows = f"{'the editor' + chr(39) + 's own ' if own else ''}{settings['metric_rows']} rows"
        seers = ["the editor"] if self.editor["config"]["probe"] else []
        seers += ["refinement"] if settings["refine"] else []
        if settings["budget"] == 0 or not seers:
            return [f"{figures} on {rows}"]
        if settings["metric_rows_held_out"]:
            return [f"{figures} on {rows} that {' and '.join(seers)} did not see"]
        part = "" if settings["probe_rows"] == settings["metric_rows"] else f"{settings['probe_rows']} of "
        return [f"{figures} on {rows}, {part}which {' and '.join(seers)} also saw"]


def population_record(record: EditRecord) -> PopulationRecord:
    """The record of the edited model in a population."""
    assert record.origin is not None
    if record.status != "edited":
        return dataclasses.replace(record.origin, mlp=record.model)
    return dataclasses.replace(record.origin, mlp=record.model, val_accuracy=math.nan, val_loss=math.nan)


def _line(record: EditRecord) -> list[str]:
    before, after = record.metrics.get("before", {}), record.metrics.get("after", {})

    def pair(name: str) -> str:
        return f"{before[name]:.3f} -> {after[name]:.3f}" if name in after else _NO_FIGURE

    return [
        record.name,
        record.status,
        _NO_FIGURE if record.n_weights is None else str(record.n_weights),
        pair("sparsity"),
        f"{1000 * after['jsd']:.4g}" if "jsd" in after else _NO_FIGURE,
        pair("accuracy"),
        f"{record.ms:.1f}",
    ]


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None  # JSON has no NaN
