"""The metanetwork on the compiled kernels, over numpy arrays: one layer or the whole of it, no torch needed.

Kernels exist for several instruction sets; the best one that the machine has runs, or the one that the
environment variable ``METAEDIT_ISA`` names (``serial``, ``avx2``, ``avx512``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from metaedit_fast import _core
from metaedit_fast.graph import WeightGraphBatch
from metaedit_fast.metanet.apply import SCORE_GAIN, Heads
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.metanet.features import ModelFeatures

Float32 = NDArray[np.float32]

FORMS = {"shipped": _core.shipped_forward, "official": _core.official_forward}
THREADS_VARIABLE = "METAEDIT_NUM_THREADS"


def layer_forward(
    form: str,
    batch: WeightGraphBatch,
    h: Float32,
    e: Float32,
    parameters: Mapping[str, Float32],
    *,
    isa: str | None = None,
    out: tuple[Float32, Float32] | None = None,
) -> tuple[Float32, Float32]:
    """One forward layer: the next ``(h, e)``.

    ``form`` is ``"shipped"`` or ``"official"``; ``h`` is float32 ``[batch.n_nodes, d_v]`` and ``e``
    float32 ``[batch.n_edges, d_e]`` in the batch's edge order. ``parameters`` has the names and shapes
    of the reference layer's ``state_dict``. ``isa`` names an instruction set to run instead of the active
    one. ``out`` names arrays to write to instead of new ones; they must not overlap the inputs. Arrays are
    C-contiguous and never converted or copied.

    Equivalent to: ``reference.LAYERS[form](d_e, d_v)`` with these parameters, without gradients.

    Raises ``ValueError`` for an unknown form, a wrong shape or layout, a parameter that is missing or
    unknown, or an instruction set that this machine lacks, ``TypeError`` for a wrong dtype.
    """
    if form not in FORMS:
        raise ValueError(f"form: expected one of {tuple(FORMS)}, got {form!r}")
    for name, array, rows in (("h", h, batch.n_nodes), ("e", e, batch.n_edges)):
        if array.ndim != 2 or array.shape[0] != rows:
            raise ValueError(f"{name}: expected shape [{rows}, any], got {array.shape}")
    return FORMS[form](batch.blocks, h, e, dict(parameters), isa=isa, out=out)


def pack(config: MetanetConfig, weights: Mapping[str, Float32]) -> _core.PackedEditor:
    """The parameters of a metanetwork, copied into the order in which the kernels read them.

    ``weights`` has the names and shapes of ``Metanetwork(config).state_dict()``, float32. Pack once, use
    for any number of calls, from any number of threads. Raises ``ValueError`` for a wrong shape or a name
    that is missing or unknown, ``TypeError`` for a wrong dtype.
    """
    return _core.PackedEditor(
        dict(weights),
        form=config.form,
        d_e=config.d_e,
        d_v=config.d_v,
        n_layers=config.n_layers,
        head_hidden=config.head_hidden,
        n_edge_features=config.n_edge_features,
        n_node_features=config.n_node_features,
        n_node_types=config.n_node_types,
        edits_parameters=config.edits_parameters,
        score_gain=SCORE_GAIN,
    )


def metanetwork_forward(
    editor: _core.PackedEditor,
    batch: WeightGraphBatch,
    features: Sequence[ModelFeatures],
    condition: Float32,
    *,
    num_threads: int | None = None,
    isa: str | None = None,
    out: Heads | None = None,
) -> Heads:
    """What the metanetwork gives for a batch of models, the models one after the other in every array.

    ``batch`` has ``order="model"``; ``features`` holds the ``model_features`` of each of its models;
    ``condition`` is float32 ``[M, 4]`` (``apply.condition``). Models are shared out to ``num_threads``
    threads, by default ``METAEDIT_NUM_THREADS``, else as many as this process may use. ``isa`` names an
    instruction set to run instead of the active one, ``out`` float32 arrays to write to instead of new ones.

    A model's result depends on the model, the editor and the instruction set alone, to the bit: neither on
    the other models nor on the number of threads. A ``d_e`` above 128 runs plain C++.

    Equivalent to: ``Metanetwork(config)`` with the packed weights, without gradients.

    Raises ``ValueError`` for a wrong shape, layout, node type, number of threads or instruction set,
    ``TypeError`` for a wrong dtype.
    """
    if len(features) != batch.n_models:
        raise ValueError(f"features: expected those of {batch.n_models} models, got {len(features)}")
    found = _core.metanetwork_forward(
        editor,
        batch.blocks,
        np.ascontiguousarray(batch.block_model),
        batch.node_offsets,
        [(f.edge, f.node, f.node_type, f.saliency) for f in features],
        condition,
        num_threads=default_threads() if num_threads is None else num_threads,
        isa=isa,
        out=None if out is None else (out.score, out.relative, out.additive, out.node),
    )
    return Heads(*found)


def default_threads() -> int:
    """``METAEDIT_NUM_THREADS``, else the number of processors that this process may use.

    Raises ``ValueError`` where the variable is not a whole number from 1 on.
    """
    wanted = os.environ.get(THREADS_VARIABLE, "")
    if wanted:
        if not wanted.isdecimal() or int(wanted) < 1:
            raise ValueError(f"{THREADS_VARIABLE}: expected a whole number from 1 on, got {wanted!r}")
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
