"""Chains of torch modules: exact round trips, edits that arrive, models that stay untouched."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.models.mlp import MLP

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from metaedit_fast.models.spec import MLPSpec  # noqa: E402
from metaedit_fast.models.torch import open_torch  # noqa: E402
from metaedit_fast.models.torch.modules import InputNormalisation, SkipMLP  # noqa: E402

ACTIVATIONS = [
    nn.ReLU(), nn.ReLU(inplace=True), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Tanh(), nn.LeakyReLU(0.2),
    nn.LeakyReLU(0.0), nn.Sigmoid(), nn.ELU(0.7), nn.ELU(0.0), nn.ReLU6(), nn.Identity(),
]  # fmt: skip


def randomise(module, seed=0):
    """Random values everywhere, running statistics included; no batch norm scales by almost 0.

    Weights behind such a scale are large, and float32 rounds them more than the tests allow for.
    """
    scales = {f"{path}.weight" for path, child in module.named_modules() if isinstance(child, nn.BatchNorm1d)}
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.is_floating_point():
                drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                positive = name.endswith("running_var") or name in scales
                tensor.copy_(drawn.abs() + 0.3 if positive else drawn * 0.7)
    return module.eval()


def state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same_state(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def outputs(module, x):
    """What a module gives for float64 rows, computed in float64."""
    with torch.no_grad():
        return copy.deepcopy(module).double().eval()(torch.from_numpy(x)).numpy().reshape(len(x), -1)


def edited(opened, seed=0, zeros=0.3):
    """Another θ: every parameter that the model owns moves, some weights become zero."""
    mlp, rng = opened.mlp.replace(opened.mlp.theta.copy()), np.random.default_rng(seed)
    owned = {(slot.kind, slot.layer) for slot in opened.slots}
    for kind, layer, view in mlp.parameters():
        if (kind, layer) in owned:
            view += rng.normal(scale=0.2, size=view.shape).astype(np.float32)
            if kind == "weight":
                view[rng.random(view.shape) < zeros] = 0
    return mlp


def close(a, b):
    return np.abs(a - b).max() <= 1e-6 * max(1.0, np.abs(b).max())


def check(module, n_inputs, seed=0):
    """Everything that must hold of a module that is read; gives what was opened."""
    before = state(module)
    opened = open_torch(module)
    x = np.random.default_rng(seed).normal(size=(9, n_inputs))
    assert close(opened.mlp.forward(x, np.float64), outputs(module, x))

    again = opened.write(opened.mlp)
    assert type(again) is type(module)
    assert again is not module
    assert same_state(again.state_dict(), before)
    assert np.array_equal(outputs(again, x), outputs(module, x))

    mlp = edited(opened, seed)
    written = opened.write(mlp)
    assert same_state(module.state_dict(), before), "write changed the original"
    assert close(outputs(written, x), mlp.forward(x, np.float64))
    assert open_torch(written).mlp.spec == mlp.spec

    opened.write_into(mlp)
    assert same_state(module.state_dict(), written.state_dict())
    assert not same_state(module.state_dict(), before)
    return opened


@st.composite
def chains(draw):
    """A random chain of modules, nested at random, and its number of inputs."""
    widths = draw(st.lists(st.integers(1, 7), min_size=2, max_size=5))
    modules = []
    if draw(st.booleans()):
        modules.append(draw(st.sampled_from([nn.Flatten(), nn.Identity(), nn.Dropout(0.3), nn.BatchNorm1d(widths[0])])))
    needs_bias = False
    for i, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
        layer = [nn.Linear(n_in, n_out, bias=needs_bias or draw(st.booleans()))]
        needs_bias = False
        if draw(st.booleans()):
            layer.append(nn.BatchNorm1d(n_out, affine=draw(st.booleans())))
        if i < len(widths) - 2:
            if draw(st.booleans()):
                layer.append(nn.LayerNorm(n_out, elementwise_affine=draw(st.booleans()), bias=draw(st.booleans())))
            activation = draw(st.sampled_from(ACTIVATIONS))
            layer.append(activation)
            if draw(st.booleans()):
                layer.append(nn.Dropout(0.5))
            if type(activation) is not nn.Identity and draw(st.booleans()):
                needs_bias = True
                layer.append(nn.BatchNorm1d(n_out, affine=draw(st.booleans())))
        modules += [nn.Sequential(*layer)] if draw(st.booleans()) else layer
    tails = [nn.Identity(), nn.Softmax(-1), nn.Softmax(1)] if widths[-1] > 1 else [nn.Identity(), nn.Sigmoid()]
    return nn.Sequential(*modules, draw(st.sampled_from(tails))), widths[0]


class Wrapped(nn.Module):
    """Not a Sequential, so it is traced."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


@settings(max_examples=150, deadline=None)
@given(chains(), st.integers(0, 2**31))
def test_random_chains(chain, seed):
    module, n_inputs = chain
    assert check(randomise(module, seed), n_inputs, seed).kind == "torch"


@settings(max_examples=40, deadline=None)
@given(chains(), st.integers(0, 2**31))
def test_the_traced_graph_is_read_as_the_chain_itself(chain, seed):
    module = randomise(chain[0], seed)
    direct, traced = open_torch(module), open_torch(Wrapped(module))
    assert traced.mlp.spec == direct.mlp.spec
    assert np.array_equal(traced.mlp.theta, direct.mlp.theta)
    assert [slot.key for slot in traced.slots] == [f"inner.{slot.key}" for slot in direct.slots]


def test_a_single_linear_layer():
    opened = check(randomise(nn.Linear(4, 3)), 4)
    assert opened.mlp.spec.widths == (4, 3)
    assert [slot.key for slot in opened.slots] == ["weight", "bias"]


def test_a_batch_norm_behind_a_linear_gives_the_bias_its_home():
    module = randomise(nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)))
    opened = check(module, 3)
    assert opened.mlp.spec.layers[0].bias
    assert [slot.key for slot in opened.slots if slot.kind == "bias"] == ["1.bias", "3.bias"]
    assert "batch norm '1' is folded" in opened.notes[0]


def test_a_folded_constant_without_a_home_stays_in_theta_and_cannot_be_edited():
    module = randomise(nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4, affine=False), nn.Linear(4, 2)))
    opened = check(module, 3)
    assert not opened.mlp.spec.layers[0].bias
    assert opened.mlp.bias(0).all()
    mlp = opened.mlp.replace(opened.mlp.theta.copy())
    mlp.bias(0)[1] += 1
    with pytest.raises(UnsupportedModelError, match="no parameter for the bias of layer 0"):
        opened.write(mlp)


def test_a_layer_norm_without_shift_is_not_the_editors_to_change():
    module = randomise(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4, bias=False), nn.ReLU(), nn.Linear(4, 2)))
    opened = check(module, 3)
    assert not opened.mlp.spec.layers[0].norm_affine
    assert not np.array_equal(opened.mlp.parameter("norm_scale", 0), np.ones(4))
    mlp = opened.mlp.replace(opened.mlp.theta.copy())
    mlp.parameter("norm_shift", 0)[0] = 1
    with pytest.raises(UnsupportedModelError, match="no parameter for the norm_shift of layer 0"):
        opened.write(mlp)


def test_a_batch_norm_of_the_inputs_is_their_normalisation():
    module = randomise(nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)))
    opened = check(module, 3)
    assert opened.mlp.input_scale is not None
    other = MLP(opened.mlp.spec, opened.mlp.theta, opened.mlp.input_scale * 2, opened.mlp.input_shift)
    with pytest.raises(UnsupportedModelError, match="input_scale"):
        opened.write(other)


def test_a_batch_norm_behind_an_activation_moves_with_the_weights():
    module = randomise(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 2)))
    opened = check(module, 3)
    # All weights pruned: what the batch norm adds must go too, and the output is the bias alone.
    mlp = opened.mlp.replace(opened.mlp.theta.copy())
    mlp.weight(1)[...] = 0
    mlp.bias(1)[...] = [0.5, -2.0]
    assert np.allclose(outputs(opened.write(mlp), np.ones((4, 3))), [0.5, -2.0], atol=1e-6)


@pytest.mark.parametrize("behind", ["linear", "activation"])
def test_a_batch_norm_with_a_zero_gamma(behind):
    norm = nn.BatchNorm1d(4)
    middle = [norm, nn.ReLU()] if behind == "linear" else [nn.ReLU(), norm]
    module = randomise(nn.Sequential(nn.Linear(3, 4), *middle, nn.Linear(4, 2)))
    with torch.no_grad():
        norm.weight[2] = 0.0
    opened = open_torch(module)
    x = np.random.default_rng(0).normal(size=(5, 3))
    assert close(opened.mlp.forward(x, np.float64), outputs(module, x))
    layer = 0 if behind == "linear" else 1
    dead = (slice(None), 2) if behind == "linear" else (2, slice(None))

    pruned = opened.mlp.replace(opened.mlp.theta.copy())
    pruned.weight(layer)[dead] = -0.0
    pruned.bias(layer)[...] += 0.5
    assert close(outputs(opened.write(pruned), x), pruned.forward(x, np.float64))

    before = state(module)
    moved = opened.mlp.replace(opened.mlp.theta.copy())
    moved.weight(layer)[dead] = 1.0
    with pytest.raises(UnsupportedModelError, match="exactly 0"):
        opened.write_into(moved)
    assert same_state(module.state_dict(), before), "a write that failed must change nothing"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes_are_kept_and_unchanged_values_keep_their_bits(dtype):
    module = randomise(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).to(dtype))
    opened = open_torch(module)
    assert same_state(opened.write(opened.mlp).state_dict(), module.state_dict())
    mlp = opened.mlp.replace(opened.mlp.theta.copy())
    mlp.weight(1)[0, 0] = 0
    written = opened.write(mlp)
    assert {p.dtype for p in written.parameters()} == {dtype}
    different = torch.nonzero(written[3].weight != module[3].weight).tolist()
    assert different == [[0, 0]]
    assert torch.equal(written[0].weight, module[0].weight)


def test_the_default_device_makes_no_difference():
    module = randomise(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)))
    code = copy.deepcopy(module)
    code.__class__ = type("Mine", (nn.Sequential,), {})  # traced, not walked
    for each in (module, code):
        expected = open_torch(each).write(edited(open_torch(each))).state_dict()
        with torch.device("meta"):
            written = open_torch(each).write(edited(open_torch(each)))
        assert {p.device.type for p in written.parameters()} == {"cpu"}
        assert same_state(written.state_dict(), expected)


def test_layers_of_different_dtypes_keep_theirs():
    module = nn.Sequential(nn.Linear(3, 4, dtype=torch.float64), nn.ReLU(), nn.Linear(4, 2, dtype=torch.bfloat16))
    written = open_torch(module).write(edited(open_torch(module)))
    assert [p.dtype for p in written.parameters()] == [p.dtype for p in module.parameters()]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_devices_are_kept():
    module = randomise(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)))
    moved = copy.deepcopy(module).to("cuda")
    opened, reference = open_torch(moved), open_torch(module)
    assert opened.mlp.content_hash() == reference.mlp.content_hash()
    written = opened.write(edited(opened))
    assert {p.device.type for p in written.parameters()} == {"cuda"}
    assert same_state(written.cpu().state_dict(), reference.write(edited(reference)).state_dict())


def test_all_else_is_kept_by_write():
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.25), nn.Linear(4, 2)).train()
    module[0].weight.requires_grad_(False)
    module[0].register_full_backward_hook(_hook)
    written = open_torch(module).write(open_torch(module).mlp)
    assert written.training
    assert written[1].training
    assert written[1].p == 0.25
    assert [p.requires_grad for p in written.parameters()] == [p.requires_grad for p in module.parameters()]
    assert len(written[0]._backward_hooks) == 1
    assert module.training
    assert not {p.data_ptr() for p in written.parameters()} & {p.data_ptr() for p in module.parameters()}


def _hook(module, inputs, output):
    return None


def test_a_model_made_under_inference_mode_is_written_in_place():
    with torch.inference_mode():
        module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    opened = open_torch(module)
    mlp = edited(opened)
    opened.write_into(mlp)
    assert np.array_equal(open_torch(module).mlp.theta, mlp.theta)
    assert module[0].weight.is_inference()


def test_a_model_read_under_inference_mode_stays_trainable():
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.inference_mode():
        opened = open_torch(module)
        opened.write_into(edited(opened))
        written = opened.write(opened.mlp)
    module(torch.ones(1, 3)).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert [p.requires_grad for p in written.parameters()] == [True] * 4


def test_parameters_side_by_side_in_one_storage_are_no_shared_memory():
    module = randomise(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    torch.nn.utils.vector_to_parameters(torch.nn.utils.parameters_to_vector(module.parameters()), module.parameters())
    assert len({p.untyped_storage().data_ptr() for p in module.parameters()}) == 1
    opened = open_torch(module)
    mlp = edited(opened)
    opened.write_into(mlp)
    assert np.array_equal(open_torch(module).mlp.theta, mlp.theta)


def test_notes_tell_of_dropout():
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.25), nn.Linear(4, 2))
    assert open_torch(module).notes == ("dropout does nothing in evaluation",)


def test_reading_draws_no_random_numbers_and_leaves_the_gradient_alone():
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    module(torch.ones(2, 3)).sum().backward()
    gradients = [p.grad.clone() for p in module.parameters()]
    before = torch.random.get_rng_state()
    opened = open_torch(module)
    opened.write_into(edited(opened))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(p.grad, g) for p, g in zip(module.parameters(), gradients, strict=True))


def test_the_mlp_shares_no_memory_with_the_module():
    module = nn.Linear(3, 2)
    before = state(module)
    open_torch(module).mlp.theta[...] = 7
    assert same_state(module.state_dict(), before)


def test_an_mlp_of_another_architecture_is_not_written():
    small, large = nn.Linear(3, 2), nn.Linear(4, 2)
    with pytest.raises(UnsupportedModelError, match="another architecture"):
        open_torch(small).write(open_torch(large).mlp)


def test_non_finite_parameters_are_read_without_a_warning():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        module[0].weight[0, 0] = torch.inf
        module[1].weight[0] = 0.0
        module[1].running_var[1] = -1.0
    assert not open_torch(module).mlp.is_finite


def test_a_shared_activation_is_no_shared_parameter():
    act = nn.ReLU()
    opened = check(randomise(nn.Sequential(nn.Linear(3, 4), act, nn.Linear(4, 4), act, nn.Linear(4, 2))), 3)
    assert [layer.activation for layer in opened.mlp.spec.layers] == ["relu", "relu", "identity"]


def test_an_input_normalisation_module():
    prefix = InputNormalisation(torch.tensor([2.0, 0.5]), torch.tensor([1.0, -1.0]))
    opened = check(randomise(nn.Sequential(prefix, nn.Linear(2, 2))), 2)
    assert np.array_equal(opened.mlp.input_scale, prefix.scale.numpy())


def test_a_skip_mlp_inside_a_sequential():
    inner = SkipMLP(MLPSpec.simple((3, 4, 4, 2), skips=[(1, 2)]))
    opened = check(randomise(nn.Sequential(nn.Flatten(), inner)), 3)
    assert opened.mlp.spec.skips == ((1, 2),)
