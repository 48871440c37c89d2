"""Exact budgets: how many weights are kept, and which."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from metaedit_fast.requirements.masks import kept_count, top_k_mask


@pytest.mark.parametrize(
    ("n_weights", "sparsity", "kept"),
    [(1000, 0.0, 1000), (1000, 0.9, 100), (5, 0.5, 2), (7, 0.5, 4), (10, 0.99, 1), (3, 0.999, 1), (2560, 0.95, 128)],
)
def test_kept_count(n_weights: int, sparsity: float, kept: int) -> None:
    assert kept_count(n_weights, sparsity) == kept
    assert isinstance(kept_count(n_weights, np.float32(sparsity)), int)


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 2.0, float("nan")])
def test_an_impossible_sparsity_is_refused(sparsity: float) -> None:
    with pytest.raises(ValueError, match="sparsity"):
        kept_count(10, sparsity)


def test_a_network_without_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="n_weights"):
        kept_count(0, 0.5)


@settings(deadline=None)
@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_kept_count_is_within_half_a_weight(n_weights: int, sparsity: float) -> None:
    kept = kept_count(n_weights, sparsity)
    assert 1 <= kept <= n_weights
    assert kept == 1 or abs(kept - (1 - sparsity) * n_weights) <= 0.5


VALUES = stn.arrays(np.float32, st.integers(0, 40), elements=st.sampled_from([-np.inf, -1, -0.0, 0.0, 0.5, 2, np.inf]))


@settings(deadline=None)
@given(VALUES, st.data())
def test_the_mask_is_that_of_a_stable_sort(scores: np.ndarray, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, scores.size))
    expected = np.zeros(scores.size, bool)
    expected[sorted(range(scores.size), key=lambda i: (-scores[i], i))[:k]] = True
    assert np.array_equal(top_k_mask(scores, k), expected)


@settings(deadline=None)
@given(stn.arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6), unique=True), st.randoms())
def test_the_mask_follows_the_order_of_distinct_scores(scores: np.ndarray, random) -> None:
    k = random.randint(0, scores.size)
    order = np.array(random.sample(range(scores.size), scores.size))
    assert np.array_equal(top_k_mask(scores[order], k), top_k_mask(scores, k)[order])


def test_bad_scores_are_named() -> None:
    with pytest.raises(ValueError, match="NaN at index 2"):
        top_k_mask([1.0, np.inf, np.nan], 0)
    with pytest.raises(ValueError, match="one dimension"):
        top_k_mask(np.zeros((2, 2)), 1)
    for k in (-1, 4):
        with pytest.raises(ValueError, match="0 <= k <= 3"):
            top_k_mask(np.zeros(3), k)
