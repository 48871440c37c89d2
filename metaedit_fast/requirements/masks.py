"""Which weights an exact budget keeps: how many, and which ones by rank of a score."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def kept_count(n_weights: int, sparsity: float) -> int:
    """Weights that a model of ``n_weights`` keeps at ``sparsity``, the fraction that is removed.

    ``max(1, round((1 - sparsity) * n_weights))`` with Python's rounding: to the nearest integer, an
    exact half to the even one. Sparsity 0 keeps all; at least one weight stays.

    Raises ``ValueError`` unless ``0 <= sparsity < 1`` and ``n_weights > 0``.
    """
    if not 0.0 <= sparsity < 1.0:
        raise ValueError(f"sparsity: expected 0 <= sparsity < 1, got {sparsity!r}")
    if n_weights < 1:
        raise ValueError(f"n_weights: expected a positive number, got {n_weights!r}")
    return max(1, round((1.0 - float(sparsity)) * n_weights))


def top_k_mask(scores: ArrayLike, k: int) -> NDArray[np.bool_]:
    """Mask of the ``k`` highest ``scores``; exactly ``k`` entries are True.

    ``scores`` is ``[E]``, infinities allowed. Of equal scores the one with the lower index is kept,
    so the mask depends on nothing but the scores. Takes O(E).

    Raises ``ValueError`` where a score is NaN, ``scores`` is not one-dimensional, or ``k`` is not in
    ``0..E``.
    """
    values = np.asarray(scores)
    if values.ndim != 1:
        raise ValueError(f"scores: expected one dimension, got shape {values.shape}")
    if not 0 <= k <= values.size:
        raise ValueError(f"k: expected 0 <= k <= {values.size}, got {k!r}")
    nan = np.isnan(values)
    if nan.any():
        raise ValueError(f"scores: expected numbers, got NaN at index {int(nan.argmax())}")
    if k == 0:
        return np.zeros(values.size, np.bool_)
    threshold = np.partition(values, values.size - k)[values.size - k]
    mask: NDArray[np.bool_] = values > threshold
    tied = np.flatnonzero(values == threshold)
    mask[tied[: k - int(np.count_nonzero(mask))]] = True
    return mask
