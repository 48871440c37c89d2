"""scikit-learn's digits as a ``Dataset``: a table of 64 columns and 10 classes that needs no download."""

from __future__ import annotations

import hashlib

import numpy as np

from metaedit_fast.datasets import Dataset, Rows

# Editors are trained on validation rows, of which they want 512; the rest is divided by what is left.
VALIDATION, TEST = 600, 400
ATTRIBUTION = (
    "Alpaydin, E. and Kaynak, C. (1998). Optical Recognition of Handwritten Digits. UCI Machine Learning Repository. "
    "doi:10.24432/C50P49. CC BY 4.0. The 1797 test rows, as scikit-learn has them; changed: standardised."
)


def digits() -> Dataset:
    """1797 rows, of which 797 are for training. Needs scikit-learn."""
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(values))
    parts = np.split(order, [VALIDATION, VALIDATION + TEST])
    train = values[parts[2]]
    # The corners are white on every image.
    mean, deviation = train.mean(axis=0), np.maximum(train.std(axis=0), 1.0)
    scaled = ((values - mean) / deviation).astype(np.float32)
    digest = hashlib.sha256(values.tobytes() + labels.tobytes()).hexdigest()

    def split(index: np.ndarray) -> Rows:
        index = np.sort(index)
        return Rows(scaled[index], labels[index].astype(np.int64), index, {})

    return Dataset(
        name="digits",
        train=split(parts[2]),
        val=split(parts[0]),
        test=split(parts[1]),
        feature_names=tuple(f"pixel {i // 8} {i % 8}" for i in range(64)),
        class_names=tuple(map(str, range(10))),
        groups={},
        mean=mean,
        deviation=deviation,
        sha256=digest,
        fingerprint=hashlib.sha256(f"digits {VALIDATION} {TEST} {digest}".encode()).hexdigest(),
        attribution=ATTRIBUTION,
    )
