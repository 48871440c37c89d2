"""Arithmetic between constants, such as ``sqrt(variance + eps)`` in front of a division by it.

The result can be read like any constant, but nothing can be written back into it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from metaedit_fast.models.onnx.call import Call, require_size
from metaedit_fast.models.onnx.graph import FLOATS, MAX_SHAPE_ENTRIES, Array, Constant

_OPERATORS: dict[str, tuple[int, Callable[..., Array]]] = {
    "Add": (2, np.add),
    "Sub": (2, np.subtract),
    "Mul": (2, np.multiply),
    "Div": (2, np.divide),
    "Pow": (2, np.power),
    "Sqrt": (1, np.sqrt),
    "Reciprocal": (1, np.reciprocal),
    "Exp": (1, np.exp),
    "Neg": (1, np.negative),
    "Abs": (1, np.abs),
}
# What exporters compute of shapes. Negative whole numbers divide in another way than numpy's.
_OF_SIZES: dict[str, Callable[..., Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.floor_divide,
}


def computed(call: Call) -> Constant | None:
    """The result of a node whose operands are all constants; None where it does something else.

    Raises ``UnsupportedModelError`` for numbers of other types and for results beyond ``MAX_COMPUTED``.
    """
    node = call.node
    arity, function = _OPERATORS.get(node.op, (0, None))
    if node.domain or function is None or not all(isinstance(v, Constant) for v in call.operands):
        return None
    if len(call.operands) != arity:
        call.refuse(f"{arity} inputs", len(call.operands))
    values = [call.constant(i).value for i in range(arity)]
    if not all(v.dtype in FLOATS for v in values):
        if node.op not in _OF_SIZES or not all(map(_are_sizes, values)) or (node.op == "Div" and not values[1].all()):
            call.refuse("arithmetic with floats, or of sizes", [f"{v.dtype} {v.shape}" for v in values])
        function = _OF_SIZES[node.op]
    require_size(call, math.prod(np.broadcast_shapes(*(v.shape for v in values))))
    with np.errstate(all="ignore"):
        return Constant(np.asarray(function(*values)))


def _are_sizes(value: Array) -> bool:
    """Whole numbers from 0 on, as few as a shape has; None, the number of rows, is no size here."""
    few = value.dtype.kind in "iO" and value.size <= MAX_SHAPE_ENTRIES
    return few and all(v is not None and v >= 0 for v in value.reshape(-1))
