"""Masks with a gradient: exact forward, and backward as the plain formula has it, model by model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metaedit_fast.requirements.masks import kept_count, top_k_mask
from metaedit_fast.requirements.pruning import Pruning
from metaedit_fast.requirements.relaxed import relaxed_top_k, top_k
from metaedit_fast.training import reference


def gradient_of(mask: Tensor, scores: Tensor, weight: Tensor) -> Tensor:
    if not mask.requires_grad:  # the plain form keeps no graph where all is kept
        return torch.zeros_like(scores)
    return torch.autograd.grad((mask * weight).sum(), scores)[0]


@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=5), sparsity=st.floats(0, 0.99), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_model_has_its_exact_mask_and_the_plain_gradient(
    sizes: list[int], sparsity: float, seed: int, dtype: torch.dtype
) -> None:
    rng = np.random.default_rng(seed)
    drawn = torch.from_numpy(rng.normal(size=sum(sizes)))
    if seed % 3 == 0:
        drawn = drawn.round(decimals=1)  # ties
    scores, weight = drawn.to(dtype).requires_grad_(), torch.from_numpy(rng.normal(size=sum(sizes))).to(dtype)
    budgets = [sparsity] * len(sizes)
    mask = Pruning().relaxed_mask(scores, sizes, budgets)
    gradient = gradient_of(mask, scores, weight)
    start = 0
    for n in sizes:
        own = slice(start, start + n)
        alone = scores[own].detach().requires_grad_()
        kept = kept_count(n, sparsity)
        exact = top_k_mask(alone.detach().numpy(), kept)
        np.testing.assert_array_equal(mask[own].detach().numpy(), exact)
        wanted = gradient_of(reference.relaxed_top_k(alone, kept), alone, weight[own])
        tolerance = 1e-5 if dtype == torch.float32 else 1e-12
        assert (gradient[own] - wanted).norm() <= tolerance * (1 + wanted.norm())
        # The number kept is fixed, so shifting all scores alike changes nothing.
        assert abs(float(gradient[own].sum())) < 1e-5 * max(1.0, float(gradient[own].abs().sum()))
        assert bool(gradient[own].any()) == (1 < n > kept)
        start += n


def test_torch_finds_no_fault() -> None:
    scores = torch.randn(11, generator=torch.Generator().manual_seed(0), requires_grad=True)
    torch.library.opcheck(top_k, (scores, [5, 6], [2, 6], 1.0))


def test_it_compiles() -> None:
    scores = torch.randn(11, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weight = torch.arange(11.0)

    def total(s: Tensor) -> Tensor:
        return (relaxed_top_k(2 * s, [5, 6], [2, 3], 1.0) * weight).sum()

    traced = torch.compile(total, fullgraph=True, backend="aot_eager")(scores)
    assert torch.equal(total(scores), traced)
    assert torch.equal(*(torch.autograd.grad(value, scores)[0] for value in (total(scores), traced)))


def test_wrong_sizes_and_nan_are_named() -> None:
    with pytest.raises(ValueError, match="sizes: expected 3 scores in all, got 4"):
        relaxed_top_k(torch.ones(3), [4], [1], 1.0)
    with pytest.raises(ValueError, match="scores: expected numbers, got NaN at index 1"):
        relaxed_top_k(torch.tensor([1.0, 0.0, float("nan")]), [1, 2], [1, 1], 1.0)
