"""What the native network says to wrong arguments: an exception that names the argument, never a crash."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from metaedit_fast import _core
from metaedit_fast.export.weights import weight_shapes
from metaedit_fast.graph import WeightGraphBatch
from metaedit_fast.metanet import native
from metaedit_fast.metanet.apply import Heads
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.metanet.features import model_features
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec
from metaedit_fast.requirements.pruning import Pruning

CONFIG = MetanetConfig(3, d_e=4, d_v=6, n_layers=2, head_hidden=5)
HUGE = 2**62


def packing() -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Valid parameters and sizes for ``_core.PackedEditor``."""
    parameters = {name: np.full(shape, 0.1, np.float32) for name, shape in weight_shapes(CONFIG)}
    sizes = {name: getattr(CONFIG, name) for name in ("form", "d_e", "d_v", "n_layers", "head_hidden")}
    counts = {name: getattr(CONFIG, name) for name in ("n_edge_features", "n_node_features", "n_node_types")}
    return parameters, {**sizes, **counts, "edits_parameters": True, "score_gain": 4.0}


class Arguments:
    """Valid arguments of ``_core.metanetwork_forward``, to be spoiled one at a time."""

    def __init__(self) -> None:
        spec = MLPSpec.simple((3, 4, 4, 2), skips=[(1, 2)])
        mlps = [MLP(spec, np.ones(spec.n_parameters)) for _ in range(2)]
        batch = WeightGraphBatch.from_mlps(mlps)
        self.editor = native.pack(CONFIG, packing()[0])
        self.blocks, self.block_model = batch.blocks.copy(), np.ascontiguousarray(batch.block_model)
        self.node_offsets = batch.node_offsets.copy()
        found = [model_features(mlp, CONFIG) for mlp in mlps]
        self.features: list[object] = [[f.edge, f.node, f.node_type.copy(), f.saliency] for f in found]
        self.condition = np.stack([Pruning().condition(0.5)] * 2)
        self.options: dict[str, object] = {"num_threads": 1}

    def call(self) -> Heads:
        features = [tuple(f) if isinstance(f, list) else f for f in self.features]
        found = _core.metanetwork_forward(
            self.editor, self.blocks, self.block_model, self.node_offsets, features, self.condition, **self.options
        )
        return Heads(*found)


def set_block(row: int, column: int, value: int) -> Callable[[Arguments], None]:
    return lambda a: a.blocks.__setitem__((row, column), value)


def set_field(name: str, change: Callable[[Arguments], object]) -> Callable[[Arguments], None]:
    return lambda a: setattr(a, name, change(a))


def set_feature(model: int, field: int, change: Callable[[np.ndarray], object]) -> Callable[[Arguments], None]:
    return lambda a: a.features[model].__setitem__(field, change(a.features[model][field]))


def set_option(name: str, value: object) -> Callable[[Arguments], None]:
    return lambda a: a.options.__setitem__(name, value)


def swap_kinds(a: Arguments) -> None:
    """The first model's identity block in front of its dense ones."""
    order = [3, 0, 1, 2, 4, 5, 6, 7]
    a.blocks = a.blocks[order]
    a.blocks[:, 4] = np.cumsum([0, 4, 12, 16, 8, 12, 16, 8])


def order_by_shape(a: Arguments) -> None:
    order = [0, 4, 1, 5, 2, 6, 3, 7]
    a.blocks, a.block_model = a.blocks[order], a.block_model[order]
    a.blocks[:, 4] = np.cumsum([0, 12, 12, 16, 16, 8, 8, 4])


def out_of(a: Arguments) -> tuple[np.ndarray, ...]:
    found = a.call()
    return found.score, found.relative, found.additive, found.node


def reuse_input(a: Arguments) -> None:
    a.options["out"] = (a.features[0][3], *out_of(a)[1:])


def reuse_output(a: Arguments) -> None:
    score, _, additive, node = out_of(a)
    a.options["out"] = (score, score, additive, node)


WRONG: list[tuple[Callable[[Arguments], None], type[Exception], str]] = [
    (set_block(0, 0, HUGE), ValueError, r"blocks\[0\]: src_offset"),
    (set_block(0, 1, HUGE), ValueError, r"blocks\[0\]: src_offset"),
    (set_block(3, 1, HUGE), ValueError, r"blocks\[3\]: n_dst: expected n_src"),
    (set_block(0, 3, HUGE), ValueError, r"blocks\[0\]: dst_offset"),
    (set_block(0, 3, 0), ValueError, r"blocks\[0\]: n_dst: expected at least 1"),
    (set_block(1, 4, 11), ValueError, r"blocks\[1\]: edge_offset"),
    (set_block(1, 5, 7), ValueError, r"blocks\[1\]: kind"),
    (set_block(0, 0, 12), ValueError, r"blocks\[0\]: expected nodes of its model, 0 to 12"),
    (set_block(4, 2, 3), ValueError, r"blocks\[4\]: expected nodes of its model, 13 to 25"),
    (swap_kinds, ValueError, r"blocks\[1\]: expected a model's dense blocks in front"),
    (set_field("blocks", lambda a: a.blocks[:, :5].copy()), ValueError, r"blocks: .*\[any, 6\]"),
    (set_field("blocks", lambda a: a.blocks.astype(np.int32)), TypeError, "blocks: .*got dtype int32"),
    (set_field("block_model", lambda a: a.block_model[1:]), ValueError, r"block_model: .*\[8\], got shape \[7\]"),
    (set_field("block_model", lambda a: a.block_model + 2), ValueError, r'order="model"'),
    (set_field("block_model", lambda a: 1 - a.block_model), ValueError, r"blocks\[0\]: expected nodes of its model"),
    (order_by_shape, ValueError, r'blocks\[2\]: .*order="model".*got model 0'),
    (set_field("block_model", lambda a: a.block_model - HUGE), ValueError, r'order="model"'),
    (set_field("node_offsets", lambda a: a.node_offsets[1:]), ValueError, r"node_offsets: .*\[3\], got shape \[2\]"),
    (set_field("node_offsets", lambda a: a.node_offsets + 1), ValueError, "node_offsets: expected a rising"),
    (set_field("node_offsets", lambda a: a.node_offsets[[0, 2, 1]]), ValueError, "node_offsets: expected a rising"),
    (set_field("node_offsets", lambda a: np.array([0, 13, 14])), ValueError, r"blocks\[4\]"),
    (set_field("features", lambda a: a.features[:1]), ValueError, r"node_offsets: .*shape \[2\]"),
    (set_field("features", lambda a: [None, None]), TypeError, r"features\[0\]: expected a tuple .*NoneType"),
    (set_field("features", lambda a: [a.features[0][:3], ()]), TypeError, r"features\[0\]: expected a tuple"),
    (set_feature(1, 0, lambda x: x[1:]), ValueError, r"features\[1\].edge: .*\[36, 5\], got shape \[35, 5\]"),
    (set_feature(1, 0, lambda x: x[:, :4].copy()), ValueError, r"features\[1\].edge: .*got shape \[36, 4\]"),
    (set_feature(0, 1, lambda x: x.astype(np.float64)), TypeError, r"features\[0\].node: .*got dtype float64"),
    (set_feature(0, 1, np.asfortranarray), ValueError, r"features\[0\].node: .*not C-contiguous"),
    (set_feature(0, 2, lambda x: x + 99), ValueError, r"features\[0\].node_type: expected 0 to 15, got 99"),
    (set_feature(0, 2, lambda x: x - 1), ValueError, r"features\[0\].node_type: expected 0 to 15, got -1"),
    (set_feature(0, 3, lambda x: x[:, None].copy()), ValueError, r"features\[0\].saliency"),
    (set_field("condition", lambda a: a.condition[:1]), ValueError, r"condition: .*\[2, 4\], got shape \[1, 4\]"),
    (set_field("editor", lambda a: object()), TypeError, "incompatible function arguments"),
    (set_option("num_threads", 0), ValueError, "num_threads: expected at least 1, got 0"),
    (set_option("precision", "bf16 "), ValueError, "precision: expected 'float32', 'bf16x3' or 'bf16', got 'bf16 '"),
    (set_option("isa", "mmx"), ValueError, "isa: expected an instruction set"),
    (set_option("out", ()), TypeError, "out: expected a tuple"),
    (lambda a: a.options.update(out=out_of(a)[::-1]), ValueError, r"out\[0\]: .*\[72\], got shape \[26, 3\]"),
    (reuse_input, ValueError, r"out\[0\]: "),
    (reuse_output, ValueError, r"out\[1\]: expected memory apart"),
]


def test_the_unspoiled_arguments_are_right() -> None:
    assert np.isfinite(Arguments().call().score).all()


@pytest.mark.parametrize(("spoil", "error", "message"), WRONG)
def test_wrong_arguments(spoil: Callable[[Arguments], None], error: type[Exception], message: str) -> None:
    arguments = Arguments()
    spoil(arguments)
    with pytest.raises(error, match=message):
        arguments.call()


def test_wrong_parameters() -> None:
    for name, value, message in (
        ("layers.1.update.weight", None, '"layers.1.update.weight" is missing'),
        ("layers.2.update.weight", np.ones(3, np.float32), 'expected none with the name "layers.2.update.weight"'),
        ("condition_in.weight", np.ones((32, 5), np.float32), r"condition_in.weight.*\[32, 4\], got shape \[32, 5\]"),
        ("saliency_gain", np.ones(1, np.float32), r"saliency_gain.*shape \[\], got shape \[1\]"),
    ):
        parameters, sizes = packing()
        parameters.pop(name, None)
        if value is not None:
            parameters[name] = value
        with pytest.raises(ValueError, match=message):
            _core.PackedEditor(parameters, **sizes)


def test_wrong_sizes() -> None:
    for name, value, message in (
        ("form", "other", "form: expected 'shipped' or 'official', got 'other'"),
        ("d_e", 0, "sizes: expected at least 1 each, got 0"),
        ("n_layers", -1, "sizes: expected at least 1 each, got -1"),
        ("n_layers", 3, '"layers.2.edge.weight" is missing'),
        ("n_layers", HUGE, '"layers.2.edge.weight" is missing'),
        ("d_v", HUGE, "got shape"),
    ):
        parameters, sizes = packing()
        with pytest.raises(ValueError, match=message):
            _core.PackedEditor(parameters, **{**sizes, name: value})


def test_an_empty_batch_has_no_nodes() -> None:
    a = Arguments()
    a.blocks, a.block_model, a.features, a.condition = a.blocks[:0], a.block_model[:0], [], a.condition[:0]
    a.node_offsets = np.array([HUGE])
    with pytest.raises(ValueError, match="node_offsets: expected a rising"):
        a.call()
    a.node_offsets = np.array([0])
    assert a.call().node.shape == (0, 3)


def test_the_wrapper_counts_the_features() -> None:
    a = Arguments()
    spec = MLPSpec.simple((3, 2))
    batch = WeightGraphBatch.from_mlps([MLP(spec, np.zeros(spec.n_parameters))])
    with pytest.raises(ValueError, match="features: expected those of 1 models, got 0"):
        native.metanetwork_forward(a.editor, batch, [], a.condition)
