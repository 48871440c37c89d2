"""How element-by-element arithmetic is read: with a constant it is an affine map, between two tensors a pattern.

Patterns of several nodes pass through ``Part`` expressions. Their kinds:

- ``square``, ``cube``: ``source ** 2``, ``source ** 3``
- ``mean``: the mean of ``source`` over its features; ``centred``: ``source - mean``; ``variance``: the
  mean square of ``centred``, as a function of the uncentred source
- ``std``, ``inverse_std``: ``sqrt(variance + number)`` and its inverse
- ``erf``: ``erf(source / sqrt(2))``; ``cubic``: ``source + 0.044715 * source ** 3``
- ``leading``, ``trailing``, ``middle``: the first ``width`` features of ``source``, the last ones, others; ``number``
  is where they begin
- ``padded``: ``source`` with zeros behind it
- ``partial_skip``: the first ``width`` features of ``source`` plus those of ``branch``
"""

from __future__ import annotations

import math

import numpy as np

from metaedit_fast.models.onnx.call import Call, reads, spread
from metaedit_fast.models.onnx.graph import Constant, axes_of, normal_axis
from metaedit_fast.models.onnx.values import (
    Activation,
    Affine,
    Data,
    Expr,
    Float64s,
    Norm,
    Parameter,
    Part,
    Skip,
    Value,
    is_part,
    scalar_affine,
    scalings,
)

GELU_CUBE = 0.044715
SQRT_HALF = math.sqrt(0.5)
GELU_TANH_SCALE = math.sqrt(2 / math.pi)


@reads("Add", "Sum")
def add(call: Call) -> Value:
    if len(call.operands) != 2:
        call.refuse("two inputs", len(call.operands))
    a, b = call.operands
    if isinstance(a, Constant) or isinstance(b, Constant):
        data, position = (call.data(1), 0) if isinstance(a, Constant) else (call.data(0), 1)
        return _with_addend(call, data, position, scale=1.0, sign=1.0)
    return _sum_of(call, call.data(0), call.data(1))


@reads("Sub")
def subtract(call: Call) -> Value:
    if isinstance(call.operand(0), Constant):
        return _with_addend(call, call.data(1), 0, scale=-1.0, sign=1.0)
    if isinstance(call.operand(1), Constant):
        return _with_addend(call, call.data(0), 1, scale=1.0, sign=-1.0)
    a, mean = call.data(0), call.data(1)
    if is_part(mean.expr, "mean") and mean.expr.source is a.expr and _is_reduced(call, mean, a):
        return call.keep(a, Part(a.expr, a.expr.width, call.node.label, "centred"))
    call.refuse("a constant, or the mean of the other input", "two tensors that depend on the input")


@reads("Mul")
def multiply(call: Call) -> Value:
    a, b = call.operand(0), call.operand(1)
    if isinstance(a, Constant) or isinstance(b, Constant):
        data, position = (call.data(1), 0) if isinstance(a, Constant) else (call.data(0), 1)
        constant = call.constant(position)
        factor = call.floats(position)
        parameter, data = _placed(call, constant, data, position)
        if parameter is None:
            factor = _broadcast(call, factor, constant, data)
        expr = data.expr
        if factor.size == 1:
            for scale, inner in scalings(expr):
                if isinstance(inner, Activation) and _close(scale * float(factor[0]), 1.0):
                    return call.keep(data, inner)  # the last factor of a GELU in several nodes
        return call.keep(data, Affine(expr, expr.width, call.node.label, factor, np.zeros(1), parameter))
    x, y = call.data(0), call.data(1)
    for first, second in ((x, y), (y, x)):
        found = _gated(call, first.expr, second.expr) or _cube(call, first.expr, second.expr)
        if found is not None and first.layout == second.layout:
            return call.keep(first, found)
        norm = _standardised(call, first, second, "inverse_std")
        if norm is not None:
            return norm
    if x.expr is y.expr and x.layout == y.layout:
        return call.keep(x, Part(x.expr, x.expr.width, call.node.label, "square"))
    call.refuse("a constant, or the gate of a SiLU or GELU, or a layer norm", "a product of two other tensors")


@reads("Div")
def divide(call: Call) -> Value:
    if isinstance(call.operand(0), Constant):
        data = call.data(1)
        if not is_part(data.expr, "std") or call.number(0) != 1.0:
            call.refuse("a division by a constant", "a division by a tensor that depends on the input")
        return _inverse_std(call, data)
    if isinstance(call.operand(1), Constant):
        divisor = call.floats(1)
        if not divisor.all():
            call.refuse("a divisor without zeros", "a zero")
        _, data = _placed(call, call.constant(1), call.data(0), 1)
        return call.affine(data, _broadcast(call, 1.0 / divisor, call.constant(1), data), 0.0)
    norm = _standardised(call, call.data(0), call.data(1), "std")
    if norm is None:
        call.refuse("a constant, or the standard deviation of the other input", "a quotient of two other tensors")
    return norm


@reads("Neg")
def negate(call: Call) -> Value:
    return call.affine(call.data(), -1.0, 0.0)


@reads("Pow")
def power(call: Call) -> Value:
    data, exponent = call.data(0), call.number(1)
    expr = data.expr
    if exponent in (2.0, 3.0):
        return call.keep(data, Part(expr, expr.width, call.node.label, "square" if exponent == 2 else "cube"))
    if exponent == 1.0:
        return data
    if exponent == 0.5:
        return _std(call, data)
    if exponent == -0.5:
        return _inverse_std(call, _std(call, data))
    call.refuse("the exponent 2 of a layer norm or 3 of a GELU", exponent)


@reads("Sqrt")
def square_root(call: Call) -> Value:
    return _std(call, call.data())


@reads("Reciprocal")
def reciprocal(call: Call) -> Value:
    data = call.data()
    if not is_part(data.expr, "std"):
        call.refuse("the standard deviation inside a layer norm", "another tensor")
    return _inverse_std(call, data)


@reads("ReduceMean")
def reduce_mean(call: Call) -> Value:
    """The mean over all features, which is only read inside a layer norm."""
    data = call.data()
    axes = axes_of(call.node, [call.optional_constant(1)])
    axis = call.feature_axis(data)
    rank = len(data.layout.dims)
    if axes is None or axis not in (found := [normal_axis(a, rank, call.node) for a in axes]):
        call.refuse(f"a mean over the {data.expr.width} features of a row", f"axes {axes}")
    if data.layout.batch in found or not call.node.integer("keepdims", 1):
        call.refuse("a mean that keeps the rows and all axes", f"axes {axes}")
    expr, kind = data.expr, "mean"
    if is_part(expr, "square") and expr.source is not None and is_part(expr.source, "centred"):
        expr, kind = expr.source.source, "variance"  # type: ignore[assignment]
    return Data(Part(expr, expr.width, call.node.label, kind), data.layout.resized(axis, 1))


@reads("Erf")
def erf(call: Call) -> Value:
    data = call.data()
    for factor, expr in scalings(data.expr):
        if _close(factor, SQRT_HALF):
            return call.keep(data, Part(expr, expr.width, call.node.label, "erf"))
    call.refuse("the erf of x / sqrt(2) inside a GELU", "another argument")


def _with_addend(call: Call, data: Data, position: int, *, scale: float, sign: float) -> Value:
    """``data * scale + sign * constant``; a SiLU's or norm's inner parts never get here."""
    constant = call.constant(position)
    numbers = call.floats(position)
    parameter, data = _placed(call, constant, data, position)
    if parameter is None:
        return call.affine(data, scale, sign * _broadcast(call, numbers, constant, data))
    expr = data.expr
    return call.keep(
        data, Affine(expr, expr.width, call.node.label, np.full(1, scale), np.zeros(1), None, parameter, sign)
    )


def _placed(call: Call, constant: Constant, data: Data, position: int) -> tuple[Parameter | None, Data]:
    """A constant against data: the parameter it may be (one number, or one a feature), and the data's new layout."""
    _, layout = spread(call, constant, data.layout)
    data = Data(data.expr, layout)
    size, axis = constant.value.size, layout.feature_axis
    if axis is None or constant.root is None or size not in (1, data.expr.width):
        return None, data
    return call.parameter(position, axis - len(layout.dims)), data


def _broadcast(call: Call, numbers: Float64s, constant: Constant, data: Data) -> Float64s:
    """One number, or one number for each feature."""
    shape, _ = spread(call, constant, data.layout)
    if shape is None:
        return numbers
    return np.broadcast_to(numbers.reshape(constant.value.shape), shape).reshape(-1)


def _sum_of(call: Call, a: Data, b: Data) -> Value:
    if a.layout != b.layout:
        call.refuse("two tensors of one shape", f"{a.layout.dims} and {b.layout.dims}")
    for x, cube in ((a.expr, b.expr), (b.expr, a.expr)):
        if any(is_part(e, "cube") and e.source is x and _close(f, GELU_CUBE) for f, e in scalings(cube)):
            return call.keep(a, Part(x, x.width, call.node.label, "cubic"))
    for base, branch in ((a.expr, b.expr), (b.expr, a.expr)):
        skip = _skip(call, base, branch)
        if skip is not None:
            return call.keep(a, skip)
    call.refuse("a constant, or the outputs of an earlier layer (a skip)", "a sum of two other tensors")


def _skip(call: Call, base: Expr, branch: Expr) -> Expr | None:
    """``base + branch`` where the branch holds the first features of something that the base depends on."""
    columns = branch.width
    if isinstance(branch, Part) and branch.kind == "padded" and branch.source is not None:
        branch = branch.source
        columns = branch.width
    if isinstance(branch, Part) and branch.kind == "leading" and branch.source is not None:
        branch = branch.source
    if isinstance(branch, Part) or not base.depends_on(branch) or base is branch:
        return None
    if is_part(base, "leading") and columns == base.width:
        return Part(base.source, base.width, call.node.label, "partial_skip", 0.0, branch)
    return Skip(base, base.width, call.node.label, branch, columns)


def _gated(call: Call, outer: Expr, gate: Expr) -> Expr | None:
    """``outer * gate`` as a multiple of a SiLU or a GELU."""
    a, b, inner = scalar_affine(gate)
    for factor, x in scalings(outer):
        name, gain = "", factor * a
        if isinstance(inner, Activation) and inner.name == "sigmoid" and inner.source is x and b == 0:
            name = "silu"
        elif is_part(inner, "erf") and inner.source is x and _close(a, b):
            name, gain = "gelu", 2 * gain
        elif isinstance(inner, Activation) and inner.name == "tanh" and _close(a, b):
            assert inner.source is not None
            for scale, cubic in scalings(inner.source):
                if is_part(cubic, "cubic") and cubic.source is x and _close(scale, GELU_TANH_SCALE):
                    name, gain = "gelu_tanh", 2 * gain
        if name:
            result: Expr = Activation(x, x.width, call.node.label, name)
            if _close(gain, 1.0):
                return result
            return Affine(result, x.width, call.node.label, np.full(1, gain), np.zeros(1))
    return None


def _cube(call: Call, x: Expr, square: Expr) -> Expr | None:
    if is_part(square, "square") and square.source is x:
        return Part(x, x.width, call.node.label, "cube")
    return None


def _std(call: Call, data: Data) -> Data:
    a, eps, variance = scalar_affine(data.expr)
    if not is_part(variance, "variance") or a != 1.0 or eps < 0:
        call.refuse("the variance plus a constant, inside a layer norm", "another tensor")
    eps = float(str(np.float32(eps)))  # the decimal that was meant
    return call.keep(data, Part(variance.source, variance.width, call.node.label, "std", eps))


def _inverse_std(call: Call, data: Data) -> Data:
    std = data.expr
    assert isinstance(std, Part)
    return call.keep(data, Part(std.source, std.width, call.node.label, "inverse_std", std.number))


def _standardised(call: Call, centred: Data, std: Data, kind: str) -> Data | None:
    """A layer norm, where ``centred`` and ``std`` are the two halves of one."""
    a, b = centred.expr, std.expr
    if not is_part(a, "centred") or not isinstance(b, Part) or b.kind != kind or a.source is not b.source:
        return None
    if not _is_reduced(call, std, centred):
        return None
    return call.keep(centred, Norm(a.source, a.width, call.node.label, b.number))


def _is_reduced(call: Call, reduced: Data, full: Data) -> bool:
    """Is the one in the other's layout, with one number in place of the features?"""
    return reduced.layout == full.layout.resized(call.feature_axis(full), 1)


def _close(a: float, b: float) -> bool:
    """Equal up to the rounding of a float32 constant; float16 models carry coarser ones."""
    return math.isclose(a, b, rel_tol=1e-6) or (np.float16(a) == np.float16(b) == a)
