"""``Table`` and the files it is read from."""

from __future__ import annotations

import math

import numpy as np
import pytest

import metaedit_fast as mf
from metaedit_fast.data import as_table, read_table

X = np.arange(12, dtype=np.float32).reshape(4, 3)
Y = np.array([0, 1, 1, 0])


def test_arrays_lists_and_frames_give_equal_rows():
    pandas = pytest.importorskip("pandas")
    torch = pytest.importorskip("torch")
    for given in (X, X.astype(np.float64), X.tolist(), np.asfortranarray(X), pandas.DataFrame(X), torch.from_numpy(X)):
        table = mf.Table(given, Y, sensitive=["a", "b", "a", "b"])
        assert table.X.dtype == np.float32
        assert table.X.flags.c_contiguous
        assert np.array_equal(table.X, X)
        assert table.y.dtype == np.int64
        assert (len(table), table.n_features) == (4, 3)
        assert list(table.sensitive) == ["a", "b", "a", "b"]
    assert repr(mf.Table(X, Y)) == "Table(4 rows, 3 features, y)"


def test_float32_rows_are_not_copied():
    assert np.shares_memory(mf.Table(X).X, X)


def test_labels_may_be_bool_or_whole_floats():
    assert list(mf.Table(X, Y.astype(bool)).y) == list(Y)
    assert list(mf.Table(X, Y.astype(float)).y) == list(Y)


def test_take_keeps_rows_together():
    part = mf.Table(X, Y, sensitive=Y + 5).take(np.array([2, 0]))
    assert np.array_equal(part.X, X[[2, 0]])
    assert list(part.y) == [1, 0]
    assert list(part.sensitive) == [6, 5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones(3),), r"X: expected shape \[rows, features\]"),
        ((np.ones((2, 3, 4)),), r"X: expected shape"),
        ((np.ones((0, 3)),), r"at least one of each, got \(0, 3\)"),
        ((5.0,), r"X: expected shape"),
        (([["a", "b"]],), "X: expected numbers"),
        (([[1.0], [1.0, 2.0]],), "X: expected numbers"),
        (([[1.0], [math.nan]],), "row 1 has NaN or infinity"),
        (([[1e39]],), "row 0 has NaN or infinity"),
        ((X, [0, 1]), r"y: expected shape \(4,\)"),
        ((X, [0, 1, -1, 0]), "y: expected class indices 0, 1, ..., got -1"),
        ((X, ["no", "yes", "no", "no"]), "y: expected class indices"),
        ((X, [0.5, 1, 1, 0]), "y: expected class indices"),
    ],
)
def test_what_is_no_table(arguments, message):
    with pytest.raises(ValueError, match=message):
        mf.Table(*arguments)


def test_groups_of_another_length():
    with pytest.raises(ValueError, match="sensitive: expected shape"):
        mf.Table(X, sensitive=[1])


def test_as_table():
    from metaedit_fast.datasets import Rows

    table = mf.Table(X)
    assert as_table(table) is table
    rows = Rows(X, Y, np.arange(4), {"sex": Y})
    assert np.array_equal(as_table(rows).y, Y)
    assert as_table(X).y is None


def write(folder, kind):
    import pyarrow as pa
    from pyarrow import csv, parquet

    table = pa.table({"a": X[:, 0], "target": Y, "b": X[:, 1].astype(int), "c": X[:, 2], "sex": ["m", "f", "f", "m"]})
    path = folder / f"rows.{kind}"
    if kind == "csv":
        csv.write_csv(table, path)
    elif kind == "parquet":
        parquet.write_table(table, path)
    else:
        np.savez(path, X=X, target=Y, sex=np.array(["m", "f", "f", "m"]))
    return path


@pytest.mark.parametrize("kind", ["csv", "parquet", "npz"])
def test_files(tmp_path, kind):
    table = read_table(write(tmp_path, kind), label="target", sensitive="sex")
    assert np.array_equal(table.X, X)
    assert np.array_equal(table.y, Y)
    assert list(table.sensitive) == ["m", "f", "f", "m"]
    with pytest.raises(ValueError, match="'income'"):
        read_table(write(tmp_path, kind), label="income", sensitive="sex")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_column_of_text_is_named(tmp_path, kind):
    with pytest.raises(ValueError, match=r"column 'sex' .* holds string"):
        read_table(write(tmp_path, kind), label="target")


def test_missing_cells_are_found(tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n,4\n")
    with pytest.raises(ValueError, match="row 1 has NaN"):
        read_table(tmp_path / "rows.csv")


def test_an_archive_may_hold_rows_alone(tmp_path):
    np.savez(tmp_path / "rows.npz", X=X)
    assert read_table(tmp_path / "rows.npz").y is None
    np.savez(tmp_path / "rows.npz", rows=X)
    with pytest.raises(ValueError, match=r"expected an array 'X'.*got \['rows'\]"):
        read_table(tmp_path / "rows.npz")


def test_pickles_are_refused(tmp_path):
    np.savez(tmp_path / "rows.npz", X=np.array([object()], dtype=object))
    with pytest.raises(ValueError, match="no NumPy archive of plain arrays"):
        read_table(tmp_path / "rows.npz")


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet", "rows.npz"])
@pytest.mark.parametrize("content", [b"", b"\xff\x00" * 40])
def test_damaged_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="rows"):
        read_table(tmp_path / name)


def test_files_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        read_table(tmp_path / "gone.csv")
    (tmp_path / "rows.pkl").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"expected a file of \.csv, \.parquet, \.npz"):
        read_table(tmp_path / "rows.pkl")
