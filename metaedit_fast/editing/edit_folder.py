"""Edits from files to a folder, in the memory of a chunk of models: what ``metaedit edit`` does."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from metaedit_fast.editing import pipeline, saving
from metaedit_fast.editing.edit import written
from metaedit_fast.editing.editor import Editor
from metaedit_fast.editing.plan import EditOptions, make_plan
from metaedit_fast.editing.result import EditRecord, EditResult, population_record
from metaedit_fast.editing.sources import sources_of
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec
from metaedit_fast.population.store import PopulationWriter, StoredPopulation
from metaedit_fast.progress import progress_bar

if TYPE_CHECKING:
    from typing_extensions import Unpack

_NO_MODEL = MLP(MLPSpec.simple((1, 1)), np.zeros(2, np.float32))


class _Writer(Protocol):
    def write(self, record: EditRecord) -> str | None: ...
    def close(self, result: EditResult) -> None: ...


def edit_into(
    folder: Path,
    models: Sequence[Any] | StoredPopulation,
    editor: Editor | str | Path,
    *,
    overwrite: bool = False,
    progress: bool = False,
    **options: Unpack[EditOptions],
) -> EditResult:
    """``edit(models, ...).save(folder)``, with each model written as it is ready and then let go.

    The folder is the same, and appears when all is written, or not at all. The result has all but the models.
    Raises what these two raise.
    """
    plan = make_plan(editor, **options)
    records, files = [], []
    total = None if isinstance(models, StoredPopulation) else len(models)
    with (
        saving.appearing(folder, overwrite=overwrite) as content,
        progress_bar("editing", total, shown=progress) as advance,
    ):
        writer: _Writer = (
            _IntoPopulation(content, models) if isinstance(models, StoredPopulation) else _IntoFiles(content, folder)
        )
        for record in pipeline.run(sources_of(iter(models)), plan, written):
            files.append(writer.write(record))
            records.append(_without_model(record))
            advance()
        result = EditResult(records, settings=plan.settings(), editor=plan.editor.describe())
        writer.close(result)
        saving.write_report(result, files, content)
    return result


class _IntoFiles(saving.ModelWriter):
    def close(self, result: EditResult) -> None:
        """Nothing: every file is whole."""


class _IntoPopulation:
    def __init__(self, content: Path, source: StoredPopulation) -> None:
        self._source = source
        self._writer = PopulationWriter(content / saving.POPULATION, dataset=source.dataset)

    def write(self, record: EditRecord) -> str:
        self._writer.add(population_record(record))
        return saving.POPULATION

    def close(self, result: EditResult) -> None:
        self._writer.close({**self._source.info, **result.population_info})


def _without_model(record: EditRecord) -> EditRecord:
    """What is told about a model when it lies on the disk. An error would hold on to all that it came through."""
    origin = record.origin and dataclasses.replace(record.origin, mlp=_NO_MODEL)
    return dataclasses.replace(record, model=None, error=None, origin=origin)
