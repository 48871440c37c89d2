"""Permutations of hidden neurons, ties by skips included."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec
from metaedit_fast.models.symmetry import exchangeable, permute_neurons, random_permutations, theta_order


def groups_of(spec: MLPSpec) -> dict[tuple[int, ...], list[int]]:
    return {layers: indices.tolist() for layers, indices in exchangeable(spec)}


def test_without_skips_each_hidden_layer_is_free() -> None:
    assert groups_of(MLPSpec.simple((3, 4, 2, 5))) == {(1,): [0, 1, 2, 3], (2,): [0, 1]}


def test_a_skip_ties_the_shared_neurons_only() -> None:
    spec = MLPSpec.simple((3, 6, 4, 2), skips=[(1, 2)])
    assert groups_of(spec) == {(1, 2): [0, 1, 2, 3], (1,): [4, 5]}


def test_a_skip_from_the_inputs_fixes_its_targets() -> None:
    spec = MLPSpec.simple((3, 5, 5, 2), skips=[(0, 1)])
    assert groups_of(spec) == {(1,): [3, 4], (2,): [0, 1, 2, 3, 4]}


def test_ties_travel_along_chains() -> None:
    spec = MLPSpec.simple((1, 8, 4, 6, 2), skips=[(1, 2), (2, 3)])
    assert groups_of(spec) == {(1, 2, 3): [0, 1, 2, 3], (1,): [4, 5, 6, 7], (3,): [4, 5]}
    spec = MLPSpec.simple((2, 8, 4, 6, 2), skips=[(0, 1), (1, 3), (2, 3)])
    assert groups_of(spec) == {(1, 2, 3): [2, 3], (1, 3): [4, 5], (1,): [6, 7]}


def test_crossing_skips_leave_two_independent_strands() -> None:
    spec = MLPSpec.simple((3, 4, 4, 4, 4, 2), skips=[(1, 3), (2, 4)])
    assert groups_of(spec) == {(1, 3): [0, 1, 2, 3], (2, 4): [0, 1, 2, 3]}


def test_no_hidden_layer_no_freedom() -> None:
    spec = MLPSpec.simple((3, 2))
    assert exchangeable(spec) == []
    assert [p.tolist() for p in random_permutations(spec, np.random.default_rng(0))] == [[0, 1, 2], [0, 1]]


@settings(deadline=None)
@given(st.from_type(MLP), st.integers(0, 2**32 - 1))
def test_permuted_networks_compute_the_same_function(mlp: MLP, seed: int) -> None:
    rng = np.random.default_rng(seed)
    permutations = random_permutations(mlp.spec, rng)
    permuted = permute_neurons(mlp, permutations)
    x = rng.normal(size=(6, mlp.spec.n_inputs))
    expected = mlp.logits(x, np.float64)
    np.testing.assert_allclose(
        permuted.logits(x, np.float64), expected, rtol=0, atol=1e-10 * (1 + np.abs(expected).max())
    )
    assert sorted(permuted.theta) == sorted(mlp.theta)


@settings(deadline=None)
@given(st.from_type(MLPSpec), st.integers(0, 2**32 - 1))
def test_inverse_permutations_undo(spec: MLPSpec, seed: int) -> None:
    permutations = random_permutations(spec, np.random.default_rng(seed))
    there = theta_order(spec, permutations)
    back = theta_order(spec, [np.argsort(p) for p in permutations])
    assert np.array_equal(np.arange(spec.n_parameters)[there][back], np.arange(spec.n_parameters))
    assert np.array_equal(np.sort(there[: spec.n_weights]), np.arange(spec.n_weights))


@pytest.mark.parametrize(
    "skips", [(), ((1, 2),), ((0, 1),), ((0, 2), (1, 2)), ((0, 1), (1, 2))], ids=lambda skips: str(skips)
)
def test_exactly_the_listed_permutations_preserve_the_function(skips: tuple) -> None:
    spec = MLPSpec.simple((1, 3, 2, 2), "tanh", skips=skips)
    mlp = MLP(spec, np.random.default_rng(0).normal(size=spec.n_parameters))
    x = np.random.default_rng(1).normal(size=(5, 1))
    preserving = 0
    for first, second in itertools.product(itertools.permutations(range(3)), itertools.permutations(range(2))):
        permutations = [np.arange(1), np.array(first), np.array(second), np.arange(2)]
        free = MLPSpec.simple((1, 3, 2, 2), "tanh")
        moved = mlp.replace(mlp.theta[theta_order(free, permutations)])
        same = np.allclose(moved.logits(x, np.float64), mlp.logits(x, np.float64), atol=1e-9)
        preserving += same
        if same:
            theta_order(spec, permutations)
        else:
            with pytest.raises(ValueError, match="a skip ties"):
                theta_order(spec, permutations)
    assert preserving == math.prod(math.factorial(len(indices)) for indices in groups_of(spec).values())


def test_all_valid_permutations_are_drawn() -> None:
    spec = MLPSpec.simple((3, 3, 2), norm="layer")
    rng = np.random.default_rng(0)
    assert len({tuple(random_permutations(spec, rng)[1]) for _ in range(200)}) == 6


@pytest.mark.parametrize(
    ("permutations", "named"),
    [
        ([[0, 1, 2], [0, 1]], "one per neuron layer"),
        ([[0, 1, 2], [0, 0, 1, 2], [0, 1]], r"permutations\[1\]"),
        ([[1, 0, 2], [0, 1, 2, 3], [0, 1]], "inputs and outputs"),
        ([[0, 1, 2], [0, 1, 2, 3], [1, 0]], "inputs and outputs"),
    ],
)
def test_what_is_no_valid_permutation_is_refused(permutations: list, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        theta_order(MLPSpec.simple((3, 4, 2)), [np.array(p) for p in permutations])
