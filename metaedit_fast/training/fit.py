"""``fit_editor``: a population and unlabelled rows in, an editor out."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from metaedit_fast.data import Table, as_table
from metaedit_fast.datasets import Dataset, RowGroups
from metaedit_fast.editing.editor import Editor, EditorInfo, Envelope
from metaedit_fast.editing.plan import LABELLED_PROBE_ROWS, PROBE_ROWS
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.models.spec import MLPSpec
from metaedit_fast.population import Population
from metaedit_fast.requirements import Requirement, get_requirement
from metaedit_fast.training.progress import training_progress
from metaedit_fast.training.tasks import TrainingRows
from metaedit_fast.training.trainer import Trainer, TrainerConfig
from metaedit_fast.versions import versions


def fit_editor(
    population: Population,
    data: Dataset | Table | ArrayLike,
    *,
    requirement: str = "pruning",
    groups: RowGroups | None = None,
    name: str = "",
    config: MetanetConfig | None = None,
    settings: TrainerConfig | None = None,
    embed_probe: bool = False,
    folder: str | os.PathLike[str] | None = None,
    num_threads: int | None = None,
    progress: bool = True,
    license: str = "",  # noqa: A002 (the field's usual name)
) -> Editor:
    """Train an editor for models like those of ``population`` (arXiv 2512.15469, section 4).

    The metanetwork learns on the population's split ``train`` and is chosen on ``val``; ``test`` is not
    looked at. ``data`` is unlabelled rows ``[rows, n_inputs]`` like those the models will see, or a
    ``Dataset``, of which the validation rows are used, so that the models' training rows stay out. For equalised
    odds they are a ``Table`` with labels and groups, or a ``Dataset`` with its ``groups`` (``datasets.rows_groups``).
    A random quarter of the rows, at most 2000, chooses; 256 of the others (4096 with
    labels and groups) are the probe, where ``config`` asks for one.

    ``embed_probe`` stores these 256 rows in the editor, which then needs no data at the user's; whoever
    has the file can read them, so leave it off for rows that must not leave. ``folder`` keeps checkpoints
    there and goes on from them. ``settings.seed`` fixes the result. ``num_threads`` (default:
    ``METAEDIT_NUM_THREADS``, else all processors) work on it.

    Raises ``ValueError`` where the population has no models in a split, its models differ in inputs or
    classes, or there are fewer than 512 rows.
    """
    train, validation = population.select(split="train").mlps, population.select(split="val").mlps
    if not train or not validation:
        raise ValueError(f"population: expected models in splits train and val, got {len(train)} and {len(validation)}")
    wanted = get_requirement(requirement)
    if config is None:
        config = default_config(wanted, train[0].spec, probe=wanted.needs_labels)
    if config.context != wanted.context:
        raise ValueError(f"config: expected context {wanted.context!r} for {requirement}, got {config.context!r}")
    for mlp in (*train, *validation):
        config.node_types(mlp.spec)
    settings = settings or TrainerConfig()
    if isinstance(data, Dataset):
        table = Table(data.val.x, data.val.y, sensitive=None if groups is None else groups.labels(data.val))
    else:  # a dataset's validation rows were drawn at random; what others give may be sorted
        table = as_table(data)
        table = table.take(np.random.default_rng(settings.seed).permutation(len(table)))
    learned, chosen_on = _split_rows(table, config.n_inputs)
    probe_rows = LABELLED_PROBE_ROWS if wanted.needs_labels else PROBE_ROWS
    probe = learned.take(np.arange(min(probe_rows, len(learned)))) if config.probe else None
    trainer = Trainer(
        config,
        settings,
        wanted,
        train,
        validation,
        TrainingRows(learned, chosen_on, probe),
        folder=None if folder is None else Path(folder),
        num_threads=num_threads,
    )
    with training_progress(trainer, enabled=progress) as report:
        net = trainer.run(report)
    best = trainer.best
    asked = trainer.trained_budgets or wanted.trained_range
    info = EditorInfo(
        name=name or f"{data.name if isinstance(data, Dataset) else 'custom'}-{requirement.replace('_', '-')}",
        config=config,
        envelope=Envelope.from_specs([mlp.spec for mlp in train]),
        requirement=requirement,
        budget_range=(min(asked), max(asked)),
        data_name=data.name if isinstance(data, Dataset) else "",
        data_hash=data.fingerprint if isinstance(data, Dataset) else "",
        population_hash=population.content_hash(),
        feature_names=data.feature_names if isinstance(data, Dataset) else None,
        versions=versions(),
        metrics={
            "validation_jsd": best.jsd if best else {},
            "validation_requirement": best.requirement if best else {},
            "validation_models": len(trainer.validation.mlps),
            "training_models": len(train),
            "steps": trainer.step,
            "best_step": best.step if best else 0,
            "seed": settings.seed,
            "seconds": round(trainer.seconds),
            "threads": trainer.num_threads,
        },
        created=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        license=license,
    )
    return Editor.from_network(net, info, probe=probe.X if probe is not None and embed_probe else None)


def default_config(requirement: Requirement, spec: MLPSpec, *, probe: bool) -> MetanetConfig:
    """The metanetwork that ``fit_editor`` trains by default for models like one of ``spec``."""
    return MetanetConfig(
        spec.n_inputs, max(2, spec.n_outputs), probe=probe, context=requirement.context, gamma=requirement.gamma
    )


def _split_rows(table: Table, n_inputs: int) -> tuple[Table, Table]:
    if table.n_features != n_inputs or len(table) < 2 * PROBE_ROWS:
        shape = table.X.shape
        raise ValueError(f"data: expected at least {2 * PROBE_ROWS} rows of {n_inputs} columns, got shape {shape}")
    rows = np.arange(len(table))
    held_out = min(2000, len(table) // 4)
    return table.take(rows[:-held_out]), table.take(rows[-held_out:])
