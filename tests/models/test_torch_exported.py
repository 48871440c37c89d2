"""Programs of ``torch.export``: the same predictions, the same bits elsewhere, refusals by the node's name."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest

from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.models.convert import open_model

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from metaedit_fast.models.spec import MLPSpec  # noqa: E402
from metaedit_fast.models.torch import open_torch  # noqa: E402
from metaedit_fast.models.torch.modules import InputNormalisation, SkipMLP  # noqa: E402


def exported(module, *, columns=5, dtype=torch.float32, rows="rows", inputs=1):
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if "running_var" in name:
                tensor.uniform_(0.5, 2)
            elif tensor.ndim == 1 and tensor.is_floating_point():
                tensor.add_(torch.randn_like(tensor) * 0.3)
    x = [torch.randn(3, columns, dtype=dtype) for _ in range(inputs)]
    shapes = ({0: torch.export.Dim(rows)},) * inputs if rows else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about itself
        return torch.export.export(module, tuple(x), dynamic_shapes=shapes)


def outputs(program, x):
    with torch.no_grad():
        return program.module()(x).numpy()


def edited(mlp, seed=0):
    rng = np.random.default_rng(seed)
    theta = mlp.theta + rng.normal(scale=0.1, size=mlp.theta.shape).astype(np.float32)
    owned = mlp.spec.owned_parameters
    return mlp.replace(np.where(owned, np.where(rng.random(theta.shape) < 0.3, 0, theta), mlp.theta))


def check(program, columns=5):
    before = copy.deepcopy(dict(program.state_dict))
    opened = open_model(program)
    assert opened.kind == "torch_export"
    x = torch.randn(9, columns)
    assert np.allclose(opened.mlp.forward(x.numpy()), outputs(program, x).reshape(9, -1), atol=1e-5)
    other = edited(opened.mlp)
    written = opened.write(other)
    assert isinstance(written, torch.export.ExportedProgram)
    assert all(torch.equal(tensor, program.state_dict[name]) for name, tensor in before.items())
    assert [n.name for n in written.graph.nodes] == [n.name for n in program.graph.nodes]
    assert np.allclose(other.forward(x.numpy()), outputs(written, x).reshape(9, -1), atol=2e-5)
    same = opened.write(opened.mlp)
    assert all(torch.equal(tensor, same.state_dict[name]) for name, tensor in before.items())
    opened.write_into(other)
    assert all(torch.equal(tensor, program.state_dict[name]) for name, tensor in written.state_dict.items())
    return opened


def hidden(*kinds):
    return [module for kind in kinds for module in (nn.Linear(5, 5), kind)]


class Written(nn.Module):
    """Python code: views, constants, slices, padding, sums."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(4, 1)
        self.register_buffer("factor", torch.rand(5) + 0.5)

    def forward(self, x):
        x = x.view(x.shape[0], -1) * self.factor - 0.5
        h = F.elu(self.one(x) + F.pad(x, (0, 1)), 0.3)
        h = F.relu(self.two(h) + h[:, :4])
        return torch.sigmoid(self.three(F.dropout(h, training=self.training))).squeeze(-1)


def test_chains():
    kinds = (nn.ReLU(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Tanh(), nn.LeakyReLU(0.2), nn.Sigmoid(), nn.ELU(0.7))
    module = nn.Sequential(
        *hidden(*kinds, nn.ReLU6(), nn.ReLU(inplace=True)), nn.Linear(5, 3), nn.LogSoftmax(-1)
    ).eval()
    program = exported(module)
    opened = open_model(program)
    assert opened.mlp.spec == open_torch(module).mlp.spec
    assert opened.mlp.theta.tobytes() == open_torch(module).mlp.theta.tobytes()
    assert opened.mlp.spec.output == "log_softmax"


def test_norms():
    normed = (nn.BatchNorm1d(5), nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.BatchNorm1d(6))
    module = nn.Sequential(*normed, nn.Linear(6, 4), nn.LayerNorm(4), nn.SiLU(), nn.Linear(4, 3), nn.Softmax(1))
    opened = check(exported(module.eval()))
    assert opened.mlp.spec.output == "softmax"
    assert sum("is folded" in note for note in opened.notes) == 3


def test_code():
    opened = check(exported(Written().eval()), 5)
    assert opened.mlp.spec.skips == ((0, 1), (1, 2))
    assert opened.mlp.spec.output == "sigmoid"


def test_skips_of_ours():
    spec = MLPSpec.simple((5, 8, 6, 7, 2), "silu", "layer", skips=[(0, 1), (1, 2), (2, 3), (0, 3)])
    module = SkipMLP(spec, normalisation=InputNormalisation(torch.rand(5) + 0.5, torch.rand(5)))
    assert check(exported(module.eval())).mlp.spec == spec


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_are_kept(dtype):
    program = exported(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)).to(dtype), dtype=dtype)
    opened = open_model(program)
    other = opened.mlp.replace(opened.mlp.theta.copy())
    other.weight(1)[0, 0] = 0
    written = opened.write(other)
    assert {tensor.dtype for tensor in written.state_dict.values()} == {dtype}
    assert torch.nonzero(written.state_dict["2.weight"] != program.state_dict["2.weight"]).tolist() == [[0, 0]]
    assert torch.equal(written.state_dict["0.weight"], program.state_dict["0.weight"])


class Function(nn.Module):
    """Two linear layers around a function."""

    def __init__(self, function, width=5):
        super().__init__()
        self.one, self.two, self.function = nn.Linear(5, 5), nn.Linear(width, 2), function

    def forward(self, x):
        return self.two(self.function(self.one(x)))


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(5, 5)

    def forward(self, x, y):
        return self.one(x) + y


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(5, 5)

    def forward(self, x):
        return self.one(torch.relu(self.one(x)))


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(5, 5)

    def forward(self, x):
        return self.one(x), x


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (lambda: Function(torch.sin), {}, r"node 'sin' of the exported program .*got aten\.sin\.default; pass"),
        (lambda: Function(lambda h: F.elu(h) * h), {}, "node 'mul' of the exported program .*no arithmetic of two"),
        (lambda: Function(lambda h: torch.celu(h, 0.5)), {}, "node 'celu'"),
        (Pair, {"inputs": 2}, "node 'y'.*one input, got a second one"),
        (lambda: Function(lambda h: h[:, 1:], 4), {}, r"node 'slice_\d' .*a slice \[:, :n\]"),
        (Tied, {}, "parameters of its own"),
        (Several, {}, "node 'output' of the exported program: expected one output"),
        (
            lambda: nn.Sequential(nn.Linear(5, 4), nn.Dropout(), nn.Linear(4, 2)).train(),
            {},
            "dropout that ends in eval",
        ),
        (
            lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).train(),
            {},
            "exported in evaluation mode, got the use of torch.int64",
        ),
        (
            lambda: nn.Sequential(nn.Linear(5, 2, dtype=torch.complex64)),
            {"dtype": torch.complex64},
            "constants are floats",
        ),
    ],
)
def test_other_programs_are_refused(module, options, message):
    program = exported(module(), **options)
    with pytest.raises(UnsupportedModelError, match=message):
        open_model(program)


def test_decomposed_programs_are_refused():
    program = exported(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = program.run_decompositions()
    with pytest.raises(UnsupportedModelError, match="node 'permute'"):
        open_model(program)


def test_parameters_that_share_memory_are_refused():
    program = exported(nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5)))
    program.state_dict["2.weight"].data = program.state_dict["0.weight"].data
    with pytest.raises(UnsupportedModelError, match=r"'0\.weight' and '2\.weight'.*\(tied\)"):
        open_model(program)
