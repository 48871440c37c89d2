"""``compact``: the same predictions from fewer neurons."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaedit_fast.editing.sources import Source, sources_of
from metaedit_fast.models.compaction.plan import plan_of
from metaedit_fast.models.compaction.rebuild import rebuilt
from metaedit_fast.population.record import PopulationRecord
from metaedit_fast.population.store import Population
from metaedit_fast.records import Records, aligned

if TYPE_CHECKING:
    import os

STATUSES = ("compacted", "unchanged", "refused")


@dataclasses.dataclass(frozen=True)
class CompactRecord:
    """One model of a compaction.

    ``model`` is the smaller model, a new object of the given type (of a path: ``ModelProto`` or ``SafetensorsModel``);
    a copy where the status is ``"unchanged"``, and the given object itself where it is ``"refused"``, then with
    ``reason``.
    ``parameters`` counts what the model owns, before and after; ``widths`` are inputs, hidden neurons of each
    layer and outputs, before and after. ``kept_inputs`` are the indices of the inputs that the model takes, in
    their order. Figures are empty for a refused model.
    """

    index: int
    name: str
    model: Any
    status: str
    reason: str | None = None
    notes: tuple[str, ...] = ()
    kind: str | None = None
    parameters: tuple[int, ...] = ()
    widths: tuple[tuple[int, ...], ...] = ()
    neurons_removed: int = 0
    inputs_removed: int = 0
    kept_inputs: tuple[int, ...] = ()
    origin: PopulationRecord | None = dataclasses.field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """All but the model, as JSON takes it."""
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("model", "origin")}
        return {name: _listed(value) for name, value in found.items()}


class CompactResult(Records[CompactRecord]):
    """The records of one compaction, in the order of the given models."""

    format = "metaedit_fast.compaction"

    def __init__(
        self, records: list[CompactRecord], *, settings: dict[str, Any], source: Population | None = None
    ) -> None:
        super().__init__(records)
        self._source = source
        self.settings = settings

    @property
    def is_population(self) -> bool:
        """Whether a population was given."""
        return self._source is not None

    @property
    def population(self) -> Population:
        """The compacted population, refused models as they were. Raises ``ValueError`` where none was given."""
        if self._source is None:
            raise ValueError("population: this result came from a list of models; use .models")
        found = [dataclasses.replace(r.origin, mlp=r.model) for r in self if r.origin is not None]
        info = {**self._source.info, "compaction": self.settings}
        return Population(found, dataset=self._source.dataset, info=info)

    @property
    def status_counts(self) -> dict[str, int]:
        """How many models were compacted, had nothing to remove, and were refused."""
        counts = Counter(record.status for record in self)
        return {status: counts[status] for status in STATUSES}

    def to_dict(self) -> dict[str, Any]:
        """Everything but the models, as JSON takes it."""
        records = [record.to_dict() for record in self]
        return {"status_counts": self.status_counts, "settings": self.settings, "records": records}

    def report(self, *, max_rows: int = 40) -> str:
        """A table as text: a line per model up to ``max_rows``, the sums, refusals."""
        head = ["model", "status", "widths", "parameters", "neurons removed", "inputs removed"]
        lines = aligned([head, *(_line(record) for record in self._records[:max_rows])])
        if len(self) > max_rows:
            lines.append(f"... and {len(self) - max_rows} more")
        counts = ", ".join(f"{count} {status}" for status, count in self.status_counts.items())
        lines += ["", f"{len(self)} models: {counts}"]
        read = [record.parameters for record in self if record.parameters]
        if read:
            lines.append(f"parameters in all: {sum(p[0] for p in read)} -> {sum(p[1] for p in read)}")
        refused = [record for record in self if record.status == "refused"]
        lines += [f"refused: {record.name}: {record.reason}" for record in refused[:max_rows]]
        return "\n".join(lines)

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the models and ``result.json`` into ``folder``, all or nothing; see ``saving.save_result``."""
        from metaedit_fast.editing.saving import save_result

        return save_result(self, Path(folder), overwrite=overwrite)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in self.status_counts.items() if count)
        return f"CompactResult({counts or 'no models'})"


def compact(models: Any, *, drop_inputs: bool = False) -> CompactResult:
    """Take out of trained MLPs what has no effect: the same predictions from fewer neurons.

    ``models`` is one model of any kind that ``read_model`` takes, a list of them, or a ``Population``; they
    come back as the kind they came in as, and the given ones stay as they are. Removed are hidden neurons
    from which no path of nonzero weights leads to an output, and neurons that are constant because none
    leads to them; their constant moves, computed in float64, into the biases behind them. Outputs agree up to
    the rounding of those biases. Neurons of a layer norm, and neurons tied by a skip to one that is needed,
    stay; ``docs/compaction.md`` has the rules.

    Inputs without effect stay too, so that the model takes the same rows, unless ``drop_inputs`` is set: then it
    takes only the columns ``record.kept_inputs``, and at least one.

    A model that cannot be read, or whose parameters are not finite, is refused with a reason and given back as
    it is; the others go on. Raises ``ValueError`` where ``models`` is no model or list of them.
    """
    sources = sources_of(models)
    records = [_compacted(source, drop_inputs=drop_inputs) for source in sources]
    population = models if isinstance(models, Population) else None
    return CompactResult(records, settings={"drop_inputs": drop_inputs}, source=population)


def _compacted(source: Source, *, drop_inputs: bool) -> CompactRecord:
    place: dict[str, Any] = {"index": source.index, "name": source.name, "origin": source.record}
    kind = None
    try:
        opened = source.open()
        kind = opened.kind
        plan = plan_of(opened.mlp, drop_inputs=drop_inputs)
        model, notes = rebuilt(opened, plan)
    except Exception as error:  # foreign code may run while a model is read; one model must not stop the others
        reason = f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)
        return CompactRecord(**place, model=source.model, status="refused", reason=reason, kind=kind)
    return CompactRecord(
        **place,
        model=model,
        status="unchanged" if plan.is_identity else "compacted",
        notes=(*opened.notes, *notes),
        kind=kind,
        parameters=tuple(int(spec.owned_parameters.sum()) for spec in (plan.before, plan.mlp.spec)),
        widths=(plan.before.widths, plan.mlp.spec.widths),
        neurons_removed=plan.neurons_removed,
        inputs_removed=plan.inputs_removed,
        kept_inputs=tuple(plan.kept[0].tolist()),
    )


def _line(record: CompactRecord) -> list[str]:
    if record.status == "refused":
        return [record.name, record.status, "-", "-", "-", "-"]
    before, after = ("-".join(map(str, widths)) for widths in record.widths)
    return [
        record.name,
        record.status,
        before if before == after else f"{before} -> {after}",
        " -> ".join(map(str, dict.fromkeys(record.parameters))),
        str(record.neurons_removed),
        str(record.inputs_removed),
    ]


def _listed(value: Any) -> Any:
    return [_listed(v) for v in value] if isinstance(value, tuple) else value
