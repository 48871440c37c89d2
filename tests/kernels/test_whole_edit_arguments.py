"""What the whole native edit says to wrong arguments: an exception that names the argument, never a crash."""

from __future__ import annotations

import numpy as np
import pytest

from metaedit_fast import _core
from metaedit_fast.export.weights import weight_shapes
from metaedit_fast.graph import WeightGraphBatch
from metaedit_fast.metanet import native
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.models import native as mlps
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec

CONFIG = MetanetConfig(3, d_e=4, d_v=6, n_layers=2, head_hidden=5)
PROBE_CONFIG = MetanetConfig(3, d_e=4, d_v=6, n_layers=2, head_hidden=5, probe=True)


def pack(config: MetanetConfig) -> _core.PackedEditor:
    return native.pack(config, {name: np.full(shape, 0.1, np.float32) for name, shape in weight_shapes(config)})


def arguments(config: MetanetConfig = CONFIG) -> dict[str, object]:
    """Valid arguments of ``_core.edit_models``, to be spoiled one at a time."""
    spec = MLPSpec.simple((3, 4, 4, 2), skips=[(1, 2)])
    batch = WeightGraphBatch.from_mlps([MLP(spec, np.ones(spec.n_parameters)) for _ in range(2)])
    return {
        "editor": pack(config),
        "shapes": [native.edit_shape_of(spec)] * 2,
        "theta": batch.theta,
        "theta_offsets": batch.theta_offsets,
        "condition": np.ones((2, 4), np.float32),
        "gain": np.ones(2, np.float32),
        "kept": np.array([3, native.KEEP_ALL]),
        "n_inputs": 3,
        "probe": [_core.PanelRows(np.ones((5, 3), np.float32))] * 2 if config.probe else None,
        "num_threads": 1,
    }


@pytest.mark.parametrize("config", [CONFIG, PROBE_CONFIG], ids=["weights", "probe"])
def test_right_arguments(config: MetanetConfig) -> None:
    assert np.isfinite(_core.edit_models(**arguments(config))[0]).all()


def shape(*widths: int) -> _core.EditShape:
    return native.edit_shape_of(MLPSpec.simple(widths))


WRONG = [
    ("shapes", [None, None], TypeError, r"shapes\[0\]: expected an EditShape"),
    ("shapes", [shape(3, 4, 4, 2), shape(4, 4, 2)], ValueError, r"shapes\[1\]: expected 3 inputs and 2 classes, got 4"),
    (
        "shapes",
        [shape(3, 3), shape(3, 3)],
        ValueError,
        r"shapes\[0\]: expected 3 inputs and 2 classes, got 3 inputs and 3",
    ),
    ("shapes", [shape(3, 4, 2), shape(3, 4, 2)], ValueError, r"theta_offsets\[1\]: expected 26"),
    ("theta", np.ones(5), TypeError, r"theta: expected a float32 array"),
    ("theta", np.ones(5, np.float32), ValueError, r"theta_offsets\[0\]: expected 0 and 46 parameters"),
    ("theta", np.ones(93, np.float32), ValueError, "theta: expected 92 parameters, got 93"),
    ("theta", np.ones(184, np.float32)[::2], ValueError, "theta: .* not C-contiguous"),
    ("theta_offsets", np.array([0, 46]), ValueError, r"theta_offsets: expected a int64 array of shape \[3\]"),
    ("theta_offsets", np.array([0, 45, 92]), ValueError, r"theta_offsets\[1\]: expected 46"),
    ("theta_offsets", np.array([0, 46, 2**62]), ValueError, "theta: expected 92"),
    ("condition", np.ones((2, 3), np.float32), ValueError, r"condition: .* shape \[2, 4\]"),
    ("gain", np.ones(3, np.float32), ValueError, r"gain: .* shape \[2\]"),
    ("kept", np.array([37, 0]), ValueError, r"kept\[0\]: expected 0 to 36, or -1 for no mask, got 37"),
    ("kept", np.array([0, -2]), ValueError, r"kept\[1\]: expected 0 to 36"),
    ("n_inputs", 0, ValueError, "n_inputs: expected 1 to"),
    ("n_inputs", 99, ValueError, "n_inputs: expected 1 to"),
    ("n_inputs", 2, ValueError, r"shapes\[0\]: expected 2 inputs and 3 classes"),
    ("probe", [_core.PanelRows(np.ones((5, 3), np.float32))] * 2, ValueError, "probe: expected None for an editor"),
    ("num_threads", 0, ValueError, "num_threads: expected at least 1"),
    ("isa", "mmx", ValueError, "isa: expected an instruction set"),
]


@pytest.mark.parametrize(("name", "value", "error", "message"), WRONG)
def test_wrong_arguments(name: str, value: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _core.edit_models(**{**arguments(), name: value})


PROBES = [
    (None, "probe: expected rows for an editor with 8 edge and 13 node features"),
    ([_core.PanelRows(np.ones((5, 3), np.float32))], "probe: expected the rows of 2 models, got 1"),
    ([_core.PanelRows(np.ones((5, 4), np.float32))] * 2, r"probe\[0\]: expected at least one row of 3 columns"),
    ([_core.PanelRows(np.ones((0, 3), np.float32))] * 2, r"probe\[0\]: expected at least one row"),
]


@pytest.mark.parametrize(("probe", "message"), PROBES)
def test_wrong_probes(probe: object, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        _core.edit_models(**{**arguments(PROBE_CONFIG), "probe": probe})


def test_shapes_need_a_pair_a_layer() -> None:
    with pytest.raises(ValueError, match="owned: expected a pair for each of 3 layers, got 1"):
        _core.EditShape(mlps.shape_of(MLPSpec.simple((3, 4, 4, 2))), [(True, True)])


def test_features_tell_wrong_arguments() -> None:
    spec = MLPSpec.simple((3, 4, 2))
    mlp, found = MLP(spec, np.ones(spec.n_parameters)), native.edit_shape_of(spec)
    with pytest.raises(ValueError, match="statistics: expected None where probe is False"):
        native.model_features(mlp, CONFIG, mlps.probe_statistics(mlp, np.ones((4, 3))))
    with pytest.raises(ValueError, match="statistics: expected some where probe is True"):
        native.model_features(mlp, PROBE_CONFIG)
    types = {"n_node_types": CONFIG.n_node_types}
    with pytest.raises(ValueError, match="shape: expected 3 inputs and 3 classes, got 3 inputs and 2 outputs"):
        _core.model_features(found, mlp.theta, n_node_types=CONFIG.n_node_types + 1)
    with pytest.raises(ValueError, match=r"theta: expected a float32 array of shape \[26\]"):
        _core.model_features(found, mlp.theta[1:], **types)
    with pytest.raises(TypeError, match="statistics: expected a tuple"):
        _core.model_features(found, mlp.theta, **types, statistics=3)
    parts = (np.ones(9, np.float32), np.ones(9, np.float32), np.ones(6, np.float32), np.ones(19, np.float32))
    with pytest.raises(ValueError, match=r"statistics\[3\]: expected a float32 array of shape \[20\]"):
        _core.model_features(found, mlp.theta, **types, statistics=parts)
