"""Editors and baselines as methods to measure: many models and a budget in, edited models out."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from metaedit_fast.data import Table, as_table
from metaedit_fast.editing.editor import Editor
from metaedit_fast.editing.labelled import groups_of, labelled_rows
from metaedit_fast.editing.odds import OddsTerm, term_after
from metaedit_fast.editing.refine import refine_all
from metaedit_fast.editing.rounds import refine_in_rounds, round_budgets
from metaedit_fast.evaluation.baselines.data_minimisation import (
    feature_selection,
    greedy_ranking,
    permutation_ranking,
    random_ranking,
    refined_selection,
)
from metaedit_fast.evaluation.baselines.pruning import lottery_ticket, prune
from metaedit_fast.evaluation.measure import Method
from metaedit_fast.models.mlp import MLP
from metaedit_fast.requirements import WeightRanking, get_requirement

ModelsMethod = Callable[[Sequence[MLP], float], list[MLP]]


def each(edit: Callable[[MLP, float], MLP]) -> ModelsMethod:
    """A method that edits one model after the other."""
    return lambda mlps, budget: [edit(mlp, budget) for mlp in mlps]


def asked(editor: Editor, value: float) -> float:
    """The editor's own budget for ``value``: what users ask for, a sparsity or a number of features; for equalised
    odds the strength. Raises ``ValueError`` out of range.
    """
    requirement = get_requirement(editor.info.requirement)
    if requirement.needs_labels:
        return requirement.check_budget(value)
    return requirement.budget_of_target(value, editor.info.config.n_inputs)


def edits(editor: Editor, probe: Table | ArrayLike | None = None) -> ModelsMethod:
    """``Editor.edit_batch``: ``editor`` in one shot at a budget of its own, with the ``probe`` that it takes."""
    rows = probe if editor.info.config.probe else None

    def method(mlps: Sequence[MLP], budget: float) -> list[MLP]:
        thetas = editor.edit_batch(mlps, budget, probe=rows, num_threads=1)
        return [mlp.replace(theta) for mlp, theta in zip(mlps, thetas, strict=True)]

    return method


def refined(method: ModelsMethod, probe: ArrayLike, *, steps: int = 30) -> ModelsMethod:
    """``method``, then ``steps`` of refinement of each model on the rows ``probe [rows, n_inputs]``, zeros kept."""

    def both(mlps: Sequence[MLP], budget: float) -> list[MLP]:
        return [mlp for mlp, _ in refine_all(method(mlps, budget), mlps, probe, steps=steps, num_threads=1)]

    return both


def by_strength(labels: ArrayLike, groups: ArrayLike, strength: float) -> OddsTerm:
    """The term of ``metaedit_fast.edit`` for an edit at a strength."""
    return term_after(labels, groups, strength=strength, limit=None)


def refined_odds(
    method: ModelsMethod,
    probe: Table | ArrayLike,
    *,
    steps: int = 10,
    term: Callable[[ArrayLike, ArrayLike, float], OddsTerm] = by_strength,
) -> ModelsMethod:
    """``method`` for equalised odds, then ``steps`` of refinement on the rows of ``probe``, which needs labels and
    groups; ``term`` makes of these and the budget what is added to the objective.
    """
    table = as_table(probe)
    rows = labelled_rows(table, groups_of(table))

    def both(mlps: Sequence[MLP], budget: float) -> list[MLP]:
        odds = term(rows.labels, rows.groups, budget)
        found = refine_all(method(mlps, budget), mlps, rows.x, steps=steps, odds=odds, num_threads=1)
        return [mlp for mlp, _ in found]

    return both


def in_rounds(editor: Editor, probe: ArrayLike, rounds: int, *, steps: int = 30) -> ModelsMethod:
    """``editor`` for pruning with ``steps`` of refinement, in ``rounds`` (``editing.rounds``), on the same rows."""
    requirement = get_requirement(editor.info.requirement)
    if not isinstance(requirement, WeightRanking):
        raise ValueError(f"editor: expected one that removes weights, got one for {requirement.name}")
    own = edits(editor, probe)

    def method(mlps: Sequence[MLP], budget: float) -> list[MLP]:
        first, *later = round_budgets(budget, rounds)
        return refine_in_rounds(own(mlps, first), mlps, probe, later, requirement, steps=steps, num_threads=1)

    return method


def editor_methods(editor: Editor, probe: Table | ArrayLike, *, steps: int = 30) -> dict[str, Method]:
    """``editor`` alone, and with ``steps`` of refinement unless they are 0, on the same rows ``probe``.

    Their budgets are what ``asked`` takes. An editor for equalised odds needs a ``Table`` with labels and groups.
    """
    own = edits(editor, probe)

    def alone(mlps: Sequence[MLP], value: float) -> list[MLP]:
        return own(mlps, asked(editor, value))

    if steps == 0:
        return {"editor": alone}
    if get_requirement(editor.info.requirement).needs_labels:
        return {"editor": alone, "editor+refine": refined_odds(alone, probe, steps=steps)}
    rows = probe.X if isinstance(probe, Table) else probe
    return {"editor": alone, "editor+refine": refined(alone, rows, steps=steps)}


def pruning_baselines(
    probe: ArrayLike, labels: ArrayLike | None = None, *, seed: int = 0, lottery: bool = False
) -> dict[str, Method]:
    """The rankings of ``baselines.pruning``, on the rows ``probe [rows, n_inputs]``.

    SNIP and the gradient need the class ``labels [rows]`` too and are left out without; so do lottery tickets, which
    take hundreds of times longer than the others and are measured with ``lottery`` alone.
    """
    found: dict[str, Method] = {}
    if labels is not None:
        found["snip"] = each(lambda mlp, s: prune("snip", mlp, s, x=probe, y=labels))
        found["gradient"] = each(lambda mlp, s: prune("gradient", mlp, s, x=probe, y=labels))
        if lottery:
            found["lottery_ticket"] = each(lambda mlp, s: lottery_ticket(mlp, s, probe, labels))
    found["fisher"] = each(lambda mlp, s: prune("fisher", mlp, s, x=probe))
    found["magnitude"] = each(lambda mlp, s: prune("magnitude", mlp, s))
    found["magnitude_layer"] = each(lambda mlp, s: prune("magnitude_layer", mlp, s))
    found["random"] = each(lambda mlp, s: prune("random", mlp, s, rng=_generator(mlp, seed)))
    return found


def selection_baselines(probe: ArrayLike, labels: ArrayLike | None = None, *, seed: int = 0) -> dict[str, Method]:
    """Rankings of inputs (``baselines.data_minimisation``) on the rows ``probe [rows, n_inputs]``: the best are kept.

    Permutation importance needs the class ``labels [rows]`` and is left out without. ``+refine`` adds 30 steps of
    refinement.
    """
    rankings = {"greedy": greedy_ranking(probe, num_threads=1), "random": random_ranking(seed)}
    if labels is not None:
        rankings = {"permutation": permutation_ranking(probe, labels, seed=seed), **rankings}
    found: dict[str, Method] = {}
    for name, ranking in rankings.items():
        found[name] = feature_selection(ranking)
        if name != "random":
            found[f"{name}+refine"] = refined_selection(ranking, probe, num_threads=1)
    return found


def _generator(mlp: MLP, seed: int) -> np.random.Generator:
    """Random numbers for one model, whatever models come before it."""
    return np.random.default_rng([seed, zlib.crc32(mlp.theta.tobytes())])
