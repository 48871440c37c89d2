"""The metanetwork: equivariant, independent of the batch, the identity where it has nothing to say."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from metaedit_fast.metanet.apply import Heads, edited_theta
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.metanet.features import model_features
from metaedit_fast.metanet.metanetwork import MetanetInputs, Metanetwork
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import LayerSpec, MLPSpec
from metaedit_fast.models.statistics import probe_statistics
from metaedit_fast.models.symmetry import permute_neurons, random_permutations, theta_order
from metaedit_fast.requirements.pruning import Pruning

N_INPUTS = 5
PROBE = np.random.default_rng(9).normal(size=(64, N_INPUTS)).astype(np.float32)


@st.composite
def specs(draw: st.DrawFn) -> MLPSpec:
    widths = draw(st.lists(st.integers(1, 7), min_size=1, max_size=4))
    norms = draw(st.lists(st.sampled_from(["none", "layer"]), min_size=len(widths), max_size=len(widths)))
    pairs = [(s, t) for t in range(1, len(widths) + 1) for s in range(t)]
    skips = draw(st.lists(st.sampled_from(pairs), max_size=3))
    activation = draw(st.sampled_from(["relu", "silu", "tanh"]))
    hidden = tuple(LayerSpec(w, activation, norm=n) for w, n in zip(widths, norms, strict=True))
    return MLPSpec(N_INPUTS, (*hidden, LayerSpec(draw(st.sampled_from([1, 2])))), tuple(skips))


def random_mlp(spec: MLPSpec, seed: int) -> MLP:
    return MLP(spec, np.random.default_rng(seed).normal(size=spec.n_parameters))


def network(**options: object) -> Metanetwork:
    torch.manual_seed(0)
    return Metanetwork(MetanetConfig(N_INPUTS, d_v=32, n_layers=2, **options)).double()  # type: ignore[arg-type]


NETWORKS = {
    "shipped": network(),
    "shipped, probe": network(probe=True),
    "official": network(form="official"),
    "mask only": network(edits_parameters=False),
}


@torch.no_grad()
def heads_of(net: Metanetwork, mlps: list[MLP], sparsity: float = 0.9) -> Heads:
    """Heads in float64, so that comparisons may be strict."""
    statistics = [probe_statistics(m, PROBE) if net.config.probe else None for m in mlps]
    features = [model_features(m, net.config, s) for m, s in zip(mlps, statistics, strict=True)]
    inputs = MetanetInputs.build(mlps, features, torch.tensor(np.stack([Pruning().condition(sparsity)] * len(mlps))))
    for name in ("edge", "node", "saliency", "condition"):
        object.__setattr__(inputs, name, getattr(inputs, name).double())
    found = net(inputs)
    return Heads(*(np.asarray(getattr(found, name)) for name in ("score", "relative", "additive", "node")))


@pytest.mark.parametrize("name", NETWORKS)
@given(spec=specs(), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_permuting_neurons_permutes_the_heads(name: str, spec: MLPSpec, seed: int) -> None:
    net, mlp = NETWORKS[name], random_mlp(spec, seed)
    # Layer norm over two or three neurons leaves gradients that are rounding noise, of which a probe takes logarithms.
    assume(not net.config.probe or all(layer.norm == "none" or layer.width > 3 for layer in spec.layers))
    permutations = random_permutations(spec, np.random.default_rng(seed))
    order = theta_order(spec, permutations)[: spec.n_weights]
    starts = np.cumsum([0, *spec.widths])
    nodes = np.concatenate([starts[t] + p for t, p in enumerate(permutations)])
    one, other = heads_of(net, [mlp]), heads_of(net, [permute_neurons(mlp, permutations)])
    # The network is float64 here, but features are float32 sums whose order the permutation changes, and the
    # logarithm of a probe's nearly vanishing gradients enlarges that.
    tolerance = 2e-3 if net.config.probe else 1e-4
    for field in ("score", "relative", "additive"):
        np.testing.assert_allclose(getattr(other, field), getattr(one, field)[order], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(other.node, one.node[nodes], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", NETWORKS)
@given(chosen=st.lists(specs(), min_size=2, max_size=4), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_neighbours_in_the_batch_change_nothing(name: str, chosen: list[MLPSpec], seed: int) -> None:
    net = NETWORKS[name]
    mlps = [random_mlp(spec, seed + i) for i, spec in enumerate(chosen)]
    together = heads_of(net, mlps)
    alone = [heads_of(net, [mlp]) for mlp in mlps]
    for field in ("score", "relative", "additive", "node"):
        joined = np.concatenate([getattr(h, field) for h in alone])
        np.testing.assert_allclose(getattr(together, field), joined, rtol=1e-9, atol=1e-10)


@given(spec=specs(), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_a_zero_residual_and_a_full_mask_are_the_identity_bit_for_bit(spec: MLPSpec, seed: int) -> None:
    mlp = random_mlp(spec, seed)
    mlp.theta[::3] = -0.0
    config = MetanetConfig(N_INPUTS)
    features = model_features(mlp, config)
    n, zeros = spec.n_weights, np.zeros(spec.n_weights, np.float32)
    for sign in (1.0, -1.0):
        heads = Heads(zeros, zeros * sign, zeros * sign, np.zeros((sum(spec.widths), 3), np.float32) * sign)
        edited = edited_theta(spec, mlp.theta, features, heads, np.ones(n, np.bool_), 0.3)
        assert edited.tobytes() == mlp.theta.tobytes()


def test_weights_that_an_earlier_edit_removed_stay_removed() -> None:
    spec = MLPSpec.simple((N_INPUTS, 6, 2))
    mlp = random_mlp(spec, 0)
    mlp.theta[: spec.n_weights : 2] = 0
    ones = np.ones(spec.n_weights, np.float32)
    heads = Heads(ones, ones, ones, np.ones((sum(spec.widths), 3), np.float32))
    config = MetanetConfig(N_INPUTS)
    features = model_features(mlp, config)
    edited = edited_theta(spec, mlp.theta, features, heads, np.ones(len(ones), np.bool_), 0.3)
    np.testing.assert_array_equal(edited[: spec.n_weights] == 0, mlp.theta[: spec.n_weights] == 0)
    assert (edited[1 : spec.n_weights : 2] != mlp.theta[1 : spec.n_weights : 2]).all()


def test_parameters_that_a_model_does_not_own_stay() -> None:
    layers = (LayerSpec(4, "relu", norm="layer", bias=False, norm_affine=False), LayerSpec(2))
    spec = MLPSpec(N_INPUTS, layers)
    mlp = random_mlp(spec, 0)
    ones = np.ones(spec.n_weights, np.float32)
    heads = Heads(ones, ones, ones, np.ones((sum(spec.widths), 3), np.float32))
    config = MetanetConfig(N_INPUTS)
    edited = mlp.replace(
        edited_theta(spec, mlp.theta, model_features(mlp, config), heads, np.ones(len(ones), np.bool_), 0.3)
    )
    for kind in ("bias", "norm_scale", "norm_shift"):
        np.testing.assert_array_equal(edited.parameter(kind, 0), mlp.parameter(kind, 0))
    np.testing.assert_allclose(edited.bias(1), mlp.bias(1) + 0.3, rtol=1e-6)


def test_the_residual_fades_with_the_sparsity() -> None:
    share = Pruning().residual_share
    assert (share(0.0), share(0.2), share(0.9)) == (0.0, pytest.approx(0.5), 1.0)
    np.testing.assert_array_equal(Pruning().condition(0.0), [0, 0, 0, 1])


def test_models_of_other_sizes_and_a_missing_probe_are_named() -> None:
    mlp = random_mlp(MLPSpec.simple((4, 3, 2)), 0)
    with pytest.raises(ValueError, match="inputs: expected 5, got 4"):
        model_features(mlp, MetanetConfig(5))
    with pytest.raises(ValueError, match="outputs: expected 3, got 2"):
        model_features(mlp, MetanetConfig(4, n_classes=3))
    with pytest.raises(ValueError, match="needs a probe"):
        model_features(mlp, MetanetConfig(4, probe=True))
    with pytest.raises(ValueError, match="form: expected"):
        MetanetConfig(4, form="other")
