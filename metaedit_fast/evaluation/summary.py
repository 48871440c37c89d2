"""From measurements to the record that is committed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaedit_fast import _core
from metaedit_fast.evaluation import pareto
from metaedit_fast.evaluation.measure import HeldOut, Measurement
from metaedit_fast.evaluation.record import Comparison, Point, Reading, Record, is_ours
from metaedit_fast.evaluation.uncertainty import estimate, paired_difference
from metaedit_fast.versions import versions

Curves = Mapping[str, Sequence[Measurement]]


def summarise(
    experiment: str,
    dataset: str,
    held_out: HeldOut,
    curves: Curves,
    *,
    command: str,
    seeds: Sequence[int] = (0,),
    by_seed: Mapping[str, Sequence[Sequence[Measurement]]] | None = None,
    at: Sequence[float] = (),
    against: Mapping[str, str] | None = None,
    families: Mapping[str, Sequence[str]] | None = None,
    reference_jsd: float = pareto.REFERENCE_JSD,
    hypervolume: bool = True,
    details: Mapping[str, Any] | None = None,
) -> Record:
    """The record of ``curves``, what ``held_out.measure`` gave for each method.

    ``by_seed`` holds the curves of methods that were trained with several seeds, one for each; they join ``curves`` as
    their mean over seeds of each model's values. ``at``: values of the requirement at which methods are compared
    (``pareto.at_requirement``). ``against``: with which method each of some is compared in pairs by hypervolume; by
    default each of ours with the best of the others. ``families`` names methods that are one method given more and
    more time. ``reference_jsd`` is the JSD of the hypervolume's reference point; ``hypervolume=False`` leaves out
    hypervolumes, which need moocore. ``details`` are further keys of the file.
    """
    several = by_seed or {}
    pooled = {name: [*map(over_seeds, zip(*given, strict=True))] for name, given in several.items()}
    everything: dict[str, Sequence[Measurement]] = {**pooled, **curves}
    quantity, before, runs = held_out.quantity, held_out.before, held_out.runs.tolist()
    volumes = {
        name: pareto.hypervolumes(curve, quantity, before=before, jsd=reference_jsd)
        for name, curve in everything.items()
        if hypervolume
    }
    return Record(
        experiment=experiment,
        dataset=dataset,
        requirement=quantity.name,
        unit=quantity.unit,
        seeds=tuple(seeds),
        models=len(held_out),
        rows=len(held_out.x),
        curves={
            name: tuple(
                _point(measured, [seed[i] for seed in several.get(name, ())]) for i, measured in enumerate(curve)
            )
            for name, curve in everything.items()
        },
        hypervolume={name: estimate(values, runs) for name, values in volumes.items()},
        command=command,
        comparisons=_comparisons(volumes, _best_of_others(volumes) if against is None else against, runs),
        readings={name: _readings(curve, held_out, at) for name, curve in everything.items()} if at else {},
        families={name: tuple(members) for name, members in (families or {}).items()},
        details={
            "accuracy_before": before.estimate("accuracy").mean,
            "requirement_before": before.estimate("requirement").mean,
            "reference": {"best": quantity.best, "worst": quantity.worst, "jsd": reference_jsd},
            "engine": _core.isa(),
            "versions": versions(),
            **(details or {}),
        },
    )


def over_seeds(measurements: Sequence[Measurement]) -> Measurement:
    """The mean of each model's values over editors that differ in their seed alone.

    Raises ``ValueError`` where budgets or models differ.
    """
    first = measurements[0]
    for other in measurements[1:]:
        if other.budget != first.budget or not np.array_equal(other.runs, first.runs):
            raise ValueError(f"{first.method}: expected the same budgets and models for every seed")
    means: dict[str, Any] = {
        name: np.mean([getattr(m, name) for m in measurements], axis=0)
        for name in ("jsd", "accuracy", "requirement", "flips")
    }
    times: dict[str, Any] = {
        name: float(np.mean([getattr(m, name) for m in measurements])) for name in ("ms_per_model", "wall_ms_per_model")
    }
    return dataclasses.replace(first, **means, **times)


Volumes = Mapping[str, NDArray[np.float64]]


def _best_of_others(volumes: Volumes) -> dict[str, str]:
    """For each of our methods the one of the others whose mean hypervolume is the largest, where there are others."""
    others = [name for name in volumes if not is_ours(name)]
    if not others:
        return {}
    best = max(others, key=lambda name: float(volumes[name].mean()))
    return {name: best for name in volumes if is_ours(name)}


def _comparisons(volumes: Volumes, against: Mapping[str, str], runs: Sequence[int]) -> dict[str, Comparison]:
    found = {}
    for name, other in against.items():
        difference = paired_difference(volumes[name], volumes[other], runs)
        found[name] = Comparison(other, difference.mean, difference.se)
    return found


def _point(measured: Measurement, seeds: Sequence[Measurement]) -> Point:
    divergence, requirement = measured.estimate("jsd"), measured.estimate("requirement")
    return Point(
        budget=measured.budget,
        requirement_mean=requirement.mean,
        jsd_mean=divergence.mean,
        jsd_se=divergence.se,
        accuracy_mean=float(measured.accuracy.mean()),
        ms_per_model=measured.ms_per_model,
        requirement_se=requirement.se,
        flips_mean=float(measured.flips.mean()),
        wall_ms_per_model=measured.wall_ms_per_model,
        jsd_by_seed=tuple(float(one.jsd.mean()) for one in seeds),
    )


def _readings(curve: Sequence[Measurement], held_out: HeldOut, at: Sequence[float]) -> tuple[Reading, ...]:
    found = pareto.at_requirement(curve, held_out.quantity, at)
    return tuple(
        Reading(
            requirement=value,
            jsd_mean=found["jsd"][i].mean,
            jsd_se=found["jsd"][i].se,
            accuracy_mean=found["accuracy"][i].mean,
            flips_mean=found["flips"][i].mean,
        )
        for i, value in enumerate(at)
        if not math.isnan(found["jsd"][i].mean)
    )
