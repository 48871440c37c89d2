"""An edit's result on disk: a folder of models, or a population, and ``result.json``.

The folder appears whole or not at all: it is written beside its place and renamed.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from metaedit_fast.atomic import write_atomically
from metaedit_fast.population.store import MANIFEST, Population

RESULT = "result.json"
POPULATION = "population"
FORMATS = ("metaedit_fast.result", "metaedit_fast.compaction")
FORMAT_VERSION = 1


class Record(Protocol):
    """One model of a result, as ``EditRecord``."""

    @property
    def name(self) -> str: ...
    @property
    def model(self) -> Any: ...
    @property
    def kind(self) -> str | None: ...
    @property
    def status(self) -> str: ...


class Result(Protocol):
    """What can be saved: ``EditResult``, ``CompactResult``. ``format`` is one of ``FORMATS``."""

    format: str

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Record]: ...
    def to_dict(self) -> dict[str, Any]: ...
    @property
    def is_population(self) -> bool: ...
    @property
    def population(self) -> Population: ...


def save_result(result: Result, folder: Path, *, overwrite: bool) -> Path:
    """Write every model that was not refused, and the records as ``result.json``.

    An ONNX model is written as ``NAME.onnx``, one of tensors as it came, as ``NAME.safetensors`` (with a sidecar
    ``NAME.json`` where it had one) or as the folder ``NAME``. ``NAME`` is the given file's, made unique where two are
    alike. torch modules and programs, scikit-learn estimators and ``MLP`` are written as ONNX too, because their own
    formats are pickles. A population is written as one, into ``population/``. ``result.json`` holds
    ``result.to_dict()`` and each record's ``file``.

    An existing folder is taken where it is empty, and replaced with ``overwrite`` where it holds a former
    result and nothing else. Returns the folder. Raises ``FileExistsError`` otherwise, and for a folder inside
    of a population.
    """
    with appearing(folder, overwrite=overwrite) as content:
        files: list[str | None]
        if result.is_population:
            result.population.save(content / POPULATION)
            files = [POPULATION] * len(result)
        else:
            writer = ModelWriter(content, folder)
            files = [writer.write(record) for record in result]
        write_report(result, files, content)
    return folder


@contextmanager
def appearing(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder to write into, which takes the place of ``folder`` once all is written, and vanishes if that fails.

    Raises what ``save_result`` does about ``folder``.
    """
    place = folder.resolve()
    require_replaceable(place, overwrite=overwrite)
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        content = temporary / "new"
        content.mkdir()
        yield content
        if place.exists():
            place.rename(temporary / "old")
        try:
            content.rename(place)
        except OSError:
            if (temporary / "old").exists():
                (temporary / "old").rename(place)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_report(result: Result, files: Sequence[str | None], content: Path) -> None:
    """Write ``result.json``, with the file of each record."""
    written = sorted(p.relative_to(content).as_posix() for p in content.rglob("*") if p.is_file())
    text = {"format": result.format, "format_version": FORMAT_VERSION, **result.to_dict(), "files": [*written, RESULT]}
    text["records"] = [{**record, "file": file} for record, file in zip(text["records"], files, strict=True)]
    write_atomically(content / RESULT, (json.dumps(text, indent=1, allow_nan=False) + "\n").encode())


class ModelWriter:
    """Writes models as ``save_result`` tells into ``content``, the folder that will be at ``folder``."""

    def __init__(self, content: Path, folder: Path) -> None:
        self._content = content
        self._place = folder.resolve()
        self._taken = {RESULT}

    def write(self, record: Record) -> str | None:
        """Write a record's model under a name of its own, and give its main file; None for one that was refused.

        Raises ``FileExistsError`` for a refused file inside ``folder``, which would be lost with it.
        """
        if record.status == "refused":
            self._require_no_source(record)
            return None
        contents = self._contents(record)
        for file, data in contents.items():
            (self._content / file).parent.mkdir(exist_ok=True)
            write_atomically(self._content / file, data)
        return _main_file(contents)

    def _contents(self, record: Record) -> dict[str, bytes]:
        """The files of a record's model, by names that none has yet."""
        ends = _files(record)
        name, number = record.name, 1
        # Some file systems do not tell case apart.
        while self._taken & (tops := {f"{name}{end}".partition("/")[0].casefold() for end in ends}):
            number += 1
            name = f"{record.name}-{number}"
        self._taken |= tops
        return {f"{name}{end}": data for end, data in ends.items()}

    def _require_no_source(self, record: Record) -> None:
        if isinstance(record.model, str | os.PathLike) and self._place in Path(record.model).resolve().parents:
            raise FileExistsError(
                f"{self._place}: it will not be overwritten, because it holds the refused {record.model}"
            )


def _files(record: Record) -> dict[str, bytes]:
    """The files of a record's model, by what stands behind its name."""
    from metaedit_fast.models.convert import open_model
    from metaedit_fast.models.onnx import mlp_to_onnx

    if record.kind == "safetensors":
        files: dict[str, bytes] = record.model.files()
        return files
    model = record.model if record.kind == "onnx" else mlp_to_onnx(open_model(record.model).mlp)
    return {".onnx": model.SerializeToString()}


def _main_file(contents: dict[str, bytes]) -> str | None:
    """What a reader opens: the file of the model, or its folder."""
    return next((file.partition("/")[0] for file in contents), None)


def require_replaceable(folder: Path, *, overwrite: bool) -> None:
    """Raise ``FileExistsError`` unless a result may be written at ``folder``; see ``save_result``."""
    place = folder.resolve()
    for outer in place.parents:
        if (outer / MANIFEST).exists():
            raise FileExistsError(f"{place}: expected a folder outside of the population {outer}")
    if not place.exists():
        return
    if not place.is_dir():
        raise FileExistsError(f"{place}: expected a folder or nothing there, got a file")
    present = {p.relative_to(place).as_posix() for p in place.rglob("*") if not p.is_dir()}
    if not present:
        return
    if not overwrite:
        raise FileExistsError(f"{place}: expected a new or empty folder; overwrite replaces a former result")
    foreign = sorted(present - _listed_files(place))
    if foreign:
        raise FileExistsError(
            f"{place}: it will not be overwritten, because it holds files of no former result, such as {foreign[0]!r}"
        )


def _listed_files(place: Path) -> set[str]:
    try:
        former: Any = json.loads((place / RESULT).read_text())
        return set(former["files"]) if former["format"] in FORMATS else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()
