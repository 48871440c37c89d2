"""Modules with a forward of their own: traced, read where they are chains and skips, refused elsewhere."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from metaedit_fast.errors import UnsupportedModelError

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402

from metaedit_fast.models.torch import open_torch  # noqa: E402


class Net(nn.Module):
    """Three linear layers, a batch norm and some constants, combined by a function of the test's."""

    def __init__(self, body, outputs=2, width=5):
        super().__init__()
        self.body = body
        self.one, self.two, self.three = nn.Linear(4, width), nn.Linear(width, width), nn.Linear(width, outputs)
        self.norm = nn.BatchNorm1d(width)
        self.free = nn.Parameter(torch.randn(width))
        self.register_buffer("mean", torch.randn(4))
        self.register_buffer("std", torch.rand(4) + 0.5)
        self.register_buffer("rows", torch.randn(3, width))

    def forward(self, x):
        return self.body(self, x)


def net(body, **options):
    torch.manual_seed(0)
    module = Net(body, **options)
    with torch.no_grad():
        module.norm.running_mean.normal_()
        module.norm.running_var.uniform_(0.5, 2)
        module.norm.weight.uniform_(0.5, 2)
        module.norm.bias.normal_()
    return module.eval()


def check(module, shape=(4,)):
    """Reads a module, compares predictions before and after an edit; gives the spec."""
    x = np.random.default_rng(0).normal(size=(7, *shape))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    opened = open_torch(module)
    mlp = opened.mlp
    assert np.allclose(mlp.forward(x.reshape(7, -1), np.float64), predictions(module, x), rtol=1e-6, atol=1e-6)
    changed = mlp.replace(mlp.theta.copy())
    owned = {(slot.kind, slot.layer) for slot in opened.slots}
    for kind, layer, view in changed.parameters():
        if (kind, layer) in owned:
            view[...] = np.where(np.arange(view.size).reshape(view.shape) % 3 == 0, 0, view * 1.5 + 0.1)
    written = opened.write(changed)
    expected = changed.forward(x.reshape(7, -1), np.float64)
    assert np.allclose(predictions(written, x), expected, rtol=1e-6, atol=1e-6)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    return mlp.spec


def predictions(module, x):
    double = copy.deepcopy(module).double().eval()
    with torch.no_grad():
        return double(torch.from_numpy(x)).numpy().reshape(len(x), -1)


@pytest.mark.parametrize(
    ("name", "apply"),
    [
        ("relu", F.relu),
        ("relu", lambda z: F.relu(z, inplace=True)),
        ("relu", torch.relu),
        ("relu", torch.relu_),
        ("relu", lambda z: z.relu()),
        ("relu", lambda z: z.relu_()),
        ("gelu", F.gelu),
        ("gelu_tanh", lambda z: F.gelu(z, approximate="tanh")),
        ("silu", F.silu),
        ("tanh", torch.tanh),
        ("tanh", F.tanh),
        ("tanh", lambda z: z.tanh()),
        ("sigmoid", torch.sigmoid),
        ("sigmoid", lambda z: z.sigmoid()),
        ("leaky_relu", F.leaky_relu),
        ("leaky_relu", lambda z: F.leaky_relu(z, 0.3)),
        ("leaky_relu", lambda z: F.leaky_relu(z, negative_slope=0.3)),
        ("elu", lambda z: F.elu(z, alpha=0.5)),
        ("relu6", F.relu6),
    ],
)
def test_functional_activations(name, apply):
    spec = check(net(lambda m, x: m.three(apply(m.one(x)))))
    assert [layer.activation for layer in spec.layers] == [name, "identity"]


@pytest.mark.parametrize(
    "flatten",
    [
        lambda x: x.flatten(1),
        lambda x: torch.flatten(x, 1),
        lambda x: torch.flatten(x, start_dim=1),
        lambda x: x.view(x.size(0), -1),
        lambda x: x.reshape(x.shape[0], -1),
        lambda x: x.view(-1, 4),
        lambda x: x.view((x.size()[0], 4)),
    ],
)
def test_flattened_inputs(flatten):
    assert check(net(lambda m, x: m.three(torch.relu(m.one(flatten(x))))), shape=(2, 2)).n_inputs == 4


@pytest.mark.parametrize(
    "normalise",
    [
        lambda m, x: (x - m.mean) / m.std,
        lambda m, x: x / 255.0,
        lambda m, x: 2 * x - 1,
        lambda m, x: 1 - x,
        lambda m, x: x.sub(m.mean).div(m.std),
        lambda m, x: torch.mul(x, m.std),
    ],
)
def test_arithmetic_on_the_inputs_is_their_normalisation(normalise):
    module = net(lambda m, x: m.three(torch.relu(m.one(normalise(m, x)))))
    check(module)
    assert open_torch(module).mlp.input_scale is not None


def test_a_parameter_added_behind_a_layer_is_the_home_of_its_bias():
    module = net(lambda m, x: m.three(torch.relu(m.one(x) + m.free)))
    check(module)
    assert [slot.key for slot in open_torch(module).slots if slot.kind == "bias"] == ["free", "three.bias"]


def test_a_linear_by_function():
    module = net(lambda m, x: F.linear(torch.tanh(F.linear(x, m.one.weight, m.one.bias)), m.three.weight))
    assert not check(module).layers[1].bias


def test_a_user_defined_subclass_of_linear():
    class Noted(nn.Linear):
        pass

    assert check(nn.Sequential(Noted(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()).widths == (4, 3, 2)


@pytest.mark.parametrize(
    ("skips", "body"),
    [
        ([(1, 2)], lambda m, h: torch.relu(m.two(h) + h)),
        ([(1, 2)], lambda m, h: torch.relu(h + m.two(h))),
        ([(1, 2)], lambda m, h: torch.relu(torch.add(m.two(h), h))),
        ([(1, 2)], lambda m, h: torch.relu(m.norm(m.two(h)).add_(h))),
        ([(1, 2)], lambda m, h: torch.relu(_grown(m.two(h), h))),
        ([(1, 2)], lambda m, h: m.two(F.dropout(h, 0.5, m.training)) + h),
    ],
)
def test_residual_sums_are_skips(skips, body):
    assert check(net(lambda m, x: m.three(body(m, torch.tanh(m.one(x)))))).skips == tuple(skips)


def test_a_skip_from_the_inputs_padded_and_one_cut():
    def body(m, x):
        h = torch.tanh(m.one(x) + F.pad(x, (0, 1)))
        return m.three(torch.relu(m.two(h) + F.pad(x, (0, 1)) + h[:, :5]))

    assert check(net(body)).skips == ((0, 1), (0, 2), (1, 2))


def test_the_activation_may_be_missing():
    spec = check(net(lambda m, x: m.three(m.two(m.one(x)))))
    assert [layer.activation for layer in spec.layers] == ["identity"] * 3


@pytest.mark.parametrize(
    "tail",
    [lambda z: torch.sigmoid(z), lambda z: torch.sigmoid(z.squeeze(-1)), lambda z: torch.sigmoid(z).squeeze(1)],
)
def test_one_probability(tail):
    assert check(net(lambda m, x: tail(m.three(torch.relu(m.one(x)))), outputs=1)).output == "sigmoid"


@pytest.mark.parametrize("tail", [lambda z: F.softmax(z, dim=1), lambda z: z.softmax(-1)])
def test_class_probabilities(tail):
    assert check(net(lambda m, x: tail(m.three(torch.relu(m.one(x)))))).output == "softmax"


@pytest.mark.parametrize(
    "module",
    [
        net(lambda m, x: F.log_softmax(m.three(torch.relu(m.one(x))), dim=1)),
        nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(-1)),
    ],
)
def test_a_log_softmax_is_an_output(module):
    opened = open_torch(module)
    assert opened.mlp.spec.output == "log_softmax"
    assert not opened.notes
    x = np.random.default_rng(0).normal(size=(5, 4))
    assert np.allclose(opened.mlp.forward(x, np.float64), predictions(module, x), atol=1e-6)


def test_dropout_is_read_as_in_evaluation_whatever_the_mode():
    module = net(lambda m, x: m.three(F.dropout(torch.relu(m.one(x)), 0.5, m.training))).train()
    opened = open_torch(module)
    assert module.training
    assert opened.notes == ("dropout does nothing in evaluation",)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda m, x: m.three(torch.relu(m.one(x)) + m.two(m.one(x))), "'one'.*each result goes to one next operation"),
        (lambda m, x: m.three(m.two(m.two(m.one(x)))), "'two'.*two.weight was used by"),
        (lambda m, x: m.three(torch.relu(m.one(x)) + m.one.bias * m.free), "node 'mul'"),
        (lambda m, x: m.three(torch.relu(torch.relu(m.one(x)))), "an activation behind a linear layer, one at most"),
        (lambda m, x: m.three(torch.relu(x)), "an activation behind a linear layer"),
        (lambda m, x: m.three(torch.cos(m.one(x))), r"node 'cos' of the traced graph \(cos\)"),
        (lambda m, x: m.three(F.dropout(m.one(x), 0.5)), "dropout that ends in evaluation"),
        (lambda m, x: m.three(m.one(x)) if x.sum() > 0 else m.one(x), "torch.fx can trace"),
        (lambda m, x: (m.three(m.one(x)), x), "a tensor, got"),
        (lambda m, x: m.three(torch.relu(m.one(x)) * torch.tanh(m.one(x))), "each result goes to one next operation"),
        (lambda m, x: _gated(m, torch.relu(m.one(x))), "no arithmetic of two tensors but a sum"),
        (lambda m, x: _residual_behind(m, torch.relu(m.one(x))), "a sum of a layer's pre-activations"),
        (lambda m, x: _scaled_skip(m, torch.relu(m.one(x))), "plain arithmetic"),
        (lambda m, x: _in_place(m, torch.relu(m.one(x))), "a sum in place"),
        (lambda m, x: _changed_source(m, torch.relu(m.one(x))), "a sum of a layer's pre-activations"),
        (lambda m, x: _late_slice(m, torch.relu(m.one(x))), "a slice"),
        (lambda m, x: _aliased(m, torch.relu(m.one(x))), "a sum in place"),
        (lambda m, x: _sliced_in_place(m, torch.relu(m.one(x))), "torch.fx can trace"),
        (lambda m, x: _from_raw(m, x), "zero columns behind a layer's outputs"),
        (lambda m, x: m.three(m.one(x)) + x[:, :2], "no skip into the output layer"),
        (lambda m, x: m.three(m.one(x).view(-1)), "a view of rows by columns"),
        (lambda m, x: m.three(m.one(x.flatten())), "start_dim 1"),
        (lambda m, x: F.softmax(m.three(m.one(x)), dim=0), "a softmax over dim -1 or 1, got 0"),
        (lambda m, x: torch.sigmoid(m.three(m.one(x))), "multi-label is not supported"),
        (lambda m, x: torch.relu(m.three(m.one(x))), "behind the last linear layer"),
        (lambda m, x: m.three(m.one(x) + m.rows), "a constant per column"),
        (lambda m, x: m.three(torch.tanh(m.one(x)) / m.one(x)), "each result goes to one next operation"),
        (lambda m, x: m.three(2.0 / m.one(x)), "a tensor divided by a constant"),
        (lambda m, x: F.linear(m.one(x), m.rows), "the buffer rows"),
        (lambda m, x: F.linear(m.one(x), m.three.weight * 2), "a tensor"),
        (lambda m, x: m.three(m.one(x).T), "node 'getattr_1'"),
        (lambda m, x: x * m.std, "at least one linear layer"),
        (lambda m, x: m.three(torch.relu(m.one(x)) * m.one.bias), "one.bias was used by module 'one'"),
        (lambda m, x: m.three(m.two(torch.relu(m.one(x)) / m.two.bias)), "'two'.*two.bias was used by node 'truediv'"),
        (lambda m, x: m.two(torch.relu(m.one(x) - m.two.bias)), "'two'.*two.bias was used by node 'sub'"),
        (lambda m, x: m.three(m.norm(m.one(x * m.one.bias[:4]))), "the parameter one.bias"),
        (lambda m, x: m.three(m.two(m.norm(m.one(x))) * m.norm.weight), "norm.weight was used by module 'norm'"),
        (lambda m, x: m.three(m.one(x) * list(m.parameters())[2].detach()), "the same each time"),
        (lambda m, x: m.three(m.one(x) * m._parameters["free"].exp()), "the same each time"),
        (lambda m, x: m.three(torch.relu(m.one(x + 0.1 * torch.randn(4)))), "the same each time.*random numbers"),
    ],
)  # fmt: skip
def test_what_is_no_chain_is_refused_by_name(body, message):
    with pytest.raises(UnsupportedModelError, match=message):
        open_torch(net(body))


def _grown(z, h):
    z += h
    return z


def _gated(m, h):
    return m.three(torch.sigmoid(m.two(h)) * h)


def _residual_behind(m, h):
    return m.three(torch.relu(m.two(h)) + h)


def _scaled_skip(m, h):
    return m.three(torch.relu(torch.add(m.two(h), h, alpha=2)))


def _in_place(m, h):
    z = m.two(h)
    h += z
    return m.three(torch.relu(h))


def _aliased(m, h):
    g = h
    g += m.two(h)
    return m.three(torch.relu(g) + h)


def _sliced_in_place(m, h):
    z = m.two(h)
    z[:, :2] += h[:, :2]
    return m.three(torch.relu(z))


def _changed_source(m, h):
    g = h.mul_(2.0)
    return m.three(torch.relu(m.two(g) + h))


def _late_slice(m, h):
    return m.three(torch.relu(m.two(h) + h[:, 1:]))


def _from_raw(m, x):
    h = m.one(x * m.std)
    return m.three(torch.relu(h + F.pad(x, (0, 1))))


def test_two_inputs_are_refused():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x, y):
            return self.linear(x) + y

    with pytest.raises(UnsupportedModelError, match="one input"):
        open_torch(Two())


def test_reading_under_inference_mode():
    module = net(lambda m, x: m.three(torch.relu(m.one(x) + m.free)))
    with torch.inference_mode():
        made = net(lambda m, x: m.three(torch.relu(m.one(x))))
        inside = open_torch(module).mlp
        open_torch(made)
    assert inside.content_hash() == open_torch(module).mlp.content_hash()
    check(made)
