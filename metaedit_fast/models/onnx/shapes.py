"""How operators that move numbers are read: reshapes that keep each row's order, slices and pads of a skip, shapes."""

from __future__ import annotations

import math

import numpy as np

from metaedit_fast.models.onnx.call import Call, reads, require_size
from metaedit_fast.models.onnx.graph import (
    MAX_SHAPE_ENTRIES,
    VIEWS,
    Constant,
    axes_of,
    ints_of,
    normal_axis,
)
from metaedit_fast.models.onnx.values import Affine, Data, Expr, Layout, Part, Skip, Tail, Value, is_part

_LAST = 2**31 - 1
BINARY_NOTE = "the model makes [1 - p, p] of the MLP's one output p"
OTHER_SHAPE_NOTE = "the model gives the outputs of all rows one after the other, in another shape"


@reads("Identity")
def identity(call: Call) -> Value:
    return call.operand(0)


@reads("Cast")
def cast(call: Call) -> Value:
    """Between float types it changes the precision only."""
    if isinstance(call.operand(0), Constant):
        return _viewed(call)
    data = call.data()
    names = {1: "float32", 10: "float16", 11: "float64"}
    to = call.node.integer("to", 0)
    if to not in names:
        call.refuse("a cast to float16, float32 or float64", f"type {to}")
    if to == 10:
        call.notes.append(f"{call.node.label} rounds to float16; the MLP does not")
    return data


@reads("Flatten")
def flatten(call: Call) -> Value:
    if isinstance(call.operand(0), Constant):
        return _viewed(call)
    data = call.data()
    dims, rank = data.layout.dims, len(data.layout.dims)
    axis = call.node.integer("axis", 1)
    if not -rank <= axis <= rank:
        call.refuse(f"an axis of a tensor of rank {rank}", axis)
    axis = axis + rank if axis < 0 else axis
    front = [d for i, d in enumerate(dims[:axis]) if i != data.layout.batch]
    back = [d for i, d in enumerate(dims) if i >= axis and i != data.layout.batch]
    batch = data.layout.batch
    target: list[int | None] = [math.prod(front), math.prod(back)]
    if batch is not None:
        side = 0 if batch < axis else 1
        if target[side] != 1:
            call.refuse("the features on the other side than the rows", f"shape {dims} cut at axis {axis}")
        target[side] = None
    return _reordered(call, data, target)


@reads("Reshape")
def reshape(call: Call) -> Value:
    if isinstance(call.operand(0), Constant):
        return _viewed(call)
    data = call.data()
    if call.operand(1) is None:
        call.refuse("a shape as second input", "none")
    target = ints_of(call.constant(1), call.node, "the shape")
    dims, batch = data.layout.dims, data.layout.batch
    if not call.node.integer("allowzero", 0):
        if any(v == 0 and i >= len(dims) for i, v in enumerate(target)):
            call.refuse(f"zeros in the shape only on the {len(dims)} axes of the input", target)
        target = [(None if i == batch else dims[i]) if v == 0 else v for i, v in enumerate(target)]
    return _reordered(call, data, target)


@reads("Squeeze")
def squeeze(call: Call) -> Value:
    if isinstance(call.operand(0), Constant):
        return _viewed(call)
    data = call.data()
    layout, rank = data.layout, len(data.layout.dims)
    axes = axes_of(call.node, [call.optional_constant(1)])
    if axes is None:
        gone = {i for i, d in enumerate(layout.dims) if d == 1 and i != layout.batch}
    else:
        gone = {normal_axis(a, rank, call.node) for a in axes}
    if layout.batch in gone or any(layout.dims[i] != 1 for i in gone):
        call.refuse("axes of size 1", f"axes {sorted(gone)} of shape {layout.dims}")
    kept = [None if i == layout.batch else d for i, d in enumerate(layout.dims) if i not in gone]
    return _reordered(call, data, kept)


@reads("Unsqueeze")
def unsqueeze(call: Call) -> Value:
    if isinstance(call.operand(0), Constant):
        return _viewed(call)
    data = call.data()
    axes = axes_of(call.node, [call.optional_constant(1)])
    if axes is None:
        call.refuse("axes", "none")
    rank = len(data.layout.dims) + len(axes)
    new = {normal_axis(a, rank, call.node) for a in axes}
    if len(new) != len(axes):
        call.refuse("each axis once", axes)
    old = iter(None if i == data.layout.batch else d for i, d in enumerate(data.layout.dims))
    return _reordered(call, data, [1 if i in new else next(old) for i in range(rank)])


@reads("Transpose")
def transpose(call: Call) -> Value:
    """A transposition that keeps the order of each row's features; the axis of the rows may move."""
    if isinstance(call.operand(0), Constant):
        return _viewed(call)
    data = call.data()
    dims, batch = data.layout.dims, data.layout.batch
    perm = call.node.ints("perm") or list(range(len(dims)))[::-1]
    if sorted(perm) != list(range(len(dims))):
        call.refuse(f"a permutation of {len(dims)} axes", perm)
    kept = [axis for axis in perm if axis != batch and dims[axis] != 1]
    if kept != sorted(kept):
        call.refuse("a transposition that keeps the order of the features", f"perm {perm} of shape {dims}")
    return Data(data.expr, Layout(tuple(dims[a] for a in perm), None if batch is None else perm.index(batch)))


def _reordered(call: Call, data: Data, target: list[int | None]) -> Value:
    """Data in a new shape; None in it stands for the rows, -1 for what remains."""
    layout = data.layout
    if any(v is not None and v < -1 for v in target) or target.count(-1) > 1 or len(target) > MAX_SHAPE_ENTRIES:
        call.refuse("a shape", target)
    batch = layout.batch
    known = math.prod(v for v in target if v is not None and v != -1)
    rows = _rows_in(call, layout, target, known)
    if rows is not None and (target[rows] or 0) > 0:  # the rows stand there as a number
        known //= layout.dims[batch or 0]
    rest = layout.features // max(known, 1)
    dims = [0 if i == rows else rest if v == -1 else v for i, v in enumerate(target)]
    result = Layout(tuple(v or 0 for v in dims), rows)
    if batch is not None and known == 1 and rows is None and -1 in target and _all_ones(layout.dims[:batch]):
        return Tail(data.expr, "scores", OTHER_SHAPE_NOTE, "a shape that keeps the rows apart")
    if (rows is None) != (batch is None) or result.features != layout.features:
        call.refuse("a shape that keeps the rows apart", f"{target} for shape {layout.dims}")
    if rows is not None and batch is not None:
        outermost = _all_ones(layout.dims[:batch]) and _all_ones(result.dims[:rows])
        innermost = _all_ones(layout.dims[batch + 1 :]) and _all_ones(result.dims[rows + 1 :])
        unmoved = layout.features == 1 or outermost or innermost or layout.dims[:batch] == result.dims[:rows]
        if not unmoved:
            call.refuse("a shape that keeps the rows apart", f"{target} for shape {layout.dims}")
        result = result.resized(rows, layout.dims[batch])
    return Data(data.expr, result)


def _rows_in(call: Call, layout: Layout, target: list[int | None], known: int) -> int | None:
    """Which entry of a new shape counts the rows."""
    if layout.batch is None:
        return None
    if None in target:
        return target.index(None)
    if -1 in target and known == layout.features:
        return target.index(-1)
    size = layout.dims[layout.batch]
    if size > 0 and size in target:
        return target.index(size)
    return None


def _all_ones(dims: tuple[int, ...]) -> bool:
    return all(d == 1 for d in dims)


@reads("Slice")
def slice_(call: Call) -> Value:
    """The first or the last features, as a skip needs them; of a shape, any part."""
    subject = call.operand(0)
    starts, ends, axes, steps = _bounds(call)
    if isinstance(subject, Constant):
        index = [slice(None)] * subject.value.ndim
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            end_ = None if step < 0 and end < -_LAST else end
            index[normal_axis(axis, subject.value.ndim, call.node)] = slice(start, end_, step)
        return Constant(subject.value[tuple(index)])
    data = call.data()
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        where = normal_axis(axis, len(data.layout.dims), call.node)
        size = data.layout.dims[where]
        if step == 1 and start == 0 and (end >= _LAST or (where != data.layout.batch and end >= size)):
            continue
        if where == data.layout.batch or size != data.expr.width or step != 1:
            call.refuse("a slice of the features of each row, in steps of 1", f"axis {where} of {data.layout.dims}")
        low, high, _ = slice(start, end).indices(size)
        if low >= high:
            call.refuse("some features", f"features {low} to {high} of {size}")
        data = _features(call, data, where, low, high)
    return data


def _features(call: Call, data: Data, axis: int, low: int, high: int) -> Data:
    """The features from ``low`` up to ``high``, which all lie on one axis."""
    kind = "leading" if low == 0 else "trailing" if high == data.expr.width else "middle"
    part = Part(data.expr, high - low, call.node.label, kind, float(low))
    return Data(part, data.layout.resized(axis, high - low))


@reads("Split")
def split(call: Call) -> list[Value]:
    """The features of each row in parts, which a ``Concat`` may join again."""
    data, node = call.data(), call.node
    axis = normal_axis(node.integer("axis", 0), len(data.layout.dims), node)
    size, count = data.layout.dims[axis], len(node.outputs)
    sizes = node.ints("split") if node.opset < 13 else _plain_ints(call, 1)
    if axis == data.layout.batch or size != data.expr.width:
        call.refuse("a split of the features of each row", f"axis {axis} of {data.layout.dims}")
    if sizes is None:
        if size % count:
            call.refuse(f"{count} parts of one size", f"{size} features")
        sizes = [size // count] * count
    if len(sizes) != count or min(sizes) < 1 or sum(sizes) != size:
        call.refuse(f"{count} parts of {size} features", sizes)
    ends = np.cumsum(sizes).tolist()
    return [_features(call, data, axis, end - n, end) for n, end in zip(sizes, ends, strict=True)]


def _bounds(call: Call) -> tuple[list[int], list[int], list[int], list[int]]:
    """Starts, ends, axes and steps: attributes before opset 10, inputs since."""
    if call.node.opset < 10:
        starts, ends = call.node.ints("starts"), call.node.ints("ends")
        axes, steps = call.node.ints("axes"), None
    else:
        starts, ends, axes, steps = (_plain_ints(call, i) for i in (1, 2, 3, 4))
    if starts is None or ends is None:
        call.refuse("starts and ends", "none")
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        call.refuse("as many starts as ends, axes and steps", f"{starts}, {ends}, {axes}, {steps}")
    return starts, ends, axes, steps


@reads("Pad")
def pad(call: Call) -> Value:
    """Zeros behind the features, or (a negative pad) fewer of them."""
    data = call.data()
    rank = len(data.layout.dims)
    pads = call.node.ints("pads") if call.node.opset < 11 else _plain_ints(call, 1)
    value = call.node.number("value", 0.0) if call.node.opset < 11 or call.operand(2) is None else call.number(2)
    axes = [normal_axis(a, rank, call.node) for a in _plain_ints(call, 3) or range(rank)]
    if pads is None or len(pads) != 2 * len(axes) or len(set(axes)) != len(axes):
        call.refuse(f"pads in front of and behind {len(axes)} axes", pads)
    mode = call.node.string("mode", "constant")
    behind = {axis: n for axis, n in zip(axes, pads[len(axes) :], strict=True) if n != 0}
    if mode != "constant" or value != 0 or any(pads[: len(axes)]) or len(behind) > 1:
        call.refuse("zeros behind the features", f"mode {mode}, value {value}, pads {pads}")
    if not behind:
        return data
    axis, n = behind.popitem()
    width = data.expr.width + n
    if axis == data.layout.batch or data.layout.dims[axis] != data.expr.width or width < 1:
        call.refuse("zeros behind the features", f"pads {pads} for shape {data.layout.dims}")
    kind = "padded" if n > 0 else "leading"
    return Data(Part(data.expr, width, call.node.label, kind), data.layout.resized(axis, width))


@reads("Shape")
def shape(call: Call) -> Value:
    """The shape of a tensor, as exporters compute it for a Reshape; the number of rows stays open."""
    data = call.data()
    layout = data.layout
    dims = [None if i == layout.batch else d for i, d in enumerate(layout.dims)]
    dims = dims[call.node.integer("start", 0) : call.node.integer("end", _LAST)]
    return Constant(np.array(dims, object))


@reads("Gather")
def gather(call: Call) -> Value:
    """An entry of a shape."""
    constant = call.constant(0)
    indices = np.asarray(call.constant(1).value)
    if indices.dtype.kind not in "iu" or indices.size > MAX_SHAPE_ENTRIES:
        call.refuse("a few indices", f"{indices.dtype} {indices.shape}")
    require_size(call, constant.value.size * max(1, indices.size))
    return Constant(np.asarray(np.take(constant.value, indices, axis=call.node.integer("axis", 0))))


@reads("ConstantOfShape")
def constant_of_shape(call: Call) -> Value:
    dims = [1 if v is None else v for v in ints_of(call.constant(0), call.node, "the shape")]
    if min(dims, default=0) < 0:
        call.refuse("a shape", dims)
    require_size(call, math.prod(dims))
    value = call.node.tensor("value") if call.node.has("value") else np.zeros(1, np.float32)
    return Constant(np.full(dims, np.asarray(value).reshape(-1)[0]))


def _plain_ints(call: Call, position: int) -> list[int] | None:
    constant = call.optional_constant(position)
    if constant is None:
        return None
    found = ints_of(constant, call.node, f"input {position}")
    if None in found:
        call.refuse(f"input {position} to be known", "the number of rows")
    return [v for v in found if v is not None]


def _viewed(call: Call) -> Value:
    rest = [call.optional_constant(i) for i in range(1, len(call.operands))]
    return VIEWS[call.node.op](call.node, call.constant(0), rest)


@reads("Concat")
def concat(call: Call) -> Value:
    """Two tensors side by side: [1 - p, p] of a binary classifier, or a skip of the leading features."""
    axis = call.node.integer("axis", 1)
    if all(isinstance(v, Constant) for v in call.operands):
        parts = [call.constant(i).value for i in range(len(call.operands))]
        require_size(call, sum(part.size for part in parts))
        return Constant(np.concatenate(parts, axis))
    whole = _joined(call, axis)
    if whole is not None:
        return whole
    if len(call.operands) != 2:
        call.refuse("two inputs", len(call.operands))
    a, b = call.operands
    if isinstance(a, Data):
        axis = normal_axis(axis, len(a.layout.dims), call.node)
        wide = a.layout.resized(axis, 0)
        if axis != a.layout.batch and a.layout.features == a.layout.dims[axis]:
            if isinstance(b, Constant) and _is_zero(b, a, axis):
                width = a.expr.width + b.value.shape[axis]
                return Data(Part(a.expr, width, call.node.label, "padded"), wide.resized(axis, width))
            if isinstance(b, Data) and b.layout.resized(axis, 0) == wide:
                expr = _side_by_side(call, a.expr, b.expr)
                if isinstance(expr, Tail):
                    return expr
                return Data(expr, wide.resized(axis, expr.width))
    call.refuse("[1 - p, p], or the first features of a layer beside the others", "another concatenation")


def _joined(call: Call, axis: int) -> Data | None:
    """A tensor that was cut into parts, put together in its order."""
    parts = [v for v in call.operands if isinstance(v, Data) and is_part(v.expr, "leading", "middle", "trailing")]
    first = parts[0] if len(parts) == len(call.operands) > 1 else None
    if first is None or first.expr.source is None:
        return None
    axis = normal_axis(axis, len(first.layout.dims), call.node)
    end = 0
    for part in parts:
        expr = part.expr
        assert isinstance(expr, Part)
        alike = expr.source is first.expr.source and part.layout.resized(axis, 0) == first.layout.resized(axis, 0)
        if not alike or part.layout.dims[axis] != expr.width or axis == part.layout.batch or expr.number != end:
            return None
        end += expr.width
    return Data(first.expr.source, first.layout.resized(axis, end)) if end == first.expr.source.width else None


def _is_zero(constant: Constant, beside: Data, axis: int) -> bool:
    """Zeros to stand beside data, for each row."""
    shape = tuple(0 if i == axis else d for i, d in enumerate(constant.value.shape))
    fits = shape == tuple(0 if i == axis else d for i, d in enumerate(beside.layout.one_row()))
    return fits and constant.value.dtype.kind == "f" and not constant.value.any()


def _side_by_side(call: Call, a: Expr, b: Expr) -> Expr | Tail:
    complement = isinstance(a, Affine) and a.source is b and (a.scale == -1).all() and (a.total_shift == 1).all()
    if complement and b.width == 1:
        return Tail(b, "scores", BINARY_NOTE)
    if isinstance(a, Part) and isinstance(b, Part) and b.kind == "trailing" and a.source is b.source:
        base = a.source
        if is_part(a, "partial_skip") and base is not None and a.branch is not None and a.width + b.width == base.width:
            return Skip(base, base.width, call.node.label, a.branch, a.width)
    call.refuse("[1 - p, p], or the first features of a layer beside the others", "another concatenation")
