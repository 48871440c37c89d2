"""The published tables, where the machine has them, and a cache that no test shares with the user."""

import gzip
import os
from pathlib import Path

import pytest

from metaedit_fast.datasets import Dataset, load_dataset

PLACE = Path(os.environ.get("METAEDIT_SHARED_DATA") or Path(__file__).parents[2].parent / "shared" / "data")


@pytest.fixture(autouse=True)
def empty_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "metaedit_fast"


@pytest.fixture(scope="session")
def tables() -> Path:
    if not (PLACE / "adult.csv.gz").is_file():
        pytest.skip(f"no tables in {PLACE}; set METAEDIT_SHARED_DATA")
    return PLACE


@pytest.fixture(scope="session")
def adult(tables: Path) -> Dataset:
    return load_dataset("adult", folder=tables)


@pytest.fixture(scope="session")
def raw_adult(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with adult.data and adult.test as UCI publishes them, rebuilt from the table."""
    folder = tmp_path_factory.mktemp("uci")
    lines = gzip.decompress((tables / "adult.csv.gz").read_bytes()).decode().splitlines()[1:]
    parts = {"train": "", "test": "|1x3 Cross validator\n"}
    for line in lines:
        *cells, split = line.split(",")
        parts[split] += ", ".join(cells) + (".\n" if split == "test" else "\n")
    (folder / "adult.data").write_text(parts["train"] + "\n")
    (folder / "adult.test").write_text(parts["test"] + "\n")
    return folder
