"""The committed result of an experiment: means and standard errors of every method, as one JSON file.

The keys are those of docs/formats.md. A number that is not known, such as the accuracy without labels, is null in the
file and NaN here.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from metaedit_fast.atomic import write_atomically
from metaedit_fast.evaluation.uncertainty import Estimate

MAX_RECORD_BYTES = 64 << 20
OURS = "editor"


def is_ours(method: str) -> bool:
    """Whether a method is one of this package's, by its name; the others are what it is compared with."""
    return method.startswith(OURS)


@dataclasses.dataclass(frozen=True)
class Point:
    """One method at one budget: means over models, ``*_se`` their standard errors clustered by training run.

    ``budget`` is what was asked for, ``requirement_mean`` what was met, in the record's unit. ``flips_mean`` is the
    fraction of decisions that changed. ``jsd_by_seed`` holds the mean of each seed of the editor, where there are
    several.
    """

    budget: float
    requirement_mean: float
    jsd_mean: float
    jsd_se: float
    accuracy_mean: float
    ms_per_model: float
    requirement_se: float = math.nan
    flips_mean: float = math.nan
    wall_ms_per_model: float = math.nan
    jsd_by_seed: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Reading:
    """A method's front where the mean requirement is ``requirement`` (``pareto.at_requirement``)."""

    requirement: float
    jsd_mean: float
    jsd_se: float
    accuracy_mean: float
    flips_mean: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A method's hypervolume less that of the method ``against``, on the same models: the mean over models of the
    difference, and its standard error clustered by training run (``uncertainty.paired_difference``).
    """

    against: str
    mean: float
    se: float


@dataclasses.dataclass(frozen=True)
class Record:
    """A result. ``curves`` holds the points of each method in the order of its budgets; ours are named ``editor...``.

    ``hypervolume`` is the mean over models of ``pareto.hypervolumes`` and its standard error, for the reference point
    that ``details["reference"]`` tells; ``comparisons`` tells which are compared in pairs, by default each of ours with
    the best of the others. ``readings`` compares methods at equal requirement. ``families`` names methods that are one
    method given more and more time. ``details`` is free JSON: ``accuracy_before``,
    ``requirement_before``, ``versions``, ``engine``, ``editor``, ``groups``, ``notes``.

    Raises ``ValueError`` where a part contradicts another.
    """

    experiment: str
    dataset: str
    requirement: str
    unit: str
    seeds: tuple[int, ...]
    models: int
    rows: int
    curves: Mapping[str, tuple[Point, ...]]
    hypervolume: Mapping[str, Estimate]
    command: str
    comparisons: Mapping[str, Comparison] = dataclasses.field(default_factory=dict)
    readings: Mapping[str, tuple[Reading, ...]] = dataclasses.field(default_factory=dict)
    families: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.curves:
            raise ValueError("curves: expected at least one method, got none")
        for method, curve in self.curves.items():
            if not curve:
                raise ValueError(f"curves {method!r}: expected at least one point, got none")
        for name, methods in (
            ("hypervolume", self.hypervolume),
            ("comparisons", (*self.comparisons, *(found.against for found in self.comparisons.values()))),
            ("readings", self.readings),
            *((f"families {family!r}", members) for family, members in self.families.items()),
        ):
            if unknown := [method for method in methods if method not in self.curves]:
                raise ValueError(f"{name}: expected methods of curves, got {unknown}")
        if taken := sorted(set(self.details) & {field.name for field in dataclasses.fields(self)}):
            raise ValueError(f"details: expected further keys, got {taken}")

    def to_json(self) -> str:
        """The text of the file; raises ``ValueError`` where ``details`` have no JSON form."""
        raw = _without_nan({**_fields(self), **self.details})
        for optional in _OPTIONAL:
            if not raw[optional]:
                del raw[optional]
        try:
            return json.dumps(raw, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
        except TypeError as error:
            raise ValueError(f"details: expected values that JSON can hold ({error})") from error

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Inverse of ``to_json``. Raises ``ValueError`` that tells what is wrong with any other text."""
        try:
            raw = json.loads(text, parse_constant=_refuse_constant)
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error
        if not isinstance(raw, dict):
            raise ValueError(f"expected a JSON object, got {type(raw).__name__}")
        fields = {field.name for field in dataclasses.fields(cls)} - {"details"}
        known = {name: value for name, value in raw.items() if name in fields}
        read: dict[str, Callable[[str, Any], Any]] = {
            "seeds": lambda name, value: _list(name, value, _integer),
            "models": _integer,
            "rows": _integer,
            "curves": lambda name, value: _object(name, value, lambda n, v: _list(n, v, _point)),
            "hypervolume": lambda name, value: _object(name, value, _estimate),
            "comparisons": lambda name, value: _object(name, value, _comparison),
            "readings": lambda name, value: _object(name, value, lambda n, v: _list(n, v, _reading)),
            "families": lambda name, value: _object(name, value, lambda n, v: _list(n, v, _text)),
        }
        _require_keys("result", known, fields, optional=set(_OPTIONAL))
        values = {name: read.get(name, _text)(name, value) for name, value in known.items()}
        return cls(**values, details={name: value for name, value in raw.items() if name not in fields})


def write_record(record: Record, path: str | Path) -> None:
    """Write a result as JSON, atomically."""
    write_atomically(Path(path), record.to_json().encode())


def read_record(path: str | Path) -> Record:
    """Read a result. Raises ``ValueError`` that names the file and what is wrong with it, ``OSError`` without one."""
    file = Path(path)
    if file.stat().st_size > MAX_RECORD_BYTES:
        raise ValueError(f"{file}: larger than {MAX_RECORD_BYTES >> 20} MiB")
    try:
        return Record.from_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _fields(record: Record) -> dict[str, Any]:
    """All but ``details``, in the order of the class; optional numbers of a point that are not known are left out."""
    found = {field.name: getattr(record, field.name) for field in dataclasses.fields(record) if field.name != "details"}
    found["hypervolume"] = {name: dataclasses.asdict(value) for name, value in record.hypervolume.items()}
    found["comparisons"] = {name: dataclasses.asdict(value) for name, value in record.comparisons.items()}
    found["curves"] = {name: [_point_fields(p) for p in curve] for name, curve in record.curves.items()}
    found["readings"] = {name: [dataclasses.asdict(r) for r in given] for name, given in record.readings.items()}
    return found


def _point_fields(point: Point) -> dict[str, Any]:
    fields = dataclasses.asdict(point)
    return {
        name: value
        for name, value in fields.items()
        if name not in _OPTIONAL_OF_POINT or not (value == () if isinstance(value, tuple) else math.isnan(value))
    }


_OPTIONAL = ("comparisons", "readings", "families")
_OPTIONAL_OF_POINT = ("requirement_se", "flips_mean", "wall_ms_per_model", "jsd_by_seed")


def _without_nan(value: Any) -> Any:
    """``value`` with None for NaN and infinities, and lists for tuples."""
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _point(name: str, raw: object) -> Point:
    numbers = {field.name for field in dataclasses.fields(Point)} - {"jsd_by_seed"}
    fields = _require_keys(name, raw, {*numbers, "jsd_by_seed"}, optional=set(_OPTIONAL_OF_POINT))
    seeds = _list(f"{name} jsd_by_seed", fields.pop("jsd_by_seed", []), _number)
    values = {key: _number(f"{name} {key}", value) for key, value in fields.items()}
    if math.isnan(values["budget"]):
        raise ValueError(f"{name} budget: expected a number, got None")
    return Point(**values, jsd_by_seed=seeds)


def _reading(name: str, raw: object) -> Reading:
    fields = _require_keys(name, raw, {field.name for field in dataclasses.fields(Reading)})
    return Reading(**{key: _number(f"{name} {key}", value) for key, value in fields.items()})


def _estimate(name: str, raw: object) -> Estimate:
    fields = _require_keys(name, raw, {"mean", "se"})
    return Estimate(**{key: _number(f"{name} {key}", value) for key, value in fields.items()})


def _comparison(name: str, raw: object) -> Comparison:
    fields = _require_keys(name, raw, {field.name for field in dataclasses.fields(Comparison)})
    against = _text(f"{name} against", fields.pop("against"))
    return Comparison(against, **{key: _number(f"{name} {key}", value) for key, value in fields.items()})


def _require_keys(name: str, raw: object, expected: set[str], optional: set[str] | None = None) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise ValueError(f"{name}: expected a JSON object, got {raw!r}")
    missing, unknown = sorted(expected - raw.keys() - (optional or set())), sorted(raw.keys() - expected)
    if missing or unknown:
        raise ValueError(f"{name}: missing keys {missing}, unknown keys {unknown}")
    return dict(raw)


def _list(name: str, raw: object, read: Callable[[str, Any], Any]) -> tuple[Any, ...]:
    if not isinstance(raw, list):
        raise ValueError(f"{name}: expected a list, got {raw!r}")
    return tuple(read(f"{name}[{i}]", value) for i, value in enumerate(raw))


def _object(name: str, raw: object, read: Callable[[str, Any], Any]) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise ValueError(f"{name}: expected a JSON object, got {raw!r}")
    return {key: read(f"{name} {key!r}", value) for key, value in raw.items()}


def _number(name: str, raw: object) -> float:
    if raw is None:
        return math.nan
    if type(raw) is not float and type(raw) is not int:
        raise ValueError(f"{name}: expected a number or null, got {raw!r}")
    if not abs(raw) <= sys.float_info.max:
        raise ValueError(f"{name}: expected a number that fits 64 bits, got {raw!r}")
    return float(raw)


def _integer(name: str, raw: object) -> int:
    if type(raw) is not int or raw < 0:
        raise ValueError(f"{name}: expected an integer from 0, got {raw!r}")
    return raw


def _text(name: str, raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError(f"{name}: expected a text, got {raw!r}")
    return raw


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"it holds {constant}, which is no JSON")
