"""The whole metanetwork, shipped form, on the seeded population: native for every instruction set and precision,
beside the torch module and ONNX Runtime, each on one thread and at its best.

Run with ``make bench PYTEST_ARGS="-k network"``; no figure without a passed check of all outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from metaedit_fast import _core
from metaedit_fast.graph import WeightGraphBatch
from metaedit_fast.metanet import native
from metaedit_fast.metanet.apply import Heads
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.metanet.features import ModelFeatures, model_features
from metaedit_fast.models.mlp import MLP
from metaedit_fast.requirements.pruning import Pruning

FIELDS = ("score", "relative", "additive", "node")
TOLERANCE = {"float32": 2e-6, "bf16x3": 2e-5, "bf16": 1e-2}  # norm-wise, against torch in float64
# An instruction set and a precision that has kernels of its own there.
FASTER = {"avx512_bf16": ("bf16",), "amx": ("bf16x3", "bf16")}
ARITHMETICS = [(isa, precision) for isa in _core.available_isas() for precision in FASTER.get(isa, ("float32",))]


@dataclasses.dataclass
class Case:
    config: MetanetConfig
    weights: dict[str, np.ndarray]
    mlps: list[MLP]
    graph: WeightGraphBatch
    features: list[ModelFeatures]
    conditions: np.ndarray
    exact: Heads
    torch_forward: Callable[[], Heads]

    def check(self, found: Heads, precision: str = "float32") -> None:
        for name in FIELDS:
            mine, theirs = getattr(found, name), getattr(self.exact, name)
            assert np.linalg.norm(mine - theirs) < TOLERANCE[precision] * np.linalg.norm(theirs), name


@pytest.fixture(scope="module", params=[16, 64], ids="d_e={}".format)
def case(request: pytest.FixtureRequest, population: list[MLP]) -> Case:
    torch = pytest.importorskip("torch")
    from metaedit_fast.export.weights import network_weights
    from metaedit_fast.metanet.metanetwork import MetanetInputs, Metanetwork

    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = MetanetConfig(population[0].spec.n_inputs, d_e=request.param)
    net = Metanetwork(config)
    features = [model_features(mlp, config) for mlp in population]
    conditions = np.stack([Pruning().condition(0.9)] * len(population))
    inputs = MetanetInputs.build(population, features, torch.from_numpy(conditions))
    names = ("edge", "node", "saliency", "condition")
    wide = dataclasses.replace(inputs, **{name: getattr(inputs, name).double() for name in names})

    @torch.no_grad()
    def forward(given: MetanetInputs = inputs) -> Heads:
        found = net(given)
        return Heads(*(getattr(found, name).numpy() for name in FIELDS))

    net.double()
    exact = forward(wide)
    net.float()
    graph = WeightGraphBatch.from_mlps(population)
    return Case(config, network_weights(net), population, graph, features, conditions, exact, forward)


def report(benchmark, case: Case) -> None:
    """Per edge and layer, all of the network's other work included, and per model."""
    median = benchmark.stats.stats.median
    benchmark.extra_info["ns_per_edge_and_layer"] = 1e9 * median / case.graph.n_edges / case.config.n_layers
    benchmark.extra_info["ms_per_model"] = 1e3 * median / len(case.mlps)


@pytest.mark.parametrize(("isa", "precision"), ARITHMETICS)
@pytest.mark.parametrize("threads", [1, 2], ids="{}-threads".format)
def test_native_network(benchmark, case: Case, isa: str, precision: str, threads: int) -> None:
    editor = native.pack(case.config, case.weights)
    options = {"num_threads": threads, "isa": isa, "precision": precision}
    found = benchmark(native.metanetwork_forward, editor, case.graph, case.features, case.conditions, **options)
    case.check(found, precision)
    report(benchmark, case)


def test_torch_network(benchmark, case: Case) -> None:
    """All models in one call, blocks of equal shape as one tensor."""
    case.check(benchmark(case.torch_forward))
    report(benchmark, case)


def test_onnxruntime_network(benchmark, case: Case) -> None:
    """All models in one call."""
    from metaedit_fast.export.onnx import build_network
    from metaedit_fast.export.session import EditorSession, network_inputs

    session = EditorSession(build_network(case.config, case.weights))
    inputs = network_inputs([mlp.spec for mlp in case.mlps], case.features, case.conditions)
    case.check(benchmark(lambda: Heads(**session.run(inputs))))
    report(benchmark, case)
