"""A chain of foreign operations, followed one by one, becomes an MLP and its slots.

The adapters tell a ``Chain`` what a model computes, in order; the chain folds what can be folded and
refuses what an ``MLP`` cannot say. Between two linear layers it keeps ``x * scale + shift + home``:
``scale`` and ``shift`` are constants, ``home`` is a parameter that can hold an edited bias.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.slots import Slot, fill
from metaedit_fast.models.spec import LayerSpec, MLPSpec

Array = NDArray[np.generic]
Float64s = NDArray[np.float64]

# What a value still allows: parts of one layer come in this order.
_INPUT, _LINEAR, _NORMED, _SKIPPED, _ACTIVATED, _TAIL = range(6)


def refusal(where: str, expected: str, *got: object) -> UnsupportedModelError:
    """Build the error that names the place, what was expected there and what was found."""
    found = f", got {got[0]}" if got else ""
    return UnsupportedModelError(f"{where}: expected {expected}{found}")


@dataclasses.dataclass(eq=False)
class Value:
    """A tensor inside the model: ``[rows, width]``.

    ``layer`` is the neuron layer whose outputs it holds, None where it holds none's. A skip may add
    only the first ``columns`` of them; the rest up to ``width`` is zero.
    """

    layer: int | None = None
    columns: int | None = None
    width: int | None = None


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One foreign array: its name and its present value."""

    key: str
    array: Array


@dataclasses.dataclass
class _Layer:
    """A layer while it is read; its fields describe ``x W * scale + shift + home * home_scale``."""

    weight: Parameter
    transpose: bool
    width: int
    row_scale: Float64s | None
    row_offset: Float64s | None
    shift: Float64s
    home: Parameter | None
    scale: Float64s | None = None
    home_scale: Float64s | None = None
    norm: str = "none"
    eps: float = 1e-5
    norm_scale: Parameter | None = None
    norm_shift: Parameter | None = None
    activation: str = "identity"
    alpha: float = 0.0


class Chain:
    """Follows a model from its inputs to its outputs; ``value`` is the tensor that it has reached.

    Every method names the operation's place by ``where`` and raises ``UnsupportedModelError`` where no
    MLP can hold it.
    """

    def __init__(self) -> None:
        self.value = Value(layer=0)
        self.n_inputs: int | None = None
        self.output = "logits"
        self._stage = _INPUT
        self._layers: list[_Layer] = []
        self._skips: list[tuple[int, int]] = []
        self._scale: Float64s | None = None
        self._shift: Float64s | None = None
        self._input: tuple[Float64s | None, Float64s | None] = (None, None)
        self._used: dict[str, str] = {}
        self._squeezed = False

    def linear(self, value: Value, weight: Parameter, bias: Parameter | None, *, transpose: bool, where: str) -> Value:
        """``value @ W + b``; ``transpose`` says that the array holds W as ``[n_out, n_in]``."""
        self._must_be_current(value, where)
        self.use(where, weight, bias)
        n_in, n_out = weight.array.shape[::-1] if transpose else weight.array.shape
        if self._stage == _TAIL or self._squeezed:
            raise refusal(where, "no linear layer behind the output map")
        if min(n_in, n_out) < 1:
            raise refusal(where, "at least one input and one output", f"{n_in} and {n_out}")
        if self.n_inputs is None:
            self.n_inputs = n_in
        if n_in != self._width:
            raise refusal(where, f"{self._width} inputs, as many as the layer in front gives", n_in)
        row_scale, row_offset, shift = None, None, np.zeros(n_out)
        if not self._layers:
            self._input = (self._scale, self._shift)
        elif self._scale is not None and self._shift is not None:
            row_scale = np.broadcast_to(self._scale, n_in)
            dead = row_scale == 0
            oriented = (weight.array.T if transpose else weight.array).astype(np.float64)
            # A dead input passes only its constant, through weights that no edit can change.
            shift = np.where(dead, self._shift, 0.0) @ oriented
            row_offset = np.where(dead, 0.0, self._shift) / np.where(dead, 1.0, row_scale)
        self.value.layer = len(self._layers) if self._scale is None or not self._layers else None
        self._scale = self._shift = None
        self._layers.append(_Layer(weight, transpose, n_out, row_scale, row_offset, shift, bias))
        return self._advance(_LINEAR)

    def affine(self, value: Value, scale: Float64s, shift: Float64s, home: Parameter | None, *, where: str) -> Value:
        """``value * scale + shift + home`` per column, as a batch norm in evaluation or a scaler does.

        ``scale`` and ``shift`` are one number or one per column.
        """
        self._must_be_current(value, where)
        self.use(where, home)
        sizes = {array.size for array in (scale, shift) if array.ndim}
        if home is not None:
            sizes.add(home.array.size)
        if self._stage == _INPUT and self.n_inputs is None and sizes:
            self.n_inputs = max(sizes)
        if sizes and sizes != {self._width}:
            raise refusal(where, f"{self._width} columns, as many as the layer in front gives", max(sizes))
        if self._stage == _LINEAR:
            layer = self._layers[-1]
            scale = np.broadcast_to(scale, self._width)
            layer.scale = scale if layer.scale is None else layer.scale * scale
            layer.home_scale = scale if layer.home_scale is None else layer.home_scale * scale
            layer.shift = layer.shift * scale + shift
            if home is not None:
                if layer.home is not None:
                    layer.shift = layer.shift + layer.home.array.astype(np.float64) * layer.home_scale
                layer.home, layer.home_scale = home, None
        elif self._stage in (_INPUT, _ACTIVATED):
            total = shift if home is None else shift + home.array.astype(np.float64)
            self._shift = total if self._shift is None else self._shift * scale + total
            self._scale = scale if self._scale is None else self._scale * scale
            if self._stage == _INPUT:
                value.layer = None  # a skip from the inputs takes them normalised
        else:
            raise refusal(where, "a scale and shift per column right behind a linear layer, an activation or the input")
        return self._advance(self._stage)

    def batch_norm(
        self,
        value: Value,
        mean: Array,
        variance: Array,
        gamma: Parameter | None,
        beta: Parameter | None,
        eps: float,
        *,
        where: str,
    ) -> Value:
        """Batch norm with its running statistics, folded; ``gamma`` stays, ``beta`` can hold an edited bias."""
        with np.errstate(divide="ignore", invalid="ignore"):  # a damaged model is told apart by its θ
            scale = 1.0 / np.sqrt(variance.astype(np.float64) + eps)
            if gamma is not None:
                scale = scale * gamma.array.astype(np.float64)
            shift = -mean.astype(np.float64) * scale
        self.use(where, gamma)
        return self.affine(value, scale, shift, beta, where=where)

    def layer_norm(
        self, value: Value, width: int, scale: Parameter | None, shift: Parameter | None, eps: float, *, where: str
    ) -> Value:
        """Layer norm over the last axis of ``width`` columns."""
        self._must_be_current(value, where)
        self.use(where, scale, shift)
        if self._stage != _LINEAR:
            raise refusal(where, "a layer norm right behind a linear layer")
        if width != self._width:
            raise refusal(where, f"a layer norm over {self._width} columns", width)
        layer = self._layers[-1]
        layer.norm, layer.eps, layer.norm_scale, layer.norm_shift = "layer", eps, scale, shift
        return self._advance(_NORMED)

    def skip(self, value: Value, source: Value, *, where: str) -> Value:
        """``value + source``; the source holds the first columns of an earlier layer's outputs."""
        self._must_be_current(value, where)
        if self._stage not in (_LINEAR, _NORMED, _SKIPPED) or source.layer is None:
            raise refusal(where, "a sum of a layer's pre-activations and an earlier layer's outputs")
        source_width = self.width_of(source)
        assert source_width is not None  # a linear layer came before
        wanted = min(source_width, self._width)
        columns = source_width if source.columns is None else source.columns
        width = source_width if source.width is None else source.width
        if (columns, width) != (wanted, self._width):
            raise refusal(where, f"a skip of {wanted} columns padded to {self._width}", f"{columns} padded to {width}")
        ends = (source.layer, len(self._layers))
        if ends in self._skips:
            raise refusal(where, "one skip between two layers", "a second one")
        self._skips.append(ends)
        return self._advance(_SKIPPED)

    def fitted(self, source: Value, width: int, *, where: str) -> Value:
        """``source`` for a skip into ``width`` columns: its first ones, or all with zeros behind them."""
        present = self.width_of(source) or width
        if present > width:
            return first_columns(source, width, where=where)
        return padded(source, width - present, present, where=where)

    def activation(self, value: Value, name: str, alpha: float = 0.0, *, where: str) -> Value:
        """One of ``spec.ACTIVATIONS``; a sigmoid of one output at the very end becomes the output map."""
        self._must_be_current(value, where)
        if name == "identity":
            return value
        if self._squeezed and name != "sigmoid":
            raise refusal(where, "nothing but a sigmoid behind a squeezed output", name)
        if self._stage not in (_LINEAR, _NORMED, _SKIPPED):
            raise refusal(where, "an activation behind a linear layer, one at most", name)
        layer = self._layers[-1]
        # A leaky slope or an elu scale of 0 is a relu; a spec's 0 stands for the default.
        degenerate = name in ("leaky_relu", "elu") and alpha == 0
        layer.activation, layer.alpha = ("relu", 0.0) if degenerate else (name, alpha)
        result = self._advance(_ACTIVATED)
        result.layer = len(self._layers)
        return result

    def softmax(self, value: Value, *, log: bool = False, where: str) -> Value:
        """Softmax over the columns, at the end of the model, or its logarithm."""
        self._must_be_current(value, where)
        if self._stage != _LINEAR or self._squeezed or self._width < 2:
            raise refusal(where, "a softmax over two or more outputs of the last linear layer")
        self.output = "log_softmax" if log else "softmax"
        return self._advance(_TAIL)

    def squeeze(self, value: Value, *, where: str) -> Value:
        """Drop the column axis of a single output."""
        self._must_be_current(value, where)
        if not self._layers or self._width != 1:
            raise refusal(where, "a squeeze of a single output")
        self._squeezed = True
        return value

    def flatten(self, value: Value, width: int | None, *, where: str) -> Value:
        """Flatten each row, to ``width`` columns where the model fixes it."""
        self._must_be_current(value, where)
        if self._squeezed:
            raise refusal(where, "rows of columns")
        if self._stage == _INPUT and self.n_inputs is None:
            self.n_inputs = width
        elif width not in (None, self._width):
            raise refusal(where, f"rows of {self._width} columns", width)
        return value

    def finish(self, value: Value, *, where: str) -> tuple[MLP, list[Slot]]:
        """Give the MLP of the whole chain, and where its parameters live."""
        self._must_be_current(value, where)
        if not self._layers:
            raise refusal(where, "at least one linear layer")
        assert self.n_inputs is not None
        last = self._layers[-1]
        if last.activation == "sigmoid" and self._scale is None:
            if last.width != 1:
                expected = "one output in front of a final sigmoid (multi-label is not supported)"
                raise refusal(where, expected, last.width)
            last.activation, self.output, self._stage = "identity", "sigmoid", _TAIL
        if last.activation != "identity" or self._scale is not None:
            expected = "no activation or norm behind the last linear layer but softmax or sigmoid"
            raise refusal(where, expected, last.activation)
        if last.norm != "none":
            raise refusal(where, "no layer norm behind the last linear layer")
        if any(target == len(self._layers) for _, target in self._skips):
            raise refusal(where, "no skip into the output layer")
        spec = MLPSpec(self.n_inputs, tuple(map(_layer_spec, self._layers)), tuple(self._skips), self.output)
        normalisation = (None if a is None else np.broadcast_to(a, self.n_inputs) for a in self._input)
        mlp = MLP(spec, np.zeros(spec.n_parameters, np.float32), *normalisation)
        slots = []
        for index, layer in enumerate(self._layers):
            mlp.bias(index)[...] = layer.shift
            if layer.norm == "layer":
                mlp.parameter("norm_scale", index)[...] = 1.0
            slots += _slots(index, layer)
        fill(mlp, slots, {p.key: p.array for layer in self._layers for p in _parameters(layer)})
        return mlp, slots

    def use(self, where: str, *parameters: Parameter | None) -> None:
        """Mark parameters as used by the operation at ``where``, also those that it takes as constants.

        Raises ``UnsupportedModelError``, naming both places, at a second use: an edit would change what the other
        operation computes.
        """
        for parameter in parameters:
            if parameter is None:
                continue
            if parameter.key in self._used:
                owner = self._used[parameter.key]
                raise refusal(where, f"parameters of its own, but {parameter.key} was used by {owner}")
            self._used[parameter.key] = where

    def width_of(self, value: Value) -> int | None:
        """Columns of the neuron layer whose outputs ``value`` holds, where known."""
        if value.layer is None:
            return None
        return self.n_inputs if value.layer == 0 else self._layers[value.layer - 1].width

    @property
    def _width(self) -> int:
        width = self._layers[-1].width if self._layers else self.n_inputs
        assert width is not None
        return width

    def _advance(self, stage: int) -> Value:
        self._stage = stage
        self.value = Value()
        if stage == _INPUT:
            self.value.layer = 0
        return self.value

    def _must_be_current(self, value: Value, where: str) -> None:
        if value is not self.value or value.columns is not None:
            raise refusal(where, "a chain: each result goes to one next operation, or to a skip")


def first_columns(value: Value, stop: int, *, where: str) -> Value:
    """``value[:, :stop]`` of a layer's outputs, for a skip."""
    if value.layer is None or value.columns is not None or stop < 1:
        raise refusal(where, "a slice of the first columns of a layer's outputs")
    return Value(value.layer, stop, stop)


def padded(value: Value, zeros: int, width: int | None, *, where: str) -> Value:
    """``value`` with columns of zeros behind it, for a skip; ``width`` is its width where nothing was sliced."""
    present = width if value.width is None else value.width
    if value.layer is None or present is None or zeros < 0:
        raise refusal(where, "zero columns behind a layer's outputs")
    return Value(value.layer, present if value.columns is None else value.columns, present + zeros)


def _layer_spec(layer: _Layer) -> LayerSpec:
    affine = layer.norm == "none" or (layer.norm_scale is not None and layer.norm_shift is not None)
    return LayerSpec(layer.width, layer.activation, layer.alpha, layer.norm, layer.eps, layer.home is not None, affine)


def _parameters(layer: _Layer) -> list[Parameter]:
    candidates = (layer.weight, layer.home, layer.norm_scale, layer.norm_shift)
    return [parameter for parameter in candidates if parameter is not None]


def _slots(index: int, layer: _Layer) -> list[Slot]:
    scale: Any = 1.0
    if layer.row_scale is not None:
        scale = layer.row_scale[:, None]
    if layer.scale is not None:
        scale = scale * layer.scale
    slots = [Slot("weight", index, layer.weight.key, layer.transpose, scale)]
    if layer.home is not None:
        home_scale: Any = 1.0 if layer.home_scale is None else layer.home_scale
        shift: Any = layer.shift if layer.shift.any() else 0.0
        slots.append(Slot("bias", index, layer.home.key, False, home_scale, shift, layer.row_offset))
    elif layer.row_offset is not None and layer.row_offset.any():
        raise refusal(layer.weight.key, "a bias for what the batch norm in front of it adds, but the layer has none")
    for kind, parameter in (("norm_scale", layer.norm_scale), ("norm_shift", layer.norm_shift)):
        if parameter is not None:
            slots.append(Slot(kind, index, parameter.key))
    return slots
