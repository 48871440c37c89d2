"""Modules that cannot be read: each is refused by its name, with what to do."""

from __future__ import annotations

import types

import pytest

from metaedit_fast.errors import UnsupportedModelError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations, prune  # noqa: E402

from metaedit_fast.models.torch import open_torch  # noqa: E402


def refused(module, message):
    with pytest.raises(UnsupportedModelError, match=message):
        open_torch(module)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([nn.Unflatten(1, (2, 2)), nn.Linear(4, 2)], r"module '0' \(Unflatten\).*Linear.*got Unflatten"),
        ([nn.Linear(4, 3), nn.Sequential(nn.PReLU(), nn.Linear(3, 2))], r"'1\.0' \(PReLU\).*slope is a parameter"),
        ([nn.Linear(4, 3), nn.LogSoftmax(0)], r"'1' \(LogSoftmax\).*got 0"),
        ([nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)], r"'1' \(BatchNorm1d\).*running_stats"),
        ([nn.Linear(4, 3), nn.BatchNorm1d(4)], r"'1' \(BatchNorm1d\): expected 3 columns.*got 4"),
        ([nn.Linear(4, 3), nn.Linear(4, 2)], r"'1' \(Linear\): expected 3 inputs.*got 4"),
        ([nn.BatchNorm1d(3), nn.Linear(4, 2)], r"'1' \(Linear\): expected 3 inputs.*got 4"),
        ([nn.Linear(4, 3), nn.ReLU(), nn.LayerNorm(3), nn.Linear(3, 2)], r"'2' \(LayerNorm\).*right behind a linear"),
        ([nn.LayerNorm(4), nn.Linear(4, 2)], r"'0' \(LayerNorm\)"),
        ([nn.Linear(4, 3), nn.LayerNorm((1, 3)), nn.Linear(3, 2)], r"'1' \(LayerNorm\): expected.*over one axis"),
        ([nn.Linear(4, 3), nn.LayerNorm(3), nn.BatchNorm1d(3), nn.Linear(3, 2)], r"'2' \(BatchNorm1d\)"),
        ([nn.Linear(4, 3), nn.ReLU(), nn.Tanh(), nn.Linear(3, 2)], r"'2' \(Tanh\).*one at most"),
        ([nn.Linear(4, 3), nn.Softmax(1), nn.Linear(3, 2)], r"'2' \(Linear\).*behind the output map"),
        ([nn.Linear(4, 3), nn.Softmax(0)], r"'1' \(Softmax\).*got 0"),
        ([nn.Linear(4, 1), nn.Softmax(1)], r"'1' \(Softmax\).*two or more outputs"),
        ([nn.Linear(4, 3), nn.Sigmoid()], "multi-label"),
        ([nn.Linear(4, 3), nn.ReLU()], "behind the last linear layer.*got relu"),
        ([nn.Linear(4, 3), nn.LayerNorm(3)], "no layer norm behind the last linear layer"),
        ([nn.Linear(4, 3), nn.Tanh(), nn.BatchNorm1d(3)], "behind the last linear layer"),
        ([nn.Flatten(0), nn.Linear(4, 3)], r"'0' \(Flatten\): expected start_dim 1"),
        ([nn.ReLU()], r"'0' \(ReLU\)"),
        ([], "at least one linear layer"),
        (
            [nn.Linear(4, 3), nn.Flatten(), nn.LayerNorm(2), nn.Linear(3, 2)],
            r"'2' \(LayerNorm\).*over 3 columns, got 2",
        ),
        ([nn.ModuleList([nn.Linear(4, 3)])], r"'0' \(ModuleList\)"),
        ([nn.Conv1d(1, 2, 3), nn.Linear(4, 3)], r"'0' \(Conv1d\)"),
        ([nn.Linear(4, 3), nn.Hardtanh(), nn.Linear(3, 2)], r"'1' \(Hardtanh\)"),
        ([nn.Bilinear(4, 4, 2)], r"'0' \(Bilinear\)"),
        ([nn.LazyLinear(3), nn.Linear(3, 2)], r"'0' \(LazyLinear\).*run the module once"),
        ([nn.Linear(4, 3, device="meta")], r"0\.weight: .*with values, got device meta.*to_empty"),
        ([nn.Linear(4, 3, dtype=torch.complex64)], r"0\.weight: expected a floating-point tensor, got torch.complex64"),
    ],
)
def test_chains_that_no_mlp_can_hold(modules, message):
    refused(nn.Sequential(*modules), message)


def test_what_a_batch_norm_adds_needs_a_bias_to_live_in():
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.BatchNorm1d(3), nn.Linear(3, 2, bias=False))
    assert not open_torch(module).mlp.spec.layers[1].bias, "a new batch norm adds nothing yet"
    module[2].running_mean.fill_(1.0)
    refused(module, r"3\.weight: expected a bias for what the batch norm in front of it adds")


def test_a_tied_module_is_refused_with_both_names():
    shared = nn.Linear(4, 4)
    refused(nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(4, 2)), r"'0\.weight' and '2\.weight'.*tied")


def test_tied_parameters_are_refused_with_both_names():
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    module[2].weight = module[0].weight
    refused(module, r"'0\.weight' and '2\.weight'.*tied")


def test_parameters_over_one_memory_are_refused_with_both_names():
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    module[2].weight = nn.Parameter(module[0].weight.detach().T)
    refused(module, r"'0\.weight' and '2\.weight'.*tied")


def test_pruning_masks_are_refused_with_the_way_out():
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    prune.l1_unstructured(module[2], "weight", 0.5)
    refused(module, r"module '2' \(Linear\).*mask on weight; call torch.nn.utils.prune.remove\(module, 'weight'\)")
    prune.remove(module[2], "weight")
    assert open_torch(module).mlp.sparsity > 0


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrised_modules_are_refused_with_the_way_out(wrap):
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), wrap(nn.Linear(3, 2)))
    refused(module, r"module '2'.*parametrisation of weight; call torch.nn.utils.parametrize.remove_parametrizations")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_hooks_that_compute_a_weight_are_refused_with_the_way_out():
    refused(nn.utils.weight_norm(nn.Linear(3, 2)), r"module Linear.*remove_weight_norm")
    refused(nn.utils.spectral_norm(nn.Linear(3, 2)), r"module Linear.*remove_spectral_norm")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_scripted_modules_are_refused():
    refused(torch.jit.script(nn.Sequential(nn.Linear(3, 2))), "ScriptModule; pass the module that was scripted")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wrappers_are_refused_with_what_to_pass():
    refused(nn.DataParallel(nn.Linear(3, 2)), r"DataParallel: pass its \.module")
    refused(torch.compile(nn.Linear(3, 2)), r"OptimizedModule: pass the module that was compiled")


def test_a_weight_that_is_no_parameter_is_refused():
    module = nn.Linear(3, 2)
    weight = module.weight.detach() * 2
    del module.weight
    module.weight = weight
    refused(module, "weight: expected an nn.Parameter, got Tensor")


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_an_empty_layer_is_refused():
    refused(nn.Sequential(nn.Linear(3, 0), nn.Linear(0, 2)), r"'0' \(Linear\).*got 3 and 0")


def test_a_module_without_forward_is_refused():
    refused(nn.Module(), "module Module: expected one of Linear.*got Module")
    refused(nn.ModuleList([nn.Linear(3, 2)]), "module ModuleList")


def chain():
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))


@pytest.mark.parametrize("path", ["", "0", "1"])
@pytest.mark.parametrize("name", ["forward", "__call__", "_call_impl", "_wrapped_call_impl"])
def test_a_forward_that_was_replaced_on_an_instance_is_refused(path, name):
    module = chain()
    part = module.get_submodule(path)
    replaced = types.MethodType(lambda self, x: 2 * type(self).forward(self, x) + 1, part)
    vars(part)[name] = replaced
    where = f"module '{path}' " if path else "module Sequential"
    refused(module, f"{where}.*the {name} of its class, got a {name} that was set on this instance")
    refused(Holder(module), f"the {name} of its class")
    vars(part).pop(name)
    open_torch(module)


class Holder(nn.Module):
    """A module with a forward of its own, so that it is traced."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


def test_a_call_around_forward_is_refused():
    class Doubled(Holder):
        def __call__(self, x):
            return 2 * super().__call__(x)

    refused(Doubled(chain()), "module Doubled.*nothing around it, got a __call__")
    open_torch(torch.fx.symbolic_trace(Holder(chain())))


def hook(module, inputs, output=None):
    return None


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
@pytest.mark.parametrize("path", ["", "0", "2"])
def test_forward_hooks_are_refused_with_the_way_out(register, path):
    module = chain()
    handle = getattr(module.get_submodule(path), register)(hook)
    refused(module, r"expected no forward (pre-)?hook, got hook.*handle\.remove\(\)")
    refused(Holder(module), r"module 'inner.*handle\.remove\(\)")
    handle.remove()
    open_torch(module)


@pytest.mark.parametrize("kind", ["hook", "pre_hook"])
def test_forward_hooks_of_all_modules_are_refused(kind):
    handle = getattr(torch.nn.modules.module, f"register_module_forward_{kind}")(hook)
    try:
        refused(chain(), r"for every module.*handle\.remove\(\)")
    finally:
        handle.remove()
    open_torch(chain())


def test_parameters_that_overlap_anywhere_are_refused_with_both_names():
    flat = torch.randn(40)
    module = chain()
    module[0].weight = nn.Parameter(flat[:16].view(4, 4))
    module[2].weight = nn.Parameter(flat[15:23].view(2, 4))
    refused(module, r"'0\.weight' and '2\.weight'.*tied")
    module[2].weight = nn.Parameter(flat[16:24].view(2, 4))
    open_torch(module)
    module[0].bias = nn.Parameter(torch.from_numpy(flat.numpy()[14:18]))
    refused(module, r"'0\.weight' and '0\.bias'.*tied")


def test_a_long_parameter_that_holds_two_others_is_refused():
    flat = torch.randn(40)
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    module[0].weight = nn.Parameter(flat[:32].view(8, 4))
    module[0].bias = nn.Parameter(flat[32:])
    module[2].bias = nn.Parameter(flat[5:6])
    module[2].weight = nn.Parameter(flat[20:28].view(1, 8))
    refused(module, r"'0\.weight' and '2\.weight'.*tied")


@pytest.mark.parametrize("buffer", [True, False])
def test_a_constant_over_the_memory_of_a_parameter_is_refused(buffer):
    class Scaled(Holder):
        def forward(self, x):
            return self.inner[2](torch.relu(self.inner[0](x)) * self.scale)

    module = Scaled(chain())
    scale = module.inner[0].bias.detach()
    if buffer:
        module.register_buffer("scale", scale)
    else:
        module.scale = scale
    refused(module, r"'inner\.0\.bias' and 'scale'.*tied")
    module.scale = scale.clone()
    open_torch(module)


def test_an_expanded_parameter_is_refused():
    module = chain()
    module[0].bias = nn.Parameter(torch.zeros(1).expand(4))
    refused(module, r"parameter '0\.bias': expected a memory of its own for each element")
