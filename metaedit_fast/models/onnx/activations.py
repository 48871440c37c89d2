"""How activations are read, and what stands behind the network: softmax, labels and scores."""

from __future__ import annotations

import math

import numpy as np

from metaedit_fast.models.onnx.call import MICROSOFT, ML, Call, reads, spread
from metaedit_fast.models.onnx.graph import Constant, normal_axis
from metaedit_fast.models.onnx.values import Activation, Softmax, Tail, Value


def _activation(call: Call, name: str, alpha: float = 0.0) -> Value:
    data = call.data()
    if not math.isfinite(alpha):
        call.refuse("a finite alpha", alpha)
    return call.keep(data, Activation(data.expr, data.expr.width, call.node.label, name, alpha))


@reads("Relu")
def relu(call: Call) -> Value:
    return _activation(call, "relu")


@reads("Tanh")
def tanh(call: Call) -> Value:
    return _activation(call, "tanh")


@reads("Sigmoid")
def sigmoid(call: Call) -> Value:
    return _activation(call, "sigmoid")


@reads("LeakyRelu")
def leaky_relu(call: Call) -> Value:
    return _sloped(call, "leaky_relu", call.node.number("alpha", 0.01))


@reads("Elu")
def elu(call: Call) -> Value:
    return _sloped(call, "elu", call.node.number("alpha", 1.0))


@reads("PRelu")
def prelu(call: Call) -> Value:
    """With one slope for all neurons it is a leaky ReLU; the slope stays as it is."""
    slopes = np.unique(call.floats(1))
    if slopes.size != 1:
        call.refuse("one slope for all neurons", f"{slopes.size} different ones")
    _require_no_growth(call, 1)
    return _sloped(call, "leaky_relu", float(str(call.constant(1).value.dtype.type(slopes[0]))))


def _require_no_growth(call: Call, position: int) -> None:
    """A constant must not broadcast the data to another shape."""
    layout = call.data().layout
    if spread(call, call.constant(position), layout)[1] != layout:
        call.refuse(f"a constant of at most {len(layout.dims)} axes", call.constant(position).value.shape)


def _sloped(call: Call, name: str, alpha: float) -> Value:
    # In a spec, alpha 0 stands for the default; in the model it means a ReLU.
    return _activation(call, "relu") if alpha == 0 else _activation(call, name, alpha)


@reads("Gelu")
def gelu(call: Call) -> Value:
    approximate = call.node.string("approximate", "none")
    if approximate not in ("none", "tanh"):
        call.refuse("approximate to be 'none' or 'tanh'", approximate)
    return _activation(call, "gelu" if approximate == "none" else "gelu_tanh")


@reads("Gelu", domain=MICROSOFT)
def gelu_of_runtime(call: Call) -> Value:
    return _activation(call, "gelu")


@reads("Swish")
def swish(call: Call) -> Value:
    alpha = call.node.number("alpha", 1.0)
    if alpha != 1.0:
        call.refuse("the alpha 1 of a SiLU", alpha)
    return _activation(call, "silu")


@reads("Clip")
def clip(call: Call) -> Value:
    low, high = call.node.number("min", -math.inf), call.node.number("max", math.inf)
    low = low if call.operand(1) is None else call.number(1)
    high = high if call.operand(2) is None else call.number(2)
    if low == 0 and high >= 3.4e38:
        return _activation(call, "relu")
    if low == 0 and high == 6:
        return _activation(call, "relu6")
    call.refuse("a Clip to (0, 6) or to (0, inf)", f"({low}, {high})")


@reads("Max")
def maximum(call: Call) -> Value:
    if len(call.operands) == 2 and isinstance(call.operand(0), Constant):
        call.operands.reverse()
    if len(call.operands) != 2 or call.floats(1).any():
        call.refuse("the maximum of one tensor and 0", "something else")
    _require_no_growth(call, 1)
    return _activation(call, "relu")


@reads("ThresholdedRelu")
def thresholded_relu(call: Call) -> Value:
    """``x`` where it is above a threshold, else 0."""
    threshold = call.node.number("alpha", 1.0)
    if threshold != 0:
        call.refuse("the threshold 0 of a ReLU", threshold)
    return _activation(call, "relu")


@reads("Dropout")
def dropout(call: Call) -> list[Value]:
    """Nothing in inference."""
    if call.operand(2) is not None and call.constant(2).value.any():
        call.refuse("dropout in inference", "training mode")
    return [call.data(), None]


@reads("Softmax", "LogSoftmax")
def softmax(call: Call) -> Value:
    data = call.data()
    layout, modern = data.layout, call.node.opset >= 13
    rank = len(layout.dims)
    axis = normal_axis(call.node.integer("axis", -1 if modern else 1), rank, call.node)
    # Before opset 13 it runs over this axis and all behind it.
    axes = {axis} if modern else set(range(axis, rank))
    if layout.batch in axes or layout.features != math.prod(layout.dims[a] for a in axes):
        call.refuse("a softmax over the features of a row", f"axis {axis} of shape {layout.dims}")
    return call.keep(data, Softmax(data.expr, data.expr.width, call.node.label, call.node.op == "LogSoftmax"))


@reads("ArgMax")
def argmax(call: Call) -> Value:
    return Tail(call.data().expr, "label")


@reads("ZipMap", domain=ML)
def zip_map(call: Call) -> Value:
    """Scores as a list of dictionaries: the scores stay."""
    return call.data()
