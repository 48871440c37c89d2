"""Modules that cannot be read: each is refused by its name, with what to do."""

from __future__ import annotations

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
        ([nn.Linear(4, 3, device="meta")], r"0\.weight: expected a dense tensor with values, got device meta"),
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
