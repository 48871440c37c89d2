"""The metanetwork, and whole edits, on the compiled kernels, for a batch of models: no torch needed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from metaedit_fast import _core
from metaedit_fast.graph import WeightGraphBatch
from metaedit_fast.metanet.apply import SCORE_GAIN, Heads
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.metanet.features import ModelFeatures
from metaedit_fast.models import native as mlps
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec
from metaedit_fast.threads import thread_count

Float32 = NDArray[np.float32]
KEEP_ALL = -1
EDITED, TOO_LARGE, NAN_SCORE = 0, 1, 2

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


@functools.lru_cache(maxsize=4096)
def edit_shape_of(spec: MLPSpec) -> _core.EditShape:
    """The architecture, its weight graph and what a model of it owns, as the kernels take them."""
    return _core.EditShape(mlps.shape_of(spec), [(layer.bias, layer.norm_affine) for layer in spec.layers])


def model_features(
    mlp: MLP, config: MetanetConfig, statistics: mlps.Statistics | None = None, *, isa: str | None = None
) -> ModelFeatures:
    """``features.model_features`` on the compiled kernels; ``statistics`` are those of ``models.native``.

    Raises ``ValueError`` where they are missing or not read, or where the model's outputs do not fit.
    """
    if config.probe is not (statistics is not None):
        raise ValueError(f"statistics: expected {'some' if config.probe else 'None'} where probe is {config.probe}")
    edge, node, node_type, saliency, rms = _core.model_features(
        edit_shape_of(mlp.spec), mlp.theta, n_node_types=config.n_node_types, statistics=statistics, isa=isa
    )
    widths = mlp.spec.widths
    return ModelFeatures(edge, node, node_type, saliency, np.repeat(rms, np.multiply(widths[:-1], widths[1:])))


@dataclasses.dataclass(frozen=True)
class Edits:
    """What ``edit_models`` gives for M models: ``theta`` (θ', float32 ``[P]``, models one after the other),
    ``status`` (int64 ``[M]``: ``EDITED``; else θ' is θ, because float32 cannot hold the model's features
    (``TOO_LARGE``) or a score is NaN (``NAN_SCORE``)), ``seconds`` that a thread worked on each model
    (float64 ``[M]``), and ``scores`` (float32, of all weights) where they were asked for.
    """

    theta: Float32
    status: NDArray[np.int64]
    seconds: NDArray[np.float64]
    scores: Float32 | None


def edit_models(
    editor: _core.PackedEditor,
    config: MetanetConfig,
    batch: WeightGraphBatch,
    condition: Float32,
    gain: Float32,
    kept: NDArray[np.int64],
    *,
    probe: Sequence[_core.PanelRows] | None = None,
    scores: bool = False,
    num_threads: int | None = None,
    isa: str | None = None,
    precision: str = "float32",
) -> Edits:
    """Whole edits of a batch: features, network, ranking and write-back in one call.

    For each of the M models: ``condition [M, 4]`` (``Requirement.condition``), ``gain [M]`` of the residual,
    both float32, and ``kept``, int64 ``[M]``: how many weights of the highest score the mask keeps, or
    ``KEEP_ALL`` for no mask. ``probe`` is the rows of each model (``models.native.rows_of``), exactly where
    ``config.probe``. Between θ and θ' nothing is stored but the values of one model a thread; only weights that
    are kept, and are not zero, have their edits computed.
    Threads, ``isa`` and ``precision`` as in ``metanetwork_forward``; so is what a result depends on.

    Equivalent to: ``edited_theta`` of ``model_features``, the network's heads and ``Pruning.mask``.

    Raises ``ValueError`` for a wrong shape, layout, ``kept``, number of threads or instruction set, for models
    that do not fit ``config``, and for a probe that is missing or not read; ``TypeError`` for a wrong dtype.
    """
    theta, found, status, seconds = _core.edit_models(
        editor,
        [edit_shape_of(spec) for spec in batch.specs],
        batch.theta,
        batch.theta_offsets,
        condition,
        gain,
        kept,
        n_inputs=config.n_inputs,
        probe=probe,
        scores=scores,
        num_threads=thread_count(num_threads),
        isa=isa,
        precision=precision,
    )
    return Edits(theta, status, seconds, found)
