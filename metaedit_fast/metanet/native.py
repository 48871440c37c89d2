"""The whole metanetwork on the compiled kernels, for a batch of models: no torch needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from metaedit_fast import _core
from metaedit_fast.graph import WeightGraphBatch
from metaedit_fast.metanet.apply import SCORE_GAIN, Heads
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.metanet.features import ModelFeatures
from metaedit_fast.threads import thread_count

Float32 = NDArray[np.float32]

# Each with its bound on the error of a layer, norm-wise against float64; that of a network is about twice as large.
PRECISIONS = {"float32": 1e-6, "bf16x3": 1e-5, "bf16": 5e-3}


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
    precision: str = "float32",
    out: Heads | None = None,
) -> Heads:
    """What the metanetwork gives for a batch of models, the models one after the other in every array.

    ``batch`` has ``order="model"``; ``features`` holds the ``model_features`` of each of its models;
    ``condition`` is float32 ``[M, 4]`` (``Requirement.condition``). Models are shared out to ``num_threads``
    threads, by default ``METAEDIT_NUM_THREADS``, else as many as this process may use; all of them share each
    large model where there are at most half as many models. ``isa`` names an instruction set to run instead of
    the active one, ``out`` float32 arrays to write to instead of new ones.

    ``precision`` is an upper bound on the error: ``"float32"``, ``"bf16x3"`` or ``"bf16"`` (``PRECISIONS``).
    An instruction set that has nothing faster for it runs its float32 kernels;
    ``editor.arithmetic(precision, isa)`` tells which of the three runs.

    A model's result depends on the model, the editor, the instruction set and the precision alone, to the bit:
    neither on the other models nor on the number of threads. A ``d_e`` above 128 runs plain C++.

    Equivalent to: ``Metanetwork(config)`` with the packed weights, without gradients.

    Raises ``ValueError`` for a wrong shape, layout, node type, number of threads, precision or instruction set,
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
        num_threads=thread_count(num_threads),
        isa=isa,
        precision=precision,
        out=None if out is None else (out.score, out.relative, out.additive, out.node),
    )
    return Heads(*found)
