"""Architectures: validation, the layout of θ, JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaedit_fast.models.spec import ACTIVATIONS, LayerSpec, MLPSpec


@settings(deadline=None)
@given(st.from_type(MLPSpec))
def test_json_round_trip(spec: MLPSpec) -> None:
    again = MLPSpec.from_json(spec.to_json())
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.to_json() == spec.to_json()


@settings(deadline=None)
@given(st.from_type(MLPSpec))
def test_parameter_slices_tile_theta(spec: MLPSpec) -> None:
    stop = 0
    for _, _, where, shape in spec.parameter_slices:
        assert where.start == stop
        assert where.stop - where.start == np.prod(shape)
        stop = where.stop
    assert stop == spec.n_parameters
    kinds = [kind for kind, *_ in spec.parameter_slices]
    assert kinds[: len(spec.layers)] == ["weight"] * len(spec.layers)
    assert kinds[len(spec.layers) : 2 * len(spec.layers)] == ["bias"] * len(spec.layers)
    assert spec.parameter_slices[len(spec.layers) - 1][2].stop == spec.n_weights


def test_layout_of_a_network_with_norms() -> None:
    spec = MLPSpec.simple((3, 4, 2), norm="layer")
    assert spec.parameter_slices == (
        ("weight", 0, slice(0, 12), (3, 4)),
        ("weight", 1, slice(12, 20), (4, 2)),
        ("bias", 0, slice(20, 24), (4,)),
        ("bias", 1, slice(24, 26), (2,)),
        ("norm_scale", 0, slice(26, 30), (4,)),
        ("norm_shift", 0, slice(30, 34), (4,)),
    )
    assert (spec.n_weights, spec.n_parameters, spec.n_outputs) == (20, 34, 2)


def test_simple_gives_hidden_layers_their_activation_and_norm() -> None:
    spec = MLPSpec.simple((3, 4, 5, 2), "tanh", norm="layer", skips=[(1, 2), (0, 1), (1, 2)])
    assert spec.widths == (3, 4, 5, 2)
    assert [layer.activation for layer in spec.layers] == ["tanh", "tanh", "identity"]
    assert [layer.norm for layer in spec.layers] == ["layer", "layer", "none"]
    assert spec.skips == ((0, 1), (1, 2))
    assert spec.skips_into(2) == [1]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_alpha_has_the_usual_default(activation: str) -> None:
    expected = {"leaky_relu": 0.01, "elu": 1.0}.get(activation, 0.0)
    assert LayerSpec(3, activation).alpha == expected
    assert LayerSpec(3, activation, alpha=0.5).alpha == 0.5


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"width": 0}, "width"),
        ({"width": 2.0}, "width"),
        ({"width": 2, "activation": "softplus"}, "softplus"),
        ({"width": 2, "norm": "batch"}, "batch"),
    ],
)
def test_layer_refuses(fields: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        LayerSpec(**fields)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"n_inputs": 0}, "n_inputs"),
        ({"layers": ()}, "layers"),
        ({"layers": (LayerSpec(2, "relu"),)}, "last layer"),
        ({"layers": (LayerSpec(2, norm="layer"),)}, "last layer"),
        ({"output": "exp"}, "output"),
        ({"output": "sigmoid"}, "multi-label"),
        ({"skips": ((1, 1),)}, "skip"),
        ({"skips": ((0, 2),)}, "skip"),
        ({"skips": ((-1, 1),)}, "skip"),
    ],
)
def test_spec_refuses(fields: dict, named: str) -> None:
    good = {"n_inputs": 3, "layers": (LayerSpec(4, "relu"), LayerSpec(2))}
    MLPSpec(**good)
    with pytest.raises(ValueError, match=named):
        MLPSpec(**{**good, **fields})


@pytest.mark.parametrize("damage", ["[]", "{}", "null", "{", '{"n_inputs": 3}', "3"])
def test_from_json_refuses_other_texts(damage: str) -> None:
    with pytest.raises(ValueError, match=r"MLPSpec|Expecting"):
        MLPSpec.from_json(damage)


@settings(deadline=None)
@given(st.from_type(MLPSpec), st.data())
def test_from_json_refuses_a_missing_or_unknown_field(spec: MLPSpec, data: st.DataObject) -> None:
    raw = json.loads(spec.to_json())
    missing = dict(raw)
    del missing[data.draw(st.sampled_from(sorted(raw)))]
    with pytest.raises(ValueError, match="MLPSpec"):
        MLPSpec.from_json(json.dumps(missing))
    raw["layers"][0]["dropout"] = 0.1
    with pytest.raises(ValueError, match="dropout"):
        MLPSpec.from_json(json.dumps(raw))


def test_owned_parameters_are_all_but_frozen_biases_and_norms() -> None:
    frozen = LayerSpec(4, "relu", norm="layer", bias=False, norm_affine=False)
    spec = MLPSpec(6, (frozen, LayerSpec(2)))
    for kind, layer, where, _ in spec.parameter_slices:
        assert (spec.owned_parameters[where] == (kind == "weight" or layer == 1)).all()
    own_all = dataclasses.replace(frozen, bias=True, norm_affine=True)
    assert MLPSpec(6, (own_all, LayerSpec(2))).owned_parameters.all()


def test_numbers_of_numpy_are_taken_and_others_refused() -> None:
    spec = MLPSpec.simple(tuple(np.array([3, 4, 2])))
    assert spec == MLPSpec.simple((3, 4, 2))
    assert spec.to_json() == MLPSpec.simple((3, 4, 2)).to_json()
    assert LayerSpec(2, "elu", np.float32(0.5)) == LayerSpec(2, "elu", 0.5)
    for bad in ({"width": True}, {"width": 2.0}, {"width": 2, "alpha": "x"}, {"width": 2, "bias": 1}):
        with pytest.raises(ValueError, match="expected"):
            LayerSpec(**bad)


def test_a_spec_hashes_anew_in_another_process() -> None:
    spec = MLPSpec.simple((3, 4, 2), "silu")
    assert {spec: 1}[pickle.loads(pickle.dumps(spec))] == 1
    code = (
        "import pickle, sys; from metaedit_fast.models.spec import MLPSpec; "
        "spec = pickle.load(sys.stdin.buffer); print(spec in {MLPSpec.simple((3, 4, 2), 'silu')})"
    )
    for seed in ("1", "2"):  # of the hashes of texts
        found = subprocess.run(
            [sys.executable, "-c", code],
            input=pickle.dumps(spec),
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        assert found.stdout.strip() == b"True", found.stderr.decode()
