"""The cards of the bundled editors: what each is for, what it was trained on, how well it did, its limits.

python experiments/cards.py            # writes docs/editors.md
python experiments/cards.py --check    # fails where the page is out of date
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from common import RESULTS, ROOT

import metaedit_fast as mf
from metaedit_fast.editing.bundled import bundled_editors
from metaedit_fast.evaluation.record import read_record
from metaedit_fast.evaluation.tables import budget_table, reading_table
from metaedit_fast.requirements import get_requirement

PAGE = ROOT / "docs" / "editors.md"
HEAD = """# The bundled editors

`mf.edit(models, NAME, ...)` takes any of these by name; `metaedit info NAME` prints all that an editor says about
itself. Written by `python experiments/cards.py` from the editors and the results of their experiments
([results.md](results.md)). `adult-pruning` comes with the package, the others with `pip install ./packages/editors`. An
editor knows models of its table in its form alone: look at the record of an edit, which measures what it did on rows of
yours, before a model is used.
"""
ASKED = {
    "pruning": '`target={"sparsity": 0.9}`: exactly that fraction of the weights is removed',
    "data_minimisation": '`target={"features": 6}`: exactly so many input features are used',
    "equalized_odds": '`target={"equalized_odds_difference": 0.05}`, sought on your rows, or `strength=0.1`, best with '
    "`refine=10`",
}
NEEDS = {
    "pruning": "no data of yours: it carries the 256 rows that it looks at",
    "data_minimisation": "no data of yours: it carries the 256 rows that it looks at",
    "equalized_odds": "`data=Table(X, y, sensitive=...)`: labelled rows with groups, which never leave your machine",
}


def main(check: Annotated[bool, typer.Option("--check", help="change nothing")] = False) -> None:
    """Write the page, or tell whether it is up to date."""
    text = "\n".join([HEAD, *(card(name) for name in bundled_editors())])
    if check:
        sys.exit(PAGE.read_text() != text)
    PAGE.write_text(text)


def card(name: str) -> str:
    """The section of one editor."""
    about = mf.load_editor(name).describe()
    envelope, config, metrics = about["envelope"], about["config"], about["metrics"]
    low, high = about["budget_range"]
    facts = {
        "For": f"{about['requirement']}, in {get_requirement(about['requirement']).unit}",
        "Asked by": ASKED[about["requirement"]],
        "Needs": NEEDS[about["requirement"]],
        "Models": f"classifiers of {config['n_inputs']} inputs, {config['n_classes']} classes or one logistic output",
        "Trained with": f"{envelope['depth'][0]} to {envelope['depth'][1]} hidden layers of {envelope['width'][0]} to "
        f"{envelope['width'][1]} neurons, norms {', '.join(envelope['norms'])}, activations "
        f"{', '.join(envelope['activations'])}, up to {envelope['max_skips']} skips; others are noted or refused",
        "Trained": f"on {metrics['training_models']} models, budgets {low:g} to {high:g}, {metrics['steps']} steps in "
        f"{metrics['seconds'] / 60:.0f} minutes on {metrics['threads']} thread(s), seed {metrics['seed']}",
        "Inputs": ", ".join(about["feature_names"])
        if about["feature_names"]
        else "in the order of the dataset's columns",
        "License": about["license"],
    }
    lines = [f"## {name}\n", *(f"- **{key}**: {value}" for key, value in facts.items())]
    record = RESULTS / f"{name.replace('-', '_')}.json"
    if record.exists():
        found = read_record(record)
        ours = [method for method in found.curves if method.startswith("editor")]
        shown = (reading_table if found.readings else budget_table)(found, ours)
        lines += [
            "",
            f"On {found.models} held-out models and {found.rows} test rows, by {found.unit}:",
            "",
            shown.markdown(),
        ]
    lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
