"""The architecture of an MLP, as a frozen value that hashes and travels as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

ACTIVATIONS = (
    "identity",
    "relu",
    "gelu",
    "gelu_tanh",
    "silu",
    "tanh",
    "leaky_relu",
    "sigmoid",
    "elu",
    "relu6",
)
NORMS = ("none", "layer")
OUTPUTS = ("logits", "softmax", "log_softmax", "sigmoid", "identity")
DEFAULT_ALPHA = {"leaky_relu": 0.01, "elu": 1.0}


@dataclasses.dataclass(frozen=True)
class LayerSpec:
    """One linear layer and what follows it: ``activation(skips + norm(h W + b))``.

    ``alpha`` is the negative slope of ``leaky_relu`` and the scale of ``elu``, 0 elsewhere.
    ``bias`` and ``norm_affine`` say whether the model owns these parameters, so that an edit may change
    them; where it does not, θ still holds their values: neutral ones (0; 1 and 0), or a constant that
    was folded into them.
    ``eps`` is the constant that layer norm adds to the variance.
    """

    width: int
    activation: str = "identity"
    alpha: float = 0.0
    norm: str = "none"
    eps: float = 1e-5
    bias: bool = True
    norm_affine: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "width", _positive("width", self.width))
        for name in ("alpha", "eps"):
            value = getattr(self, name)
            is_number = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
            _require(is_number, name, "a finite number", value)
            object.__setattr__(self, name, float(value))
        for name in ("bias", "norm_affine"):
            _require(isinstance(getattr(self, name), bool), name, "True or False", getattr(self, name))
        _require(self.activation in ACTIVATIONS, "activation", f"one of {ACTIVATIONS}", self.activation)
        _require(self.norm in NORMS, "norm", f"one of {NORMS}", self.norm)
        if self.alpha == 0.0 and self.activation in DEFAULT_ALPHA:
            object.__setattr__(self, "alpha", DEFAULT_ALPHA[self.activation])


@dataclasses.dataclass(frozen=True)
class MLPSpec:
    """The architecture of one MLP.

    ``layers[t-1]`` describes neuron layer ``t``; neuron layer 0 holds the ``n_inputs`` inputs.
    A skip ``(s, t)`` adds the first ``min(width_s, width_t)`` outputs of neuron layer ``s`` to the
    pre-activation of neuron layer ``t``, after its norm; ``0 <= s < t < len(layers)``.

    ``output`` is the map that the model itself applies after its last layer: ``"softmax"``, ``"log_softmax"`` or
    ``"sigmoid"`` (one output), ``"logits"`` for none in a classifier, ``"identity"`` for none in a
    model known to be a regressor.

    Raises ``ValueError`` where a field is out of range.
    """

    n_inputs: int
    layers: tuple[LayerSpec, ...]
    skips: tuple[tuple[int, int], ...] = ()
    output: str = "logits"

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_inputs", _positive("n_inputs", self.n_inputs))
        _require(len(self.layers) > 0, "layers", "at least one layer", self.layers)
        _require(self.output in OUTPUTS, "output", f"one of {OUTPUTS}", self.output)
        last = self.layers[-1]
        _require(
            last.activation == "identity" and last.norm == "none", "the last layer", "neither activation nor norm", last
        )
        if self.output == "sigmoid":
            _require(last.width == 1, "a sigmoid output", "one output (multi-label is not supported)", last.width)
        object.__setattr__(self, "skips", tuple(sorted({(int(s), int(t)) for s, t in self.skips})))
        for skip in self.skips:
            _require(0 <= skip[0] < skip[1] < len(self.layers), "skip", "source < target, target a hidden layer", skip)

    @classmethod
    def simple(
        cls,
        widths: Sequence[int],
        activation: str = "relu",
        norm: str = "none",
        skips: Sequence[tuple[int, int]] = (),
        output: str = "logits",
    ) -> MLPSpec:
        """The usual MLP: ``widths`` = (inputs, hidden..., outputs), one activation and norm for all hidden layers."""
        hidden = tuple(LayerSpec(w, activation, norm=norm) for w in widths[1:-1])
        return cls(widths[0], (*hidden, LayerSpec(widths[-1])), tuple(skips), output)

    @cached_property
    def _hash(self) -> int:
        return hash((self.n_inputs, self.layers, self.skips, self.output))

    def __hash__(self) -> int:
        return self._hash  # specs are the keys of caches, and to hash their layers takes longer than the rest

    def __getstate__(self) -> dict[str, Any]:
        """Without what is cached: another process hashes texts otherwise."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Neurons in each neuron layer, inputs first: ``len(layers) + 1`` numbers."""
        return (self.n_inputs, *(layer.width for layer in self.layers))

    @property
    def n_outputs(self) -> int:
        return self.layers[-1].width

    @cached_property
    def n_weights(self) -> int:
        """Number of weights (edges), biases and norm parameters not counted."""
        return sum(a * b for a, b in zip(self.widths[:-1], self.widths[1:], strict=True))

    @cached_property
    def parameter_slices(self) -> tuple[tuple[str, int, slice, tuple[int, ...]], ...]:
        """Where each parameter lies in θ: ``(kind, layer, slice, shape)``.

        θ holds all weights first (``"weight"``, each ``[n_in, n_out]`` row-major), then all biases
        (``"bias"``), then the scale and shift of each layer norm (``"norm_scale"``,
        ``"norm_shift"``); ``layer`` indexes ``layers``. So ``θ[:n_weights]`` is the vector of edges.
        """
        out: list[tuple[str, int, slice, tuple[int, ...]]] = []
        start = 0

        def put(kind: str, layer: int, shape: tuple[int, ...]) -> None:
            nonlocal start
            size = shape[0] if len(shape) == 1 else shape[0] * shape[1]
            out.append((kind, layer, slice(start, start + size), shape))
            start += size

        for i in range(len(self.layers)):
            put("weight", i, (self.widths[i], self.widths[i + 1]))
        for i, layer in enumerate(self.layers):
            put("bias", i, (layer.width,))
        for i, layer in enumerate(self.layers):
            if layer.norm == "layer":
                put("norm_scale", i, (layer.width,))
                put("norm_shift", i, (layer.width,))
        return tuple(out)

    @cached_property
    def n_parameters(self) -> int:
        """Length of θ."""
        return int(self.parameter_slices[-1][2].stop)

    @cached_property
    def owned_parameters(self) -> NDArray[np.bool_]:
        """Which entries of θ the model owns, ``[n_parameters]``: all but frozen biases and norm parameters."""
        owned = np.ones(self.n_parameters, np.bool_)
        for kind, i, where, _ in self.parameter_slices:
            if kind != "weight":
                owned[where] = self.layers[i].bias if kind == "bias" else self.layers[i].norm_affine
        owned.flags.writeable = False
        return owned

    def skips_into(self, layer: int) -> list[int]:
        """Source neuron layers of the skips that end in neuron layer ``layer``."""
        return [s for s, t in self.skips if t == layer]

    def to_json(self) -> str:
        """A canonical JSON text; equal specs give equal texts."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> MLPSpec:
        """Inverse of ``to_json``. Raises ``ValueError`` on anything else."""
        try:
            raw: dict[str, Any] = json.loads(text)
            layers = tuple(LayerSpec(**layer) for layer in raw["layers"])
            return cls(raw["n_inputs"], layers, tuple((s, t) for s, t in raw["skips"]), raw["output"])
        except (KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"not the JSON of an MLPSpec: {error!r}") from error


def _positive(name: str, value: object) -> int:
    """Any kind of positive whole number as an int: numpy's would neither hash alike nor go into JSON."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value <= 0:
        raise ValueError(f"{name}: expected a positive int, got {value!r}")
    return int(value)


def _require(condition: bool, name: str, expected: str, got: object) -> None:
    if not condition:
        raise ValueError(f"{name}: expected {expected}, got {got!r}")
