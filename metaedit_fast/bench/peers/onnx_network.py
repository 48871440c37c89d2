"""The metanetwork in ONNX Runtime, with the graph that ``load_editor(..., engine="onnxruntime")`` runs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from metaedit_fast.bench.network import NetworkCase
from metaedit_fast.export.onnx import build_network
from metaedit_fast.export.session import EditorSession, network_inputs
from metaedit_fast.metanet.apply import Heads

MODELS_PER_CALL = 8


def forward(case: NetworkCase, *, threads: int) -> Callable[[], Heads]:
    """All models, a few a call, shared out to a pool of threads that outlives the calls."""
    session = EditorSession(build_network(case.config, case.weights))
    parts = [slice(start, start + MODELS_PER_CALL) for start in range(0, len(case.mlps), MODELS_PER_CALL)]
    inputs = [
        network_inputs([mlp.spec for mlp in case.mlps[part]], case.features[part], case.conditions[part])
        for part in parts
    ]
    pool = ThreadPoolExecutor(threads)

    def run() -> Heads:
        return Heads.joined([Heads(**found) for found in pool.map(session.run, inputs)])

    return run
