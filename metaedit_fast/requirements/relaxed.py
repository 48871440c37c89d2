"""Masks with a gradient, for training, of many models at once; needs torch.

Scores of all models lie one after the other; ``sizes[m]`` of them are model ``m``'s.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metaedit_fast.requirements.masks import top_k_mask

_EPSILON = 1e-9


def relaxed_top_k(scores: Tensor, sizes: Sequence[int], kept: Sequence[int], temperature: float) -> Tensor:
    """Mask of the ``kept[m]`` highest scores of each model, 0 and 1, ``[W]`` as the scores.

    Exact forward (``masks.top_k_mask``). Backward is that of ``soft = sigmoid((scores - threshold) / temperature)``,
    where the threshold lies half-way between the last score kept and the first one not, and itself moves with the
    scores so that the sum of ``soft`` stays (implicit gradient)::

        d mask_i / d scores_j = s_i (δ_ij - s_j / Σ s) / temperature,    s = soft (1 - soft)

    No gradient passes where all scores of a model are kept.
    """
    mask: Tensor = top_k(scores, list(sizes), list(kept), temperature)[0]
    return mask


@torch.library.custom_op("metaedit::top_k", mutates_args=(), device_types="cpu")
def top_k(scores: Tensor, sizes: Sequence[int], kept: Sequence[int], temperature: float) -> tuple[Tensor, Tensor]:
    """``relaxed_top_k`` and the slope ``s`` of its sigmoid, which has no gradient.

    Raises ``ValueError`` where a score is NaN or the sizes do not add up to the scores.
    """
    if sum(sizes) != len(scores):
        raise ValueError(f"sizes: expected {len(scores)} scores in all, got {sum(sizes)}")
    values = scores.detach().numpy()
    mask, threshold = np.empty_like(values), np.full(len(sizes), -np.inf, values.dtype)
    for model, (start, n, k) in enumerate(zip(_starts(sizes), sizes, kept, strict=True)):
        own = values[start : start + n]
        chosen = top_k_mask(own, k)
        mask[start : start + n] = chosen
        if k < n:
            threshold[model] = (own[chosen].min() + own[~chosen].max()) / 2
    soft = torch.sigmoid((scores - torch.from_numpy(np.repeat(threshold, sizes))) / temperature)
    return torch.from_numpy(mask), soft * (1 - soft)


@top_k.register_fake
def _(scores: Tensor, sizes: Sequence[int], kept: Sequence[int], temperature: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(scores), torch.empty_like(scores)


@torch.library.custom_op("metaedit::top_k_backward", mutates_args=(), device_types="cpu")
def top_k_backward(gradient: Tensor, slope: Tensor, sizes: Sequence[int], temperature: float) -> Tensor:
    """From the gradient of the mask to that of the scores."""
    g, s = gradient.numpy(), slope.numpy()
    starts = _starts(sizes)
    mean = np.add.reduceat(g * s, starts) / (np.add.reduceat(s, starts) + _EPSILON)
    return torch.from_numpy(s * (g - np.repeat(mean, sizes)) / temperature)


@top_k_backward.register_fake
def _(gradient: Tensor, slope: Tensor, sizes: Sequence[int], temperature: float) -> Tensor:
    return torch.empty_like(slope)


def _keep_slope(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, ctx.sizes, _, ctx.temperature = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


def _to_scores(ctx: Any, of_mask: Tensor, _: Tensor | None) -> tuple[Tensor, None, None, None]:
    (slope,) = ctx.saved_tensors
    return top_k_backward(of_mask.contiguous(), slope, ctx.sizes, ctx.temperature), None, None, None


top_k.register_autograd(_to_scores, setup_context=_keep_slope)


def _starts(sizes: Sequence[int]) -> list[int]:
    return [0, *itertools.accumulate(sizes)][:-1]
