"""The metanetwork's heads and the gradient of its parameters, in both forms, on the seeded population: the kernels
beside torch's autograd of the same network.

Run with ``make bench PYTEST_ARGS="-k gradient"``; no figure without a passed check of all gradients.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from metaedit_fast import _core
from metaedit_fast.graph import WeightGraphBatch
from metaedit_fast.metanet.apply import Heads
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.metanet.features import model_features
from metaedit_fast.models.mlp import MLP
from metaedit_fast.requirements.pruning import Pruning

torch = pytest.importorskip("torch")

from metaedit_fast.metanet.differentiable import differentiable_heads  # noqa: E402
from metaedit_fast.metanet.metanetwork import MetanetInputs, Metanetwork  # noqa: E402

TOLERANCE = 1e-4  # norm-wise, of all gradients together, against torch in float32


@dataclasses.dataclass
class Case:
    net: Metanetwork
    native: Callable[..., torch.Tensor]
    reference: Callable[[], torch.Tensor]
    n_models: int


@pytest.fixture(scope="module", params=[("shipped", 16), ("official", 64)], ids=lambda form: form[0])
def case(request: pytest.FixtureRequest, population: list[MLP]) -> Case:
    form, d_e = request.param
    mlps = population[:16]
    torch.manual_seed(0)
    net = Metanetwork(MetanetConfig(mlps[0].spec.n_inputs, form=form, d_e=d_e, d_v=64))
    features = [model_features(mlp, net.config) for mlp in mlps]
    condition = torch.from_numpy(np.stack([Pruning().condition(0.9)] * len(mlps)))
    graph, inputs = WeightGraphBatch.from_mlps(mlps), MetanetInputs.build(mlps, features, condition)

    def gradient(heads: Heads) -> torch.Tensor:
        loss = heads.score.square().mean() + heads.relative.mean() + heads.additive.mean() + heads.node.mean()
        parameters = list(net.parameters())
        found = torch.autograd.grad(loss, parameters, allow_unused=True)  # a batch may have no skip connection
        pairs = zip(found, parameters, strict=True)
        return torch.cat([(torch.zeros_like(p) if x is None else x).flatten() for x, p in pairs])

    def native(**options: object) -> torch.Tensor:
        return gradient(differentiable_heads(net, graph, features, condition, **options))

    return Case(net, native, lambda: gradient(net(inputs)), len(mlps))


def report(benchmark, case: Case) -> None:
    benchmark.extra_info["ms_per_model"] = 1e3 * benchmark.stats.stats.median / case.n_models


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("isa", _core.available_isas())
def test_native_gradient(benchmark, case: Case, isa: str, num_threads: int) -> None:
    exact = case.reference()
    found = case.native(isa=isa, num_threads=num_threads)
    assert float((found - exact).norm()) < TOLERANCE * float(exact.norm())
    benchmark(case.native, isa=isa, num_threads=num_threads)
    report(benchmark, case)


@pytest.mark.parametrize("num_threads", [1, 2])
def test_torch_gradient(benchmark, case: Case, num_threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        benchmark.pedantic(case.reference, rounds=3, warmup_rounds=1)
    finally:
        torch.set_num_threads(before)
    report(benchmark, case)
