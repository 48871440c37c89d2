"""What tells the architecture of a file of tensors: the JSON beside it, in its header, or in ``config.json``."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any, NoReturn

from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.models.spec import LayerSpec, MLPSpec

MAX_BYTES = 1 << 20
MAX_LAYERS = MAX_SKIPS = 1000  # reading takes the square of their number
# The names that transformers gives to activations, by ours.
_ACTIVATIONS = {
    "relu": "relu", "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_tanh": "gelu_tanh", "silu": "silu", "swish": "silu", "tanh": "tanh", "leaky_relu": "leaky_relu",
    "sigmoid": "sigmoid", "elu": "elu", "relu6": "relu6", "linear": "identity", "identity": "identity",
}  # fmt: skip
_OUTPUT_OF = {None: "logits", "single_label_classification": "logits", "regression": "identity"}
_EPS_OF = {"none": None, "layer_norm": "layer_norm_eps", "batch_norm": "batch_norm_eps"}
_SPEC_KEYS = {"n_inputs", "layers", "skips", "output"}
_FLAT_KEYS = {
    *("input_size", "hidden_sizes", "output_size", "num_labels", "hidden_act", "norm", "layer_norm_eps", "bias"),
    *("problem_type", "output"),
}
_COMMON_KEYS = {"model_type", "modules", "batch_norm_eps"}
# They change nothing of what a model computes in evaluation. id2label tells the number of outputs.
_WITHOUT_EFFECT = {
    *("architectures", "transformers_version", "torch_dtype", "dtype", "id2label", "label2id", "_name_or_path"),
    *("dropout", "hidden_dropout_prob", "initializer_range"),
}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """An architecture, and how the tensors of a file belong to it.

    ``modules`` are the names of the modules that own tensors, first to last, None where their numbers tell the
    order. ``batch_norm_eps`` is set where batch norms may stand right behind linear layers.
    """

    spec: MLPSpec
    modules: tuple[str, ...] | None
    batch_norm_eps: float | None


def parse_architecture(text: str | bytes, where: str) -> Architecture:
    """Read the JSON object ``text`` of the place ``where``; docs/models.md lists its keys.

    Either the JSON of an ``MLPSpec``, or the flat form that configurations of Hugging Face have. Raises
    ``UnsupportedModelError``, naming the key, for a key that is not known or a value that does not fit.
    """
    if len(text) > MAX_BYTES:
        _refuse(where, f"at most {MAX_BYTES} bytes", len(text))
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnsupportedModelError(f"{where}: expected a JSON object, got {error}") from error
    if not isinstance(raw, dict):
        _refuse(where, "a JSON object", type(raw).__name__)
    if raw.get("model_type", "mlp") != "mlp":
        _refuse(f"{where}: model_type", "'mlp'", raw["model_type"])
    is_spec = "layers" in raw
    if not is_spec and "model_type" not in raw:
        _refuse(where, "the JSON of an MLPSpec (key layers) or model_type 'mlp'", sorted(raw))
    unknown = sorted(raw.keys() - (_SPEC_KEYS if is_spec else _FLAT_KEYS) - _COMMON_KEYS - _WITHOUT_EFFECT)
    if unknown:
        _refuse(where, "known keys alone, because another may change what is computed", unknown)
    modules = raw.get("modules")
    if modules is not None and not (isinstance(modules, list) and all(isinstance(name, str) for name in modules)):
        _refuse(f"{where}: modules", "a list of names", modules)
    eps = raw.get("batch_norm_eps")
    try:
        spec = MLPSpec.from_json(json.dumps(raw)) if is_spec else _flat(raw, where)
    except UnsupportedModelError:
        raise
    except ValueError as error:
        raise UnsupportedModelError(f"{where}: {error}") from error
    if len(spec.layers) > MAX_LAYERS or len(spec.skips) > MAX_SKIPS:
        got = f"{len(spec.layers)} layers and {len(spec.skips)} skips"
        _refuse(where, f"at most {MAX_LAYERS} layers and {MAX_SKIPS} skips", got)
    return Architecture(
        spec,
        None if modules is None else tuple(modules),
        None if eps is None else _eps(eps, f"{where}: batch_norm_eps"),
    )


def _flat(raw: dict[str, Any], where: str) -> MLPSpec:
    act, norm = raw.get("hidden_act"), raw.get("norm", "none")
    if not isinstance(act, str) or act not in _ACTIVATIONS:
        _refuse(f"{where}: hidden_act", f"one of {', '.join(_ACTIVATIONS)}", act)
    if norm not in _EPS_OF:
        _refuse(f"{where}: norm", f"one of {', '.join(_EPS_OF)}", norm)
    for kind, key in _EPS_OF.items():
        if key is not None and (key in raw) != (norm == kind):
            _refuse(f"{where}: {key}", f"a number with norm {kind!r}, and none otherwise", raw.get(key))
    problem = raw.get("problem_type")
    if problem not in _OUTPUT_OF:
        _refuse(f"{where}: problem_type", "single_label_classification or regression", problem)
    bias, sizes = raw.get("bias", True), raw.get("hidden_sizes")
    if not isinstance(sizes, list):
        _refuse(f"{where}: hidden_sizes", "a list of widths", sizes)
    fields: dict[str, Any] = {"activation": _ACTIVATIONS[act], "bias": bias}
    if norm == "layer_norm":
        fields |= {"norm": "layer", "eps": _eps(raw["layer_norm_eps"], f"{where}: layer_norm_eps")}
    hidden = [LayerSpec(width, **fields) for width in sizes]
    last = LayerSpec(_n_outputs(raw, where), bias=bias)
    return MLPSpec(raw.get("input_size", 0), (*hidden, last), (), raw.get("output", _OUTPUT_OF[problem]))


def _n_outputs(raw: dict[str, Any], where: str) -> int:
    told: dict[str, Any] = {key: raw[key] for key in ("output_size", "num_labels") if key in raw}
    if isinstance(raw.get("id2label"), dict):
        told["id2label"] = len(raw["id2label"])
    values: Sequence[Any] = list(told.values())
    if not values or any(value != values[0] for value in values):
        _refuse(where, "output_size, num_labels or id2label to tell one number of outputs", told)
    return values[0]  # type: ignore[no-any-return]  # LayerSpec looks at it


def _eps(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        _refuse(where, "a number that is not negative", value)
    return float(value)


def _refuse(where: str, expected: str, got: object) -> NoReturn:
    raise UnsupportedModelError(f"{where}: expected {expected}, got {got!r:.200}")
