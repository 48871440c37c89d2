"""Tracing runs a module's own code: it leaves the module as it was, and refuses what does not repeat itself."""

from __future__ import annotations

import numpy as np
import pytest

from metaedit_fast.errors import UnsupportedModelError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from metaedit_fast.models.torch import open_torch  # noqa: E402


class Counting(nn.Module):
    """A module whose forward runs a statement of the test's first."""

    def __init__(self, statement):
        super().__init__()
        self.statement = statement
        self.linear = nn.Linear(3, 2)
        self.register_buffer("mu", torch.ones(3))
        self.register_buffer("n", torch.zeros((), dtype=torch.int64))
        self.calls, self.seen = 0, []

    def forward(self, x):
        self.statement(self)
        return self.linear(x - self.mu)


def _count(m):
    m.n += 1


def _replace(m):
    m.mu = m.mu * 0.9


def _clip(m):
    for parameter in m.parameters():
        parameter.data.clamp_(-1e-3, 1e-3)


@pytest.mark.parametrize(
    "statement", [_count, _replace, _clip, lambda m: m.mu.mul_(0.9), lambda m: m.mu.data.mul_(0.9)]
)
def test_a_forward_that_changes_tensors_is_refused_and_changes_none(statement):
    module = Counting(statement)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(UnsupportedModelError, match="changes no parameter and no buffer"):
        open_torch(module)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_reading_changes_no_attribute_and_no_random_state():
    def statement(m):
        m.calls += 1
        m.seen.append(torch.rand(1))

    module = Counting(statement)
    state = torch.random.get_rng_state()
    mlp = open_torch(module).mlp
    assert (module.calls, module.seen) == (0, [])
    assert torch.equal(torch.random.get_rng_state(), state)
    with torch.no_grad():
        rows = torch.randn(4, 3)
        assert np.allclose(mlp.forward(rows.numpy()), module(rows).numpy(), atol=1e-6)


def test_a_forward_that_depends_on_its_calls_is_refused():
    class Fading(Counting):
        def forward(self, x):
            self.calls += 1
            return self.linear(x * 0.9**self.calls)

    with pytest.raises(UnsupportedModelError, match="the same each time"):
        open_torch(Fading(None))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(2).to_sparse(),
        lambda: torch.zeros(2, device="meta"),
        lambda: torch.zeros(1).expand(3),
        lambda: torch.zeros(3).to(torch.float8_e4m3fn),
        lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    ],
)
def test_buffers_of_any_kind_may_lie_beside_the_chain(make):
    module = Counting(lambda m: None)
    module.register_buffer("other", make())
    assert open_torch(module).mlp.spec.widths == (3, 2)


def test_buffers_with_nan_are_no_changed_buffers():
    module = Counting(lambda m: None)
    module.mu[0] = torch.nan
    assert np.isnan(open_torch(module).mlp.input_shift[0])
