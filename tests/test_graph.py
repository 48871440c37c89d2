"""The weight graph: block descriptors against an edge list written out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaedit_fast.graph import BLOCK_FIELDS, IDENTITY, WeightGraphBatch
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec


def random_mlp(spec: MLPSpec, seed: int = 0) -> MLP:
    return MLP(spec, np.random.default_rng(seed).normal(size=spec.n_parameters))


def edges_by_hand(mlp: MLP, first_node: int) -> list[tuple[int, int, float]]:
    """(source, target, weight) of every weight in the order of θ, then of every skip edge with weight 1."""
    starts = np.cumsum([first_node, *mlp.spec.widths])
    edges = [
        (int(starts[i]) + u, int(starts[i + 1]) + v, float(mlp.weight(i)[u, v]))
        for i in range(len(mlp.spec.layers))
        for u in range(mlp.spec.widths[i])
        for v in range(mlp.spec.widths[i + 1])
    ]
    for s, t in mlp.spec.skips:
        edges += [
            (int(starts[s]) + k, int(starts[t]) + k, 1.0) for k in range(min(mlp.spec.widths[s], mlp.spec.widths[t]))
        ]
    return edges


SPECS = (
    MLPSpec.simple((3, 4, 2)),
    MLPSpec.simple((3, 5, 4, 6, 1), "tanh", "layer", ((1, 3), (0, 2), (2, 3))),
    MLPSpec.simple((2, 1)),
    MLPSpec.simple((3, 1, 1, 2), skips=((1, 2),)),
)


@given(st.lists(st.sampled_from(SPECS), max_size=5), st.sampled_from(["model", "shape"]))
@settings(max_examples=40, deadline=None)
def test_edges_weights_and_targets_are_those_of_the_models(specs: list[MLPSpec], order: str) -> None:
    mlps = [random_mlp(spec, i) for i, spec in enumerate(specs)]
    batch = WeightGraphBatch.from_mlps(mlps, order=order)
    index = batch.to_edge_index()
    expected = [edges_by_hand(m, int(batch.node_offsets[i])) for i, m in enumerate(mlps)]

    assert index.shape == (2, batch.n_edges)
    assert sorted(map(tuple, index.T.tolist())) == sorted((u, v) for model in expected for u, v, _ in model)
    weights = [(u, v, w) for model, m in zip(expected, mlps, strict=True) for u, v, w in model[: m.spec.n_weights]]
    assert [tuple(pair) for pair in index[:, batch.weight_edges].T] == [(u, v) for u, v, _ in weights]
    theta = np.concatenate([m.theta[: m.spec.n_weights] for m in mlps] or [np.empty(0)])
    np.testing.assert_array_equal(theta, [w for _, _, w in weights])


@given(st.lists(st.sampled_from(SPECS), min_size=1, max_size=5), st.sampled_from(["model", "shape"]))
@settings(max_examples=40, deadline=None)
def test_blocks_tile_the_edges_and_point_at_their_weights(specs: list[MLPSpec], order: str) -> None:
    batch = WeightGraphBatch.from_mlps([random_mlp(spec, i) for i, spec in enumerate(specs)], order=order)
    edge_offset = batch.blocks[:, BLOCK_FIELDS.index("edge_offset")]
    np.testing.assert_array_equal(edge_offset, np.cumsum(batch.block_sizes) - batch.block_sizes)
    for block, model, start in zip(batch.blocks, batch.block_model, batch.block_theta, strict=True):
        if block[5] == IDENTITY:
            assert start == -1
        else:
            own = start - batch.theta_offsets[model]
            assert 0 <= own <= specs[model].n_weights - block[1] * block[3]


def test_a_single_model_is_not_copied_and_parameters_go_back_as_views() -> None:
    mlp = random_mlp(SPECS[1])
    batch = WeightGraphBatch.from_mlps([mlp])
    assert np.shares_memory(batch.theta, mlp.theta)
    pair = WeightGraphBatch.from_mlps([mlp, random_mlp(SPECS[0])])
    first, second = pair.split(pair.theta)
    assert first.base is not None
    assert np.array_equal(first, mlp.theta)
    assert len(second) == SPECS[0].n_parameters
    with pytest.raises(ValueError, match="expected shape"):
        pair.split(pair.theta[:-1])


def test_an_empty_batch_and_a_wrong_order() -> None:
    batch = WeightGraphBatch.from_mlps([])
    assert (batch.n_models, batch.n_nodes, batch.n_edges) == (0, 0, 0)
    assert batch.to_edge_index().shape == (2, 0)
    with pytest.raises(ValueError, match="'model' or 'shape'"):
        WeightGraphBatch.from_mlps([], order="depth")
