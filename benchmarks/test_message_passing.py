"""One metanetwork layer on the seeded population: every instruction set beside plain torch, on one thread."""

from __future__ import annotations

import numpy as np
import pytest

from metaedit_fast import _core
from metaedit_fast.graph import WeightGraphBatch
from metaedit_fast.kernels import native

D_E, D_V = 16, 64


@pytest.fixture(scope="module", params=["shipped", "official"])
def case(request: pytest.FixtureRequest, population):
    """Form, batch, states and the reference layer, whose values the kernel must give."""
    torch = pytest.importorskip("torch")
    from metaedit_fast.kernels.reference import LAYERS, Topology, flat_edges, initial_edges

    torch.manual_seed(0)
    torch.set_num_threads(1)
    batch = WeightGraphBatch.from_mlps(population[:16], order="shape")
    topology, layer = Topology(batch), LAYERS[request.param](D_E, D_V)
    h, e = torch.randn(batch.n_nodes, D_V), torch.randn(batch.n_edges, D_E)

    @torch.no_grad()
    def reference():
        out_h, out_e = layer(h, initial_edges(e, topology), topology)
        return out_h.numpy(), flat_edges(out_e).numpy()

    parameters = {name: value.numpy() for name, value in layer.state_dict().items()}
    return request.param, batch, h.numpy(), e.numpy(), parameters, reference


@pytest.mark.parametrize("isa", _core.available_isas())
def test_native_layer(benchmark, case, isa: str) -> None:
    form, batch, h, e, parameters, reference = case
    found = benchmark(native.layer_forward, form, batch, h, e, parameters, isa=isa)
    for mine, theirs in zip(found, reference(), strict=True):
        assert np.linalg.norm(mine - theirs) < 2e-6 * np.linalg.norm(theirs)
    benchmark.extra_info["ns_per_edge"] = 1e9 * benchmark.stats.stats.median / batch.n_edges


def test_plain_torch(benchmark, case) -> None:
    _, batch, *_, reference = case
    out_h, _ = benchmark(reference)
    assert np.isfinite(out_h).all()
    benchmark.extra_info["ns_per_edge"] = 1e9 * benchmark.stats.stats.median / batch.n_edges
