"""Encoding, standardisation and splits."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from metaedit_fast.datasets import Dataset, encoding, load_dataset, sources
from metaedit_fast.datasets.tables import ADULT, BANK, TABLES, TableFacts


@pytest.mark.parametrize("facts", [ADULT, BANK], ids=lambda f: f.name)
def test_121uci_form_is_that_of_the_paper_byte_for_byte(tables: Path, facts: TableFacts) -> None:
    table = encoding.encode(facts, sources.find_text(facts.name, folder=tables))
    text = encoding.text_121uci(encoding.standardise_121uci(table))
    assert hashlib.sha256(text).hexdigest() == facts.form_sha256


@pytest.mark.parametrize(("name", "features", "n_test"), [("adult", 14, 16281), ("bank", 16, 1130)])
def test_splits_and_leak_free_statistics(tables: Path, adult: Dataset, name: str, features: int, n_test: int) -> None:
    data = adult if name == "adult" else load_dataset(name, folder=tables)
    parts = (data.train, data.val, data.test)
    assert data.X_train.dtype == np.float32
    assert data.n_features == data.X_test.shape[1] == features == len(data.feature_names)
    everything = np.sort(np.concatenate([p.index for p in parts]))
    assert np.array_equal(everything, np.arange(TABLES[name].rows))
    assert len(data.test) == n_test
    assert abs(len(data.val) / (len(data.val) + len(data.train)) - 0.2) < 1e-3
    rows = data.X_train.astype(np.float64)
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(rows.std(axis=0), 1, atol=1e-6)
    # Statistics of the training rows alone do not centre the others exactly.
    assert np.abs(data.X_test.mean(axis=0)).max() > 1e-3
    rates = [p.y.mean() for p in parts]
    assert max(rates) - min(rates) < 0.02


def test_codes_and_sensitive_attributes(tables: Path, adult: Dataset) -> None:
    data = load_dataset("adult", folder=tables, standardise="none")
    sex = data.feature_names.index("sex")
    assert data.groups["sex"] == ("Male", "Female")
    np.testing.assert_array_equal(data.train.x[:, sex], 2 * data.train.sensitive["sex"] - 1)
    np.testing.assert_array_equal(data.test.sensitive["age"], data.X_test[:, 0].astype(int))
    country = data.feature_names.index("native-country")
    missing = data.train.sensitive["native-country"] == -1
    assert missing.any()
    assert (data.train.x[missing, country] == 0).all()
    restored = adult.X_train * adult.deviation + adult.mean
    np.testing.assert_allclose(restored, data.X_train, rtol=1e-4, atol=1e-3)


def test_121uci_option_centres_each_part(tables: Path, adult: Dataset) -> None:
    leaky = load_dataset("adult", folder=tables, standardise="121uci")
    assert leaky.mean is None
    np.testing.assert_allclose(leaky.X_test.mean(axis=0, dtype=np.float64), 0, atol=1e-6)
    assert leaky.fingerprint != adult.fingerprint
    np.testing.assert_array_equal(leaky.val.index, adult.val.index)


def test_the_seed_decides_the_splits(tables: Path) -> None:
    first, again, other = (load_dataset("bank", folder=tables, seed=seed) for seed in (0, 0, 1))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    np.testing.assert_array_equal(first.X_train, again.X_train)
    assert not np.array_equal(first.test.index, other.test.index)


def test_bank_full_contains_bank(tables: Path) -> None:
    full = load_dataset("bank-full", folder=tables, standardise="none")
    small = load_dataset("bank", folder=tables, standardise="none")
    rows = {tuple(r) for part in (full.train, full.val, full.test) for r in part.x.tolist()}
    assert all(tuple(r) in rows for r in small.X_test.tolist())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "iris"}, "dataset: expected one of"),
        ({"name": "adult", "standardise": "yes"}, "standardise: expected"),
        ({"name": "adult", "validation": 0.0}, "validation: expected a fraction"),
        ({"name": "bank", "test": 1.5}, "test: expected a fraction"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_dataset(**options)
