"""Models of one node of the domain metaedit each, and what such nodes are fed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from metaedit_fast.export.weights import weight_shapes
from metaedit_fast.graph import WeightGraphBatch
from metaedit_fast.metanet import native
from metaedit_fast.metanet.apply import SCORE_GAIN
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.models import native as mlps
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import ACTIVATIONS, NORMS, LayerSpec, MLPSpec
from metaedit_fast.requirements.masks import kept_count
from metaedit_fast.requirements.pruning import Pruning

N_INPUTS = 5
F32, I64 = TensorProto.FLOAT, TensorProto.INT64
TABLES = {"layers": (I64, ["L", 6]), "skips": (I64, ["K", 3])}
STATISTICS = {"mean": (F32, ["N"]), "std": (F32, ["N"]), "gradient": (F32, ["O"]), "fisher": (F32, ["W"])}
Feed = dict[str, np.ndarray]


@functools.cache
def weights_of(config: MetanetConfig, seed: int = 0) -> Feed:
    """Random parameters of trained size: variance 1 / inputs of the matrices."""
    rng = np.random.default_rng(seed)
    size = {2: lambda shape: shape[1] ** -0.5, 1: lambda _: 0.3, 0: lambda _: 0.3}
    return {
        name: rng.normal(0, size[len(shape)](shape), shape).astype(np.float32) for name, shape in weight_shapes(config)
    }


def tables_of(specs: Sequence[MLPSpec]) -> Feed:
    layers = [
        [m, n_in, s.width, ACTIVATIONS.index(s.activation), NORMS.index(s.norm), s.bias + 2 * s.norm_affine]
        for m, spec in enumerate(specs)
        for n_in, s in zip(spec.widths, spec.layers, strict=False)
    ]
    skips = [[m, *skip] for m, spec in enumerate(specs) for skip in spec.skips]
    return {"layers": np.array(layers, np.int64).reshape(-1, 6), "skips": np.array(skips, np.int64).reshape(-1, 3)}


@dataclasses.dataclass(frozen=True)
class Node:
    """A model of one node."""

    op: str
    inputs: dict[str, tuple[int, list[Any]]]
    outputs: dict[str, tuple[int, list[Any]]]
    attributes: dict[str, Any]
    weights: Feed = dataclasses.field(default_factory=dict)

    def model(self, *, fed_weights: bool = False, **changed: Any) -> bytes:
        """``fed_weights``: as inputs, not initializers. ``changed``: other attributes; None takes one away."""
        attributes = {k: v for k, v in {**self.attributes, **changed}.items() if v is not None}
        node = helper.make_node(
            self.op, [*self.inputs, *self.weights], list(self.outputs), domain="metaedit", **attributes
        )
        fed = {k: (F32, list(v.shape)) for k, v in self.weights.items()} if fed_weights else {}
        graph = helper.make_graph(
            [node],
            self.op,
            [helper.make_tensor_value_info(k, *v) for k, v in {**self.inputs, **fed}.items()],
            [helper.make_tensor_value_info(k, *v) for k, v in self.outputs.items()],
            [] if fed_weights else [numpy_helper.from_array(v, k) for k, v in self.weights.items()],
        )
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("metaedit", 1)]
        return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def network_attributes(config: MetanetConfig) -> dict[str, Any]:
    names = ("form", "d_e", "d_v", "n_layers", "head_hidden", "n_edge_features", "n_node_features", "n_node_types")
    sizes = {name: getattr(config, name) for name in names}
    return {**sizes, "edits_parameters": int(config.edits_parameters), "score_gain": SCORE_GAIN}


def features_node(config: MetanetConfig) -> Node:
    return Node(
        "Features_v1",
        {"theta": (F32, ["P"]), **TABLES, **(STATISTICS if config.probe else {})},
        {
            "edge_features": (F32, ["W", config.n_edge_features]), "saliency": (F32, ["W"]), "rms": (F32, ["W"]),
            "node_features": (F32, ["N", config.n_node_features]), "node_type": (I64, ["N"]),
        },
        {"n_inputs": config.n_inputs, "n_classes": config.n_classes, "probe": int(config.probe)},
    )  # fmt: skip


def network_node(config: MetanetConfig) -> Node:
    return Node(
        "Metanetwork_v1",
        {
            **TABLES, "edge_features": (F32, ["W", config.n_edge_features]), "saliency": (F32, ["W"]),
            "node_features": (F32, ["N", config.n_node_features]), "node_type": (I64, ["N"]),
            "condition": (F32, ["M", 4]),
        },
        {**{name: (F32, ["W"]) for name in ("score", "relative", "additive")}, "node": (F32, ["N", 3])},
        network_attributes(config),
        weights_of(config),
    )  # fmt: skip


def edit_node(config: MetanetConfig) -> Node:
    return Node(
        "PrunedEdit_v1",
        {
            "theta": (F32, ["P"]), **TABLES, "condition": (F32, ["M", 4]), "gain": (F32, ["M"]), "kept": (I64, ["M"]),
            **(STATISTICS if config.probe else {}),
        },
        {"edited": (F32, ["P"]), "score": (F32, ["W"])},
        {**features_node(config).attributes, **network_attributes(config)},
        weights_of(config),
    )  # fmt: skip


class Case:
    """Models with all that the three nodes are fed, and what the native functions make of it."""

    def __init__(
        self, config: MetanetConfig, models: Sequence[MLP], seed: int = 0, budget: float | None = None
    ) -> None:
        self.config, self.models = config, list(models)
        self.batch = WeightGraphBatch.from_mlps(self.models)
        rows = np.random.default_rng(9).normal(size=(70, config.n_inputs)).astype(np.float32)
        pruning, budgets = Pruning(), np.random.default_rng(seed).uniform(0.1, 0.9, len(self.models))
        budgets = budgets if budget is None else np.full(len(self.models), budget)
        self.tables = tables_of([mlp.spec for mlp in self.models])
        self.theta = np.asarray(self.batch.theta)
        self.condition = np.array([pruning.condition(b) for b in budgets], np.float32).reshape(-1, 4)
        self.gain = np.array([config.gamma * pruning.residual_share(b) for b in budgets], np.float32)
        counts = [kept_count(mlp.spec.n_weights, b) for mlp, b in zip(self.models, budgets, strict=True)]
        self.kept = np.array(counts, np.int64)
        found = [mlps.probe_statistics(mlp, rows) for mlp in self.models] if config.probe else []
        self.statistics = {
            name: np.concatenate([np.empty(0, np.float32), *(statistics[i] for statistics in found)])
            for i, name in enumerate(STATISTICS if config.probe else ())
        }
        self.rows = [mlps.rows_of(mlp, rows) for mlp in self.models] if config.probe else None
        self._of_model = found or [None] * len(self.models)

    @property
    def features_feed(self) -> Feed:
        return {"theta": self.theta, **self.tables, **self.statistics}

    @property
    def edit_feed(self) -> Feed:
        return {**self.features_feed, "condition": self.condition, "gain": self.gain, "kept": self.kept}

    @functools.cached_property
    def features(self) -> list[Any]:
        return [native.model_features(m, self.config, s) for m, s in zip(self.models, self._of_model, strict=True)]

    def network_feed(self, features: Sequence[np.ndarray]) -> Feed:
        """``features``: the outputs of Features_v1."""
        edge, saliency, _, node, node_type = features
        found = {"edge_features": edge, "saliency": saliency, "node_features": node, "node_type": node_type}
        return {**self.tables, **found, "condition": self.condition}

    def native_edit(self, seed: int = 0, **options: Any) -> list[np.ndarray]:
        found = native.edit_models(
            native.pack(self.config, weights_of(self.config, seed)), self.config, self.batch, self.condition,
            self.gain, self.kept, probe=self.rows, scores=True, **{"num_threads": 1, **options},
        )  # fmt: skip
        return [found.theta, found.scores]


def random_models(n: int, seed: int = 0, n_inputs: int = N_INPUTS) -> list[MLP]:
    """Models that differ in depth, width, activation, norm, skips, outputs and in what they own."""
    rng = np.random.default_rng(seed)
    models = []
    for _ in range(n):
        widths = rng.integers(1, 24, rng.integers(0, 4))
        hidden = tuple(
            LayerSpec(
                int(w), str(rng.choice(ACTIVATIONS)), norm=str(rng.choice(NORMS)), bias=bool(rng.integers(2)),
                norm_affine=bool(rng.integers(2)),
            )
            for w in widths
        )  # fmt: skip
        pairs = [(s, t) for t in range(1, len(hidden) + 1) for s in range(t)]
        skips = tuple(pairs[i] for i in rng.permutation(len(pairs))[: rng.integers(0, 3)])
        spec = MLPSpec(n_inputs, (*hidden, LayerSpec(int(rng.integers(1, 3)))), skips)
        models.append(MLP(spec, rng.normal(0, 0.7, spec.n_parameters)))
    return models


class Nodes:
    """What the tests of this folder take from here."""

    case = Case
    features, network, edit = map(staticmethod, (features_node, network_node, edit_node))
    models, weights = map(staticmethod, (random_models, weights_of))


@pytest.fixture(scope="session")
def nodes() -> type[Nodes]:
    return Nodes
