"""A small learnable table, and the real one where the machine has it."""

import os
from pathlib import Path

import numpy as np
import pytest

from metaedit_fast.datasets import Dataset, Rows, load_dataset

PLACE = Path(os.environ.get("METAEDIT_SHARED_DATA") or Path(__file__).parents[2].parent / "shared" / "data")
N_FEATURES = 5


@pytest.fixture(scope="session")
def toy() -> Dataset:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(700, N_FEATURES)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] + 0.5 * x[:, 2] + 0.3 * rng.normal(size=len(x)) > 0).astype(np.int64)

    def rows(a: int, b: int) -> Rows:
        return Rows(x[a:b], y[a:b], np.arange(a, b), {})

    names = tuple(f"x{i}" for i in range(N_FEATURES))
    parts = (rows(0, 400), rows(400, 550), rows(550, 700))
    zeros = np.zeros(N_FEATURES)
    return Dataset("toy", *parts, names, ("no", "yes"), {}, zeros, zeros + 1, "0" * 64, "toy-fingerprint", "made up")


@pytest.fixture(scope="session")
def adult() -> Dataset:
    if not (PLACE / "adult.csv.gz").is_file():
        pytest.skip(f"no tables in {PLACE}; set METAEDIT_SHARED_DATA")
    return load_dataset("adult", folder=PLACE, download=False)
