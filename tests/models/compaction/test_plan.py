"""Smaller networks predict the same, and what has no effect is gone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.models.compaction.plan import Plan, plan_of
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import ACTIVATIONS, LayerSpec, MLPSpec


def some_mlp(widths=(4, 6, 5, 3), seed: int = 0, **changes) -> MLP:
    spec = MLPSpec.simple(widths, **changes)
    return MLP(spec, np.random.default_rng(seed).normal(size=spec.n_parameters))


def assert_same(mlp: MLP, plan: Plan, n_rows: int = 16) -> None:
    """Equal outputs in float64, up to the rounding of folded numbers to float32."""
    x = np.random.default_rng(1).normal(size=(n_rows, mlp.spec.n_inputs))
    expected = mlp.forward(x, np.float64)
    got = plan.mlp.forward(x[:, plan.kept[0]] if plan.inputs_removed else x, np.float64)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6 * (1 + np.abs(expected).max()))


@st.composite
def sparse_mlps(draw: st.DrawFn) -> MLP:
    """Random networks with entries, rows and columns of weights set to zero, and zeros in biases and norms."""
    mlp = draw(st.from_type(MLP))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = st.sampled_from([0.0, 0.3, 0.6, 0.9, 1.0])
    entries, rows, columns, others = (draw(levels) for _ in range(4))
    for kind, i, view in mlp.parameters():
        if kind == "weight":
            view[rng.random(view.shape) < entries] = 0
            view[rng.random(len(view)) < rows] = 0
            view[:, rng.random(view.shape[1]) < columns] = 0
        elif mlp.spec.layers[i].bias if kind == "bias" else mlp.spec.layers[i].norm_affine:
            view[rng.random(len(view)) < others] = 0
    if mlp.input_scale is not None and draw(st.booleans()):
        mlp.input_scale[0] = 0
    return mlp


@settings(deadline=None, max_examples=400)
@given(sparse_mlps(), st.booleans())
def test_predictions_stay(mlp: MLP, drop_inputs: bool) -> None:
    plan = plan_of(mlp, drop_inputs=drop_inputs)
    assert_same(mlp, plan)
    spec = plan.mlp.spec
    assert [len(kept) for kept in plan.kept] == list(spec.widths)
    assert plan.mlp.spec.owned_parameters.sum() <= mlp.spec.owned_parameters.sum()
    assert spec.n_outputs == mlp.spec.n_outputs
    assert drop_inputs or spec.n_inputs == mlp.spec.n_inputs


@settings(deadline=None, max_examples=100)
@given(sparse_mlps(), st.booleans())
def test_a_second_time_nothing_is_left_to_do(mlp: MLP, drop_inputs: bool) -> None:
    once = plan_of(mlp, drop_inputs=drop_inputs).mlp
    assert plan_of(once, drop_inputs=drop_inputs).is_identity


@settings(deadline=None, max_examples=100)
@given(sparse_mlps())
def test_without_norms_and_skips_every_neuron_that_stays_has_an_effect(mlp: MLP) -> None:
    layers = tuple(LayerSpec(layer.width, layer.activation, layer.alpha) for layer in mlp.spec.layers)
    spec = MLPSpec(mlp.spec.n_inputs, layers)
    mlp = MLP(spec, mlp.theta[: spec.n_parameters])
    small = plan_of(mlp, drop_inputs=True).mlp
    for i, width in enumerate(small.spec.widths[:-1]):
        if width > 1:
            assert (small.weight(i) != 0).any(axis=1).all()
        if i and width > 1:
            assert (small.weight(i - 1) != 0).any(axis=0).all()


def test_nothing_to_do() -> None:
    mlp = some_mlp()
    plan = plan_of(mlp, drop_inputs=True)
    assert plan.is_identity
    assert np.array_equal(plan.mlp.theta, mlp.theta)
    assert (plan.neurons_removed, plan.inputs_removed) == (0, 0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_constant_neuron_moves_into_the_biases_behind_it(activation: str) -> None:
    mlp = some_mlp(activation=activation)
    mlp.weight(0)[:, 2] = 0
    plan = plan_of(mlp)
    assert plan.mlp.spec.widths == (4, 5, 5, 3)
    assert plan.kept[1].tolist() == [0, 1, 3, 4, 5]
    assert not np.array_equal(plan.mlp.bias(1), mlp.bias(1))
    assert_same(mlp, plan)


def test_dead_neurons_take_along_what_only_they_read() -> None:
    mlp = some_mlp()
    mlp.weight(2)[[0, 3]] = 0  # dead in the second hidden layer
    mlp.weight(1)[1, [1, 2, 4]] = 0  # so neuron 1 of the first is read by dead ones alone
    mlp.weight(0)[2] = 0
    mlp.weight(0)[3, [0, 2, 3, 4, 5]] = 0  # and input 3 by that neuron alone
    plan = plan_of(mlp, drop_inputs=True)
    assert [kept.tolist() for kept in plan.kept] == [[0, 1], [0, 2, 3, 4, 5], [1, 2, 4], [0, 1, 2]]
    assert (plan.inputs_removed, plan.neurons_removed) == (2, 3)
    assert_same(mlp, plan)
    assert plan_of(mlp).mlp.spec.widths == (4, 5, 3, 3)


def test_inputs_that_are_constant_by_their_scale_are_folded() -> None:
    mlp = some_mlp()
    mlp = MLP(mlp.spec, mlp.theta, [1, 0, 2, 1], [0, 3, 1, 0])
    plan = plan_of(mlp, drop_inputs=True)
    assert plan.kept[0].tolist() == [0, 2, 3]
    assert plan.mlp.input_scale is not None
    assert plan.mlp.input_scale.tolist() == [1, 2, 1]
    assert_same(mlp, plan)


def test_a_model_without_a_bias_gets_one_for_what_is_folded() -> None:
    spec = MLPSpec(3, (LayerSpec(4, "sigmoid", bias=False), LayerSpec(2, bias=False)))
    mlp = MLP(spec, np.random.default_rng(0).normal(size=spec.n_parameters))
    mlp.bias(0)[:], mlp.bias(1)[:] = 0, 0
    mlp.weight(0)[:, 1] = 0
    plan = plan_of(mlp)
    assert [layer.bias for layer in plan.mlp.spec.layers] == [False, True]
    assert_same(mlp, plan)
    assert np.allclose(plan.mlp.bias(1), 0.5 * mlp.weight(1)[1])


def test_a_network_whose_outputs_are_constant_keeps_one_neuron_a_layer() -> None:
    mlp = some_mlp()
    mlp.weight(1)[:] = 0
    plan = plan_of(mlp, drop_inputs=True)
    assert plan.mlp.spec.widths == (1, 1, 1, 3)
    assert_same(mlp, plan)


def test_layer_norm_keeps_its_layer() -> None:
    mlp = some_mlp(norm="layer")
    mlp.weight(0)[:, 2] = 0
    mlp.weight(1)[3] = 0
    plan = plan_of(mlp)
    assert plan.mlp.spec.widths == (4, 6, 5, 3)
    mlp.weight(1)[:] = 0  # the first layer has no effect, the second is constant
    plan = plan_of(mlp, drop_inputs=True)
    assert plan.mlp.spec.widths == (1, 1, 1, 3)
    assert_same(mlp, plan)


def test_a_norm_without_parameters_of_its_own_stays_whole() -> None:
    layers = (LayerSpec(4, "relu", norm="layer", norm_affine=False), LayerSpec(2))
    mlp = MLP(MLPSpec(3, layers), np.zeros(34))
    mlp.parameter("norm_scale", 0)[:] = 1
    mlp.bias(0)[:] = np.arange(4)
    assert plan_of(mlp).mlp.spec.widths == (3, 4, 2)


def test_a_skip_ties_its_neurons() -> None:
    mlp = some_mlp((3, 6, 4, 2), skips=[(1, 2)])
    mlp.weight(2)[1] = 0  # neuron 1 of the second layer is dead, but neuron 1 of the first is not
    mlp.weight(1)[5] = 0  # neuron 5 of the first has no place in the second
    plan = plan_of(mlp)
    assert plan.mlp.spec.widths == (3, 5, 4, 2)
    assert_same(mlp, plan)
    mlp.weight(1)[1] = 0
    plan = plan_of(mlp)
    assert plan.mlp.spec.widths == (3, 4, 3, 2)
    assert plan.mlp.spec.skips == ((1, 2),)
    assert_same(mlp, plan)


def test_a_skip_without_effect_is_dropped() -> None:
    mlp = some_mlp((3, 6, 4, 2), skips=[(1, 2)])
    mlp.weight(0)[:, :4] = 0
    plan = plan_of(mlp)
    assert plan.mlp.spec.skips == ()
    assert plan.mlp.spec.widths == (3, 2, 4, 2)
    assert_same(mlp, plan)


def test_a_skip_from_the_inputs_keeps_the_neurons_in_their_places() -> None:
    mlp = some_mlp((3, 6, 2), skips=[(0, 1)])
    mlp.weight(1)[[0, 4]] = 0
    plan = plan_of(mlp)
    assert plan.kept[1].tolist() == [0, 1, 2, 3, 5]
    mlp.weight(0)[0] = 0
    plan = plan_of(mlp, drop_inputs=True)
    assert [kept.tolist() for kept in plan.kept[:2]] == [[1, 2], [1, 2, 3, 5]]
    assert_same(mlp, plan)


def test_models_that_are_not_finite_are_refused() -> None:
    mlp = some_mlp()
    mlp.theta[3] = np.nan
    with pytest.raises(UnsupportedModelError, match="finite"):
        plan_of(mlp)
    mlp = some_mlp(activation="identity")
    mlp.weight(0)[:, 0], mlp.bias(0)[0], mlp.weight(1)[0] = 0, 1e30, 1e30
    with pytest.raises(UnsupportedModelError, match="folded biases"):
        plan_of(mlp)
