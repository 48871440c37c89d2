"""``fit_editor``: a population and unlabelled rows in, an editor out."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metaedit_fast.datasets import Dataset
from metaedit_fast.editing.editor import Editor, EditorInfo, Envelope
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.population import Population
from metaedit_fast.requirements import get_requirement
from metaedit_fast.training.progress import training_progress
from metaedit_fast.training.trainer import Trainer, TrainerConfig
from metaedit_fast.versions import versions

PROBE_ROWS = 256


def fit_editor(
    population: Population,
    data: Dataset | ArrayLike,
    *,
    requirement: str = "pruning",
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
    ``Dataset``, of which the validation rows are used, so that the models' training rows stay out. A
    random quarter of the rows, at most 2000, chooses; 256 of the others are the probe, where ``config``
    asks for one.

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
    config = config or MetanetConfig(train[0].spec.n_inputs, max(2, train[0].spec.n_outputs))
    for mlp in (*train, *validation):
        config.node_types(mlp.spec)
    settings = settings or TrainerConfig()
    if isinstance(data, Dataset):
        rows = data.val.x
    else:  # a dataset's validation rows were drawn at random; what others give may be sorted
        rows = np.random.default_rng(settings.seed).permutation(np.asarray(data, np.float32))
    x, x_validation = _split_rows(rows, config.n_inputs)
    probe = x[:PROBE_ROWS]
    trainer = Trainer(
        config,
        settings,
        get_requirement(requirement),
        train,
        validation,
        x,
        x_validation,
        probe=probe if config.probe else None,
        folder=None if folder is None else Path(folder),
        num_threads=num_threads,
    )
    with training_progress(trainer, enabled=progress) as report:
        net = trainer.run(report)
    best = trainer.best
    info = EditorInfo(
        name=name or f"{data.name if isinstance(data, Dataset) else 'custom'}-{requirement.replace('_', '-')}",
        config=config,
        envelope=Envelope.from_specs([mlp.spec for mlp in train]),
        requirement=requirement,
        budget_range=get_requirement(requirement).trained_range,
        data_name=data.name if isinstance(data, Dataset) else "",
        data_hash=data.fingerprint if isinstance(data, Dataset) else "",
        population_hash=population.content_hash(),
        feature_names=data.feature_names if isinstance(data, Dataset) else None,
        versions=versions(),
        metrics={
            "validation_jsd": best.jsd if best else {},
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
    return Editor.from_network(net, info, probe=probe if embed_probe else None)


def _split_rows(rows: NDArray[np.float32], n_inputs: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    if rows.ndim != 2 or rows.shape[1] != n_inputs or len(rows) < 2 * PROBE_ROWS:
        raise ValueError(f"data: expected at least {2 * PROBE_ROWS} rows of {n_inputs} columns, got shape {rows.shape}")
    held_out = min(2000, len(rows) // 4)
    return rows[:-held_out], rows[-held_out:]
