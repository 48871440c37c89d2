"""Tables as numbers: the 121-UCI form, in the paper's standardisation and in a leak-free one.

A category at position k of n becomes ``2k/(n-1) - 1``, ``?`` becomes 0, numbers stay; then each column is
standardised. Nothing is dropped and nothing is one-hot (adult 14 columns, bank 16).
"""

from __future__ import annotations

import csv
import dataclasses
import io

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.datasets.tables import TableFacts


@dataclasses.dataclass(frozen=True)
class Table:
    """An encoded table, not yet standardised.

    ``codes`` float64 ``[rows, features]``; ``labels`` int64 ``[rows]`` (1 = positive); ``is_test`` bool
    ``[rows]`` is the published division, or None; ``sensitive`` int64 ``[rows]`` an attribute: the position
    of the category (-1 for ``?``), or the number itself for a numeric column.
    """

    codes: NDArray[np.float64]
    labels: NDArray[np.int64]
    is_test: NDArray[np.bool_] | None
    sensitive: dict[str, NDArray[np.int64]]


def encode(facts: TableFacts, text: bytes) -> Table:
    """Encode a canonical text."""
    delimiter = "," if facts.name == "adult" else ";"
    rows = list(csv.reader(io.StringIO(text.decode("ascii")), delimiter=delimiter))
    columns = dict(zip(facts.columns, zip(*rows[1:], strict=True), strict=True))
    codes = np.empty((len(rows) - 1, len(facts.features)))
    sensitive: dict[str, NDArray[np.int64]] = {}
    for j, name in enumerate(facts.features):
        order = facts.categories.get(name)
        if order is None:
            codes[:, j] = [float(cell) for cell in columns[name]]
            positions = codes[:, j].astype(np.int64)
        else:
            index = {category: k for k, category in enumerate(order)} | {"?": -1}
            positions = np.array([index[cell] for cell in columns[name]], dtype=np.int64)
            codes[:, j] = np.where(positions < 0, 0.0, 2 * positions / (len(order) - 1) - 1)
        if name in facts.sensitive:
            sensitive[name] = positions
    labels = np.array([cell == facts.positive for cell in columns[facts.target]], dtype=np.int64)
    is_test = np.array(columns["split"]) == "test" if "split" in columns else None
    return Table(codes, labels, is_test, sensitive)


def standardise_121uci(table: Table) -> NDArray[np.float64]:
    """The paper's form: mean and sample deviation (ddof = 1) of all rows, of each published part where there is one.

    The statistics include test rows, so test rows leak into training; use it to compare with the paper only.
    """
    out = np.empty_like(table.codes)
    everything = np.ones(len(out), dtype=bool)
    parts = [everything] if table.is_test is None else [~table.is_test, table.is_test]
    for part in parts:
        rows = table.codes[part]
        out[part] = (rows - rows.mean(axis=0)) / rows.std(axis=0, ddof=1)
    return out


def text_121uci(values: NDArray[np.float64]) -> bytes:
    """The form as the collection writes it: six significant digits, a comma, one row a line."""
    line = ",".join(["%g"] * values.shape[1]) + "\n"
    return "".join(line % tuple(row) for row in values.tolist()).encode()
