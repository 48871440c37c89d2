"""How linear layers and normalisations are read: Gemm, MatMul, BatchNormalization, LayerNormalization, Scaler."""

from __future__ import annotations

import math

import numpy as np

from metaedit_fast.models.onnx.call import ML, Call, reads
from metaedit_fast.models.onnx.graph import Constant
from metaedit_fast.models.onnx.values import Affine, Data, Layout, Linear, Norm, Parameter, Value, vector

BATCH_NORM_NOTE = "batch norm is folded into the linear layer beside it"
COLUMN_NOTE = "the rows of x are the columns of the model's input (it computes W @ x)"


@reads("Gemm")
def gemm(call: Call) -> Value:
    """``alpha * A' B' + beta * C``; the data is A, or B behind a constant left factor."""
    node = call.node
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    left = isinstance(call.operand(0), Constant)
    data = call.data(1 if left else 0)
    layout = data.layout
    if len(layout.dims) != 2:
        call.refuse("a matrix", f"shape {layout.dims}")
    if node.integer("transB" if left else "transA", 0):
        data = Data(data.expr, Layout(layout.dims[::-1], None if layout.batch is None else 1 - layout.batch))
    transposed = bool(node.integer("transA" if left else "transB", 0))
    weight = call.parameter(0 if left else 1)
    if weight.constant.value.ndim != 2:
        call.refuse("a weight matrix", f"shape {weight.constant.value.shape}")
    if left:
        call.notes.append(COLUMN_NOTE)
    # The array holds W as [out, in] if it is a left factor or a transposed right one.
    result = _linear(call, data, weight, 0 if left else 1, transpose=left != transposed)
    linear = result.expr
    assert isinstance(linear, Linear)
    linear.factor = alpha
    if call.operand(2) is not None and beta != 0:
        linear.bias, linear.bias_factor = call.parameter(2, -2 if left else -1), beta
        _check_vector(call, linear.bias, result.layout)
    return result


@reads("MatMul")
def matmul(call: Call) -> Value:
    """``x @ W``, or ``W @ x`` on columns, as numpy multiplies."""
    left = isinstance(call.operand(0), Constant)
    data = call.data(1 if left else 0)
    weight = call.parameter(0 if left else 1)
    shape = weight.constant.value.shape
    rank = len(data.layout.dims)
    if len(shape) == 0 or rank == 0:
        call.refuse("vectors or matrices", f"shapes {data.layout.dims} and {shape}")
    if any(d != 1 for d in shape[:-2]):
        call.refuse("one weight matrix", f"shape {shape}")
    if left and rank > 1:
        call.notes.append(COLUMN_NOTE)
    axis = rank - 2 if left and rank > 1 else rank - 1
    result = _linear(call, data, weight, axis, transpose=left)
    layout = result.layout
    if len(shape) == 1:  # a vector's axis is gone from the product
        dims = (*layout.dims[:axis], *layout.dims[axis + 1 :])
        batch = layout.batch if layout.batch is None or layout.batch < axis else layout.batch - 1
        return Data(result.expr, Layout(dims, batch))
    return Data(result.expr, layout.with_leading(max(len(shape) - max(rank, 2), 0)))


def _linear(call: Call, data: Data, weight: Parameter, axis: int, *, transpose: bool) -> Data:
    """A weight matrix at work on one axis of the data, which must hold all features."""
    layout, shape = data.layout, weight.constant.value.shape
    if len(shape) == 1:
        n_in, n_out = shape[0], 1
    else:
        n_in, n_out = (shape[-1], shape[-2]) if transpose else (shape[-2], shape[-1])
    if axis == layout.batch or layout.dims[axis] != n_in or layout.features != n_in:
        rows = "no rows" if layout.batch is None else f"rows on axis {layout.batch}"
        call.refuse(f"{n_in} features on axis {axis} and nothing beside them", f"shape {layout.dims} with {rows}")
    if weight.constant.root is None:
        call.refuse("weights that stand in the graph", "computed ones")
    if min(n_in, n_out) < 1:
        call.refuse("a weight matrix with numbers in it", f"shape {shape}")
    expr = Linear(data.expr, n_out, call.node.label, weight, transpose)
    return Data(expr, layout.resized(axis, n_out))


def _check_vector(call: Call, bias: Parameter, layout: Layout) -> None:
    """A bias must be one number, or one a feature on the feature axis."""
    shape = bias.constant.value.shape
    if len(shape) > len(layout.dims):
        call.refuse(f"a bias of at most {len(layout.dims)} axes", f"shape {shape}")
    axis = len(layout.dims) + bias.axis
    padded = (1,) * (len(layout.dims) - len(shape)) + shape
    if any(d != 1 for i, d in enumerate(padded) if i != axis) or padded[axis] not in (1, layout.dims[axis]):
        call.refuse(f"a bias of {layout.dims[axis]} numbers, one a feature", f"shape {shape}")


@reads("Conv")
def convolution(call: Call) -> Value:
    """A convolution whose kernel covers all of its input: a linear layer, as some exporters write one."""
    node, data, weight = call.node, call.data(), call.parameter(1)
    dims, shape = data.layout.dims, weight.constant.value.shape
    whole = len(dims) > 2 and shape[1:] == dims[1:] and data.layout.features == math.prod(dims[1:])
    if not whole or data.layout.batch not in (0, None) or node.integer("group", 1) != 1:
        call.refuse("a kernel that covers all of its input", f"one of shape {shape} on {dims}")
    if any(node.ints("pads") or []) or node.string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        call.refuse("a convolution without padding", f"pads {node.ints('pads')}")
    if any(d != 1 for d in node.ints("dilations") or []) or (node.ints("kernel_shape") or [*shape[2:]]) != [*shape[2:]]:
        call.refuse("a dense kernel", f"dilations {node.ints('dilations')}, kernel_shape {node.ints('kernel_shape')}")
    if weight.constant.root is None or 0 in shape:
        call.refuse("weights that stand in the graph", "computed or no ones")
    expr = Linear(data.expr, shape[0], node.label, weight, True)
    if call.operand(2) is not None:
        expr.bias = call.parameter(2)
        if expr.bias.constant.value.shape != shape[:1]:
            call.refuse(f"a bias of {shape[0]} numbers", f"shape {expr.bias.constant.value.shape}")
    return Data(expr, Layout((dims[0], shape[0], *(1 for _ in shape[2:])), data.layout.batch))


@reads("BatchNormalization")
def batch_normalization(call: Call) -> Value:
    """Batch norm in evaluation, an affine map of each feature. Its shift is a parameter, its scale is not."""
    data = call.data()
    if call.node.integer("training_mode", 0) or len(list(filter(None, call.node.outputs))) > 1:
        call.refuse("batch norm in evaluation", "batch norm in training")
    dims = data.layout.dims
    if len(dims) < 2 or data.layout.batch == 1 or (data.layout.batch is None and dims[0] != 1):
        call.refuse("rows on axis 0 and features on axis 1", f"shape {dims}")
    n, shift = dims[1], call.parameter(2)
    scale, mean, variance = (call.floats(i) for i in (1, 3, 4))
    if {scale.size, mean.size, variance.size, shift.constant.value.size} != {n}:
        call.refuse(f"four vectors of {n}", f"{scale.size}, {shift.constant.value.size}, {mean.size}, {variance.size}")
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + call.node.number("epsilon", 1e-5))
        fixed = -mean * factor
    if not np.isfinite(factor).all() or not np.isfinite(fixed).all():
        call.refuse("finite statistics of a batch", "an infinite or undefined scale")
    call.notes.append(BATCH_NORM_NOTE)
    if n == data.expr.width:
        return call.keep(data, Affine(data.expr, n, call.node.label, factor, fixed, None, shift))
    each = data.expr.width // n  # a channel's numbers serve all of its features, so they are no parameters of the MLP
    return call.affine(data, np.repeat(factor, each), np.repeat(fixed + vector(shift.constant), each))


@reads("LayerNormalization")
def layer_normalization(call: Call) -> list[Value]:
    """Layer norm over all features, with its scale and, if there is one, its shift."""
    data = call.data()
    axis, rank = call.node.integer("axis", -1), len(data.layout.dims)
    first = axis % rank if -rank <= axis < rank else rank
    batch = data.layout.batch
    spanned = int(np.prod([d for i, d in enumerate(data.layout.dims) if i >= first]))
    if (batch is not None and batch >= first) or spanned != data.expr.width or first == rank:
        call.refuse(f"a norm over all {data.expr.width} features of a row", f"axis {axis} of shape {data.layout.dims}")
    n = data.expr.width
    norm = Norm(data.expr, n, call.node.label, call.node.number("epsilon", 1e-5))
    scale = call.parameter(1)
    parameters = [scale] if call.operand(2) is None else [scale, call.parameter(2)]
    for parameter in parameters:
        if parameter.constant.value.size not in (1, n):
            call.refuse(f"a scale and a shift of {n} numbers", f"shape {parameter.constant.value.shape}")
    # Where there is no shift, the empty third input is the place for an edited one.
    empty = Parameter(call.node, 2, Constant(np.zeros(n, scale.constant.value.dtype)))
    addend: Parameter | None = parameters[1] if len(parameters) == 2 else empty
    if not scale.is_writable and len(parameters) == 1:
        addend = None  # the model owns neither
    affine = Affine(norm, n, call.node.label, vector(scale.constant), np.zeros(1), scale, addend)
    unread: list[Value] = [None, None]
    return [call.keep(data, affine), *unread]


@reads("Scaler", domain=ML)
def scaler(call: Call) -> Value:
    """``(x - offset) * scale`` of scikit-learn's scalers."""
    data = call.data()
    scale = np.array(call.node.floats("scale") or [1.0])
    offset = np.array(call.node.floats("offset") or [0.0])
    n = data.expr.width
    if not {scale.size, offset.size} <= {1, n} or call.feature_axis(data) != len(data.layout.dims) - 1:
        call.refuse(f"one scale and one offset for each of {n} features", f"{scale.size} and {offset.size}")
    return call.affine(data, scale, -offset * scale)
