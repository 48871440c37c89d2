"""Rows that an edit may look at: a probe for editors that read activations, rows for refinement and metrics."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metaedit_fast.datasets.load import Rows

if TYPE_CHECKING:
    import pyarrow as pa

MAX_FILE_BYTES = 4 << 30


@dataclasses.dataclass(frozen=True, eq=False, repr=False, init=False)
class Table:
    """Rows in the form that the models were trained on.

    ``X`` is float32 ``[rows, features]``, finite. ``y``, optional, is int64 ``[rows]``: the index of the
    right class in the order of the model's outputs (for scikit-learn, the position in ``classes_``).
    ``sensitive``, optional, is any array ``[rows]``: the group of each row.

    Takes arrays, tensors on the CPU, lists and data frames, and copies only to convert.
    Raises ``ValueError`` that names the argument.
    """

    X: NDArray[np.float32]
    y: NDArray[np.int64] | None
    sensitive: NDArray[Any] | None

    def __init__(self, X: ArrayLike, y: ArrayLike | None = None, *, sensitive: ArrayLike | None = None) -> None:
        rows = _rows(X)
        object.__setattr__(self, "X", rows)
        object.__setattr__(self, "y", None if y is None else _labels(y, len(rows)))
        object.__setattr__(self, "sensitive", None if sensitive is None else _groups(sensitive, len(rows)))

    def __len__(self) -> int:
        return len(self.X)

    @property
    def n_features(self) -> int:
        """Columns of ``X``."""
        return int(self.X.shape[1])

    def take(self, index: NDArray[np.intp]) -> Table:
        """The rows of ``index``, in its order."""
        y = None if self.y is None else self.y[index]
        return Table(self.X[index], y, sensitive=None if self.sensitive is None else self.sensitive[index])

    def __repr__(self) -> str:
        given = [name for name in ("y", "sensitive") if getattr(self, name) is not None]
        return f"Table({len(self)} rows, {self.n_features} features{''.join(f', {name}' for name in given)})"


def as_table(data: Table | Rows | ArrayLike) -> Table:
    """``data`` itself where it is a ``Table``, a split of a dataset with its labels, or rows without labels."""
    if isinstance(data, Rows):
        return Table(data.x, data.y)
    return data if isinstance(data, Table) else Table(data)


def read_table(path: str | Path, *, label: str | None = None, sensitive: str | None = None) -> Table:
    """A table from a ``.csv`` file with a header, a ``.parquet`` file, or an ``.npz`` file.

    ``label`` and ``sensitive`` name a column; all other columns are features, in the order of the file.
    An ``.npz`` file holds the arrays ``X`` and, optionally, ``y`` and ``sensitive`` under these names
    (or the names that are given); object arrays are refused, because they are pickles.

    Raises ``ValueError`` that names the file and what is wrong with it.
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"data: there is no file {str(file)!r}")
    if file.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"data: {str(file)!r} is larger than {MAX_FILE_BYTES >> 30} GiB")
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".npz": _read_npz}
    if file.suffix.lower() not in readers:
        raise ValueError(f"data: expected a file of {', '.join(readers)}, got {str(file)!r}")
    return readers[file.suffix.lower()](file, label, sensitive)


def _rows(X: ArrayLike) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):  # what does not fit float32 is found below, as an infinity
            rows = np.ascontiguousarray(X, dtype=np.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"X: expected numbers of shape [rows, features]: {error}") from error
    if np.ndim(X) != 2 or 0 in rows.shape:  # ascontiguousarray itself turns a scalar into a row
        raise ValueError(f"X: expected shape [rows, features] with at least one of each, got {np.shape(X)}")
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise ValueError(f"X: expected finite numbers, but row {int(finite.argmin())} has NaN or infinity")
    return rows


def _labels(y: ArrayLike, n_rows: int) -> NDArray[np.int64]:
    given = np.asarray(y)
    if given.shape != (n_rows,):
        raise ValueError(f"y: expected shape ({n_rows},) as X has {n_rows} rows, got {given.shape}")
    if given.dtype.kind not in "biuf" or (given.dtype.kind == "f" and not (given == np.floor(given)).all()):
        raise ValueError(f"y: expected class indices 0, 1, ..., got values such as {given[0]!r}")
    if n_rows and given.min() < 0:
        raise ValueError(f"y: expected class indices 0, 1, ..., got {given.min()}")
    return np.ascontiguousarray(given, dtype=np.int64)


def _groups(sensitive: ArrayLike, n_rows: int) -> NDArray[Any]:
    groups = np.asarray(sensitive)
    if groups.shape != (n_rows,):
        raise ValueError(f"sensitive: expected shape ({n_rows},) as X has {n_rows} rows, got {groups.shape}")
    return groups


def _read_csv(file: Path, label: str | None, sensitive: str | None) -> Table:
    import pyarrow as pa
    from pyarrow import csv

    try:
        return _from_columns(file, csv.read_csv(file), label, sensitive)
    except pa.ArrowException as error:
        raise ValueError(f"data: {str(file)!r} is no CSV table: {error}") from error


def _read_parquet(file: Path, label: str | None, sensitive: str | None) -> Table:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return _from_columns(file, parquet.read_table(file), label, sensitive)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"data: {str(file)!r} is no Parquet table: {error}") from error


def _from_columns(file: Path, table: pa.Table, label: str | None, sensitive: str | None) -> Table:
    import pyarrow as pa

    for name in (label, sensitive):
        if name is not None and table.column_names.count(name) != 1:
            raise ValueError(f"data: expected one column {name!r} in {str(file)!r}, got {table.column_names}")
    features = [name for name in table.column_names if name not in (label, sensitive)]
    for name in features:
        kind = table.schema.types[table.column_names.index(name)]
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise ValueError(
                f"data: column {name!r} of {str(file)!r} holds {kind}, but features are numbers in the form the "
                "models were trained on; name the label's column if it is this one"
            )
    if not features:
        raise ValueError(f"data: {str(file)!r} has no feature columns")
    indices = [i for i, name in enumerate(table.column_names) if name in features]
    X = np.stack([table.column(i).to_numpy().astype(np.float32) for i in indices], axis=1)
    return Table(
        X,
        None if label is None else table.column(label).to_numpy(),
        sensitive=None if sensitive is None else table.column(sensitive).to_numpy(),
    )


def _read_npz(file: Path, label: str | None, sensitive: str | None) -> Table:
    names = ["X", label or "y", sensitive or "sensitive"]
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in names if name in archive}
            available = sorted(archive)
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, AttributeError, TypeError) as error:
        raise ValueError(f"data: {str(file)!r} is no NumPy archive of plain arrays: {error}") from error
    for name in ("X", label, sensitive):
        if name is not None and name not in arrays:
            raise ValueError(f"data: expected an array {name!r} in {str(file)!r}, got {available}")
    return Table(arrays["X"], arrays.get(names[1]), sensitive=arrays.get(names[2]))
