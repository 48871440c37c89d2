"""Arithmetic between constants, such as ``sqrt(variance + eps)`` in front of a division by it.

The result can be read like any constant, but nothing can be written back into it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from metaedit_fast.models.onnx.call import Call, require_size
from metaedit_fast.models.onnx.graph import FLOATS, Array, Constant

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
# Whole numbers, as in shapes, divide and overflow in other ways than numpy's.
_OF_INTS = ("Add", "Sub", "Mul")


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
    if any(v.dtype not in FLOATS for v in values) and not (
        node.op in _OF_INTS and all(v.dtype.kind in "iO" for v in values)
    ):
        call.refuse("arithmetic with floats", [str(v.dtype) for v in values])
    require_size(call, math.prod(np.broadcast_shapes(*(v.shape for v in values))))
    with np.errstate(all="ignore"):
        return Constant(np.asarray(function(*values)))
