"""The neuron permutations that leave the function of an MLP unchanged.

Hidden neurons of one layer may change places together with their weights. A skip ``(s, t)`` adds
output k of layer s to neuron k of layer t, so it ties both neurons: they move together or not at all.
Neurons tied to one another, over any chain of skips, form a *strand*; it has at most one neuron in
each layer, always of the same index. Two strands may swap when they pass through the same layers;
strands that reach the inputs stay where they are, and so do the outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec

Indices = NDArray[np.intp]


def exchangeable(spec: MLPSpec) -> list[tuple[tuple[int, ...], Indices]]:
    """Groups ``(neuron layers, indices)``: within a group, indices may be permuted in all its layers at once.

    The groups are disjoint; a hidden neuron in none of them is tied to an input. Together their
    permutations are all that preserve skips, inputs and outputs.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for k in range(max(spec.widths[1:-1], default=0)):
        for strand in strands_at(spec, k):
            if 0 not in strand:
                groups.setdefault(strand, []).append(k)
    return [(layers, np.array(found)) for layers, found in groups.items()]


def strands_at(spec: MLPSpec, k: int) -> list[tuple[int, ...]]:
    """The neuron layers of each strand through index ``k``, outputs left out."""
    strands = [{t} for t, width in enumerate(spec.widths[:-1]) if width > k]
    for ends in spec.skips:
        if min(spec.widths[ends[0]], spec.widths[ends[1]]) > k:
            touched = [strand for strand in strands if not strand.isdisjoint(ends)]
            strands = [strand for strand in strands if strand.isdisjoint(ends)] + [set[int]().union(*touched)]
    return [tuple(sorted(strand)) for strand in strands]


def random_permutations(spec: MLPSpec, rng: np.random.Generator) -> list[Indices]:
    """A uniform draw from the valid permutations, one per neuron layer, inputs and outputs included."""
    permutations: list[Indices] = [np.arange(width) for width in spec.widths]
    for layers, indices in exchangeable(spec):
        shuffled = rng.permutation(indices)
        for t in layers:
            permutations[t][indices] = shuffled
    return permutations


def theta_order(spec: MLPSpec, permutations: Sequence[Indices]) -> Indices:
    """Where each parameter comes from: ``θ[order]`` is θ with neuron ``permutations[t][k]`` moved to place ``k``.

    ``order[:spec.n_weights]`` does the same for any vector over the edges.
    Raises ``ValueError`` where the permutations would change the function of the MLP.
    """
    _check(spec, permutations)
    order = np.empty(spec.n_parameters, np.intp)
    for kind, i, where, shape in spec.parameter_slices:
        places = np.arange(where.start, where.stop).reshape(shape)
        if kind == "weight":
            places = places[permutations[i]]
        order[where] = places[..., permutations[i + 1]].ravel()
    return order


def permute_neurons(mlp: MLP, permutations: Sequence[Indices]) -> MLP:
    """The same function with its hidden neurons in another order.

    Place ``k`` of neuron layer ``t`` gets neuron ``permutations[t][k]``.
    Raises ``ValueError`` where the permutations would change the function.
    """
    return mlp.replace(mlp.theta[theta_order(mlp.spec, permutations)])


def _check(spec: MLPSpec, permutations: Sequence[Indices]) -> None:
    if len(permutations) != len(spec.widths):
        raise ValueError(f"permutations: expected one per neuron layer ({len(spec.widths)}), got {len(permutations)}")
    for t, (order, width) in enumerate(zip(permutations, spec.widths, strict=True)):
        if not np.array_equal(np.sort(order), np.arange(width)):
            raise ValueError(f"permutations[{t}]: expected a permutation of {width} neurons, got {order!r}")
    for t in (0, len(spec.layers)):
        if not np.array_equal(permutations[t], np.arange(spec.widths[t])):
            raise ValueError(f"permutations[{t}]: inputs and outputs must keep their places")
    for s, t in spec.skips:
        shared = min(spec.widths[s], spec.widths[t])
        tied = np.asarray(permutations[s][:shared]), np.asarray(permutations[t][:shared])
        if not np.array_equal(*tied) or (tied[0] >= shared).any():
            raise ValueError(f"permutations[{s}] and [{t}]: a skip ties their first {shared} neurons, got {tied}")
