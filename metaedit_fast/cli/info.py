"""``metaedit info``: what an editor, a model or a population is; without one, what is installed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metaedit_fast.cli.console import give, reports_errors

if TYPE_CHECKING:
    from metaedit_fast.models.opened import Opened
    from metaedit_fast.population.store import Population


@reports_errors
def info(
    what: Annotated[
        str | None, typer.Argument(help="An editor's name or file, a model's file or folder, or a population folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the description as one JSON object.")] = False,
) -> None:
    """Describe an editor, a model or a population; without one, list versions and bundled editors."""
    found = describe(what)
    give(found, as_text(found), as_json=as_json)


def describe(what: str | None) -> dict[str, Any]:
    """The description of ``what`` with its ``kind``.

    Raises ``MetaeditError``, ``ValueError`` or ``OSError`` where it is nothing of the kind.
    """
    from metaedit_fast.editing.bundled import bundled_editors, is_missing
    from metaedit_fast.editing.editor import load_editor
    from metaedit_fast.errors import InvalidEditorError
    from metaedit_fast.models.convert import open_model
    from metaedit_fast.population.store import Population
    from metaedit_fast.versions import versions

    if what is None:
        return {"kind": "installation", "editors": bundled_editors(), "versions": versions()}
    if (Path(what) / "config.json").is_file():
        return _model(open_model(what))
    if Path(what).is_dir():
        return _population(Population.load(what))
    if what in bundled_editors():
        return {"kind": "editor", **load_editor(what).describe()}
    if not Path(what).exists():
        raise FileNotFoundError(is_missing(what))
    try:
        return {"kind": "editor", **load_editor(what).describe()}
    except InvalidEditorError as no_editor:
        try:
            return _model(open_model(what))
        except ValueError as no_model:
            raise ValueError(f"{what}: neither an editor ({no_editor}) nor a model ({no_model})") from no_model


def as_text(found: dict[str, Any]) -> str:
    """A description for a person: a line per entry, nested ones indented."""
    lines: list[str] = []

    def put(entries: dict[str, Any], indent: str) -> None:
        for name, value in entries.items():
            if isinstance(value, dict) and value:
                lines.append(f"{indent}{name}:")
                put(value, indent + "  ")
            else:
                shown = value if isinstance(value, str) else json.dumps(value)
                lines.append(f"{indent}{name}: {shown}")

    put(found, "")
    return "\n".join(lines)


def _model(opened: Opened[Any]) -> dict[str, Any]:
    mlp, spec = opened.mlp, opened.mlp.spec
    return {
        "kind": "model",
        "widths": list(spec.widths),
        "activations": [layer.activation for layer in spec.layers],
        "norms": [layer.norm for layer in spec.layers],
        "skips": [list(skip) for skip in spec.skips],
        "output": spec.output,
        "weights": spec.n_weights,
        "parameters": spec.n_parameters,
        "sparsity": float(mlp.sparsity),
        "finite": mlp.is_finite,
        "content_hash": mlp.content_hash(),
        "notes": list(opened.notes),
    }


def _population(population: Population) -> dict[str, Any]:
    specs = [record.mlp.spec for record in population]
    return {
        "kind": "population",
        "models": len(population),
        "runs": len({record.run for record in population}),
        "finite": sum(record.finite for record in population),
        "splits": dict(sorted(Counter(record.split for record in population).items())),
        "inputs": sorted({spec.n_inputs for spec in specs}),
        "outputs": sorted({spec.n_outputs for spec in specs}),
        "architectures": len(set(specs)),
        "weights": [f(spec.n_weights for spec in specs) for f in (min, max)] if specs else [],
        "dataset": population.dataset,
        "content_hash": population.content_hash(),
        "info": population.info,
    }
