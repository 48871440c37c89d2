"""Whole edits, weights in and weights out: features, network, ranking and write-back, of the mixed population."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.bench.compare import Candidate, compare
from metaedit_fast.bench.context import Context
from metaedit_fast.bench.network import SPARSITY, NetworkCase, relative_error, shipped
from metaedit_fast.bench.peers import load
from metaedit_fast.bench.rows import Row
from metaedit_fast.editing.editor import Editor, EditorInfo, Envelope
from metaedit_fast.metanet import native
from metaedit_fast.metanet.apply import Heads, edited_theta
from metaedit_fast.models.spec import ACTIVATIONS, NORMS
from metaedit_fast.requirements.masks import kept_count
from metaedit_fast.requirements.pruning import Pruning

# Where rounding decides which of two weights is kept, two correct results differ by both of them.
LIMIT = 2e-2

Thetas = Sequence[NDArray[np.float32]]
Edit = Callable[[], Thetas]


def rows(context: Context) -> Iterator[Row]:
    """The public call on a built batch, the native call inside it, and the peers."""
    context.say("whole edits")
    case = NetworkCase.of(shipped(), context.mixed, context.seed)
    threads = context.threads
    expected = np.concatenate(_edited(case, case.standard[0]))
    editor = editor_of(case)
    makes: dict[str, Callable[[], Edit]] = {
        "native": lambda: lambda: editor.edit_batch(case.graph, SPARSITY, num_threads=threads),
        "native, the call inside": lambda: _inner_call(case, threads),
        "onnxruntime": lambda: _by_engine(case, threads),
        "onnxruntime, our kernels": lambda: _by_kernels(case, threads),
        "torch": lambda: _by_torch(case, threads),
    }
    candidates = [
        Candidate(
            Row("edit", f"{len(case.mlps)} models, weights alone", engine, "shipped", "float32", threads),
            make,
            lambda thetas: relative_error(np.concatenate(thetas), expected),
            LIMIT,
        )
        for engine, make in makes.items()
    ]
    found = list(compare(candidates, len(case.mlps), context.rounds))
    (row, public), (_, inner) = found[:2]
    if public is not None and inner is not None:
        share = 1 - inner.best / public.best  # of medians, where little separates them, noise is the larger part
        found[0] = dataclasses.replace(row, extra={**row.extra, "outside_native_share": share}), public
    yield from (row for row, _ in found)


def editor_of(case: NetworkCase, engine: str = "native") -> Editor:
    """An editor with the case's weights."""
    envelope = Envelope((1, 4), (1, 128), ACTIVATIONS, NORMS, 8)
    return Editor(EditorInfo("bench", case.config, envelope), case.weights, engine=engine)


def _inner_call(case: NetworkCase, threads: int) -> Edit:
    packed = native.pack(case.config, case.weights)
    gain = np.full(len(case.mlps), case.config.gamma * Pruning().residual_share(SPARSITY), np.float32)
    kept = np.array([kept_count(mlp.spec.n_weights, SPARSITY) for mlp in case.mlps], np.int64)
    arguments = (packed, case.config, case.graph, case.conditions, gain, kept)
    return lambda: case.graph.split(native.edit_models(*arguments, num_threads=threads).theta)


def _by_engine(case: NetworkCase, threads: int) -> Edit:
    editor = editor_of(case, "onnxruntime")
    return lambda: editor.edit_batch(case.graph, SPARSITY, num_threads=threads)


def _by_kernels(case: NetworkCase, threads: int) -> Edit:
    """The editor's graph in a session that has our library; the whole batch in one call."""
    from metaedit_fast.export.onnx import build_editor
    from metaedit_fast.export.session import EditorSession, structure_inputs

    session = EditorSession(build_editor(case.config, Pruning.name, case.weights), n_threads=threads, kernels=True)
    if not session.runs_kernels:
        raise RuntimeError("the session runs no kernels")
    inputs = {
        "theta": np.asarray(case.graph.theta),
        **structure_inputs(case.graph.specs),
        "budget": np.full(len(case.mlps), SPARSITY),
    }
    return lambda: case.graph.split(np.asarray(session.run(inputs)["edited"], np.float32))


def _by_torch(case: NetworkCase, threads: int) -> Edit:
    """Features in numpy, all models in one call of the torch module, ranking and write-back in numpy."""
    peer = load("torch_network", "torch")
    return lambda: _edited(case, peer.forward(NetworkCase(case.config, case.weights, case.mlps), threads=threads)())


def _edited(case: NetworkCase, heads: Heads) -> Thetas:
    requirement, thetas = Pruning(), []
    weight, node = 0, 0
    for mlp, features in zip(case.mlps, case.features, strict=True):
        n, v = mlp.spec.n_weights, sum(mlp.spec.widths)
        mine = Heads(
            score=np.float32(heads.score[weight : weight + n]),
            relative=np.float32(heads.relative[weight : weight + n]),
            additive=np.float32(heads.additive[weight : weight + n]),
            node=np.float32(heads.node[node : node + v]),
        )
        mask = requirement.mask(mlp.theta[:n], mine.score, SPARSITY)
        gain = case.config.gamma * requirement.residual_share(SPARSITY)
        thetas.append(edited_theta(mlp.spec, mlp.theta, features, mine, mask, gain))
        weight, node = weight + n, node + v
    return thetas
