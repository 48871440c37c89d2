"""Learning rates of the per-model optimisers, tuned on population-val.

    python experiments/tune_baselines.py pruning pruning-mask data-minimisation retraining
    python experiments/tune_baselines.py fairness fairness-last-layer --models 12   # the committed tables; none: all

For every number of steps and every budget, a rate of ``rates.GRID`` wins whose mean objective over a sample of
population-val (one checkpoint a run) is lower than with both neighbours in the grid, measured on rows that the
optimisers do not see: of the validation split, for equalised odds of the training split, because differences on a few
thousand rows are mostly chance. The search starts from the rate for fewer steps. The tables
are written into ``metaedit_fast/evaluation/baselines/rates.py``, behind its marker.

Needs the extras ``train`` and ``sklearn``, a population of Adult (``metaedit population``) and its table.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

import metaedit_fast as mf
from metaedit_fast.evaluation.baselines import rates
from metaedit_fast.evaluation.baselines.data_minimisation import greedy_ranking, retrained_selection
from metaedit_fast.evaluation.baselines.fair_optimisation import optimised_fairness
from metaedit_fast.evaluation.baselines.optimisation import optimised_pruning
from metaedit_fast.models.evaluation import evaluate
from metaedit_fast.models.mlp import MLP
from metaedit_fast.population import Population
from metaedit_fast.requirements.odds import equalized_odds_difference

ROOT = Path(__file__).resolve().parents[1]
PROBE_ROWS, SEEN_ROWS = 256, 4096
STEPS = (10, 30, 100, 300, 1000)
DENSITIES = (0.5, 0.1, 0.02)
INPUTS = (1, 4, 12)
STRENGTHS = (0.03, 0.3, 3.0)
ODDS_ROWS = 16000

# From models, steps, budget and rate to edited models and what each of them costs.
Trial = Callable[[Sequence[MLP], int, float, float], np.ndarray]
console = Console(stderr=True)
Folder = Annotated[Path, typer.Option(help="the population")]
DataFolder = Annotated[Path | None, typer.Option(help="folder with the table")]


def main(
    tables: Annotated[list[str] | None, typer.Argument(help="names in rates.RATES; by default all")] = None,
    population: Folder = ROOT / "build" / "populations" / "adult",
    data_folder: DataFolder = None,
    dataset: str = "adult",
    models: int = 24,
    attribute: str = "sex",
    most_steps: int = STEPS[-1],
) -> None:
    """Tune and write."""
    data = mf.load_dataset(dataset, folder=data_folder)
    records = Population.load(population, partial=True).select(split="val")
    chosen = sample(records, models)
    probe, rest = data.val.x[:PROBE_ROWS], data.val.x[SEEN_ROWS:]
    labels = data.val.y[:PROBE_ROWS]
    greedy = greedy_ranking(probe)(chosen)

    def preserved(edited: Sequence[MLP]) -> np.ndarray:
        found = evaluate(edited, rest, originals=chosen).jsd
        assert found is not None
        return found

    def pruned(learn_mask: bool) -> Trial:
        return lambda mlps, steps, density, rate: preserved(
            optimised_pruning(probe, labels, steps=steps, learn_mask=learn_mask, rate=rate)(mlps, 1 - density)
        )

    def minimised(rows: np.ndarray) -> Trial:
        return lambda mlps, steps, k, rate: preserved(
            retrained_selection(lambda _: greedy, rows, steps=steps, rate=rate)(mlps, k)
        )

    def fair(last_layer: bool) -> Trial:
        seen, others = (
            (rows.x[:count], rows.y[:count], rows.sensitive[attribute][:count])
            for rows, count in ((data.val, SEEN_ROWS), (data.train, ODDS_ROWS))
        )

        def trial(mlps: Sequence[MLP], steps: int, strength: float, rate: float) -> np.ndarray:
            method = optimised_fairness(*seen, steps=steps, last_layer=last_layer, rate=rate)
            edited = method(mlps, strength)
            found = evaluate(edited, *others, originals=mlps)
            assert found.jsd is not None
            assert found.counts is not None
            return np.asarray(found.jsd + strength * equalized_odds_difference(found.counts))

        return trial

    trials: dict[str, tuple[Trial, Sequence[float]]] = {
        "pruning": (pruned(learn_mask=False), DENSITIES),
        "pruning-mask": (pruned(learn_mask=True), DENSITIES),
        "data-minimisation": (minimised(probe), INPUTS),
        "retraining": (minimised(data.val.x[:SEEN_ROWS]), INPUTS),
        "fairness": (fair(last_layer=False), STRENGTHS),
        "fairness-last-layer": (fair(last_layer=True), STRENGTHS),
    }
    for name in tables or trials:
        trial, budgets = trials[name]
        n_rows = ODDS_ROWS if name.startswith("fairness") else len(rest)
        rates.MEASURED_ON[name] = f"{len(chosen)} models of {dataset}, {n_rows} rows"
        found: dict[int, dict[float, float]] = {}
        for steps in (n for n in STEPS if n <= most_steps):
            before = found[max(found)] if found else {}
            found[steps] = {}
            for budget in budgets:
                start = before.get(budget, rates.GRID[len(rates.GRID) // 2])
                cost_at = functools.partial(trial, chosen, steps, budget)
                found[steps][budget] = best_rate(cost_at, start, f"{name}, {steps} steps, {budget}")
            rates.RATES[name] = found
            write_rates()


def sample(records: Population, count: int) -> list[MLP]:
    """One checkpoint, at random, of each of ``count`` random runs."""
    rng = np.random.default_rng(0)
    runs = rng.permutation(sorted({record.run for record in records}))[:count]
    own = [[record.mlp for record in records if record.run == run] for run in runs]
    return [mlps[int(rng.integers(len(mlps)))] for mlps in own]


def best_rate(cost_at: Callable[[float], np.ndarray], start: float, name: str) -> float:
    """Downhill on the grid of rates, from ``start``: a rate that is better than its neighbours, by mean cost."""
    costs: dict[float, float] = {}

    def cost(rate: float) -> float:
        if rate not in costs:
            found = cost_at(rate)
            costs[rate] = float(np.where(np.isnan(found), np.inf, found).mean())
        return costs[rate]

    best = start
    while True:
        at = rates.GRID.index(best)
        better = min(rates.GRID[max(0, at - 1) : at + 2], key=cost)
        if better == best:
            console.print(name, {rate: round(1e3 * cost, 3) for rate, cost in sorted(costs.items())})
            return best
        best = better


def write_rates() -> None:
    """Write ``rates.RATES`` into its module."""
    path = Path(rates.__file__)
    before, marker, _ = path.read_text().partition(rates.MARKER + "\n")
    lines = ["RATES: Tables = {"]
    for name, by_steps in rates.RATES.items():
        rows = [f"        {steps}: {by_budget}," for steps, by_budget in by_steps.items()]
        lines += [f'    "{name}": {{', *rows, "    },"]
    lines += ["}", "MEASURED_ON = {", *(f'    "{name}": "{what}",' for name, what in rates.MEASURED_ON.items()), "}"]
    path.write_text(before + marker + "\n".join(lines) + "\n")


if __name__ == "__main__":
    typer.run(main)
