"""One node at work on known values, and the table that says which function reads which operator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NoReturn

import numpy as np

from metaedit_fast.models.onnx.graph import FLOATS, Constant, Node
from metaedit_fast.models.onnx.values import Affine, Data, Expr, Float64s, Layout, Parameter, Tail, Value, vector

MAX_COMPUTED = 2**24
ML = "ai.onnx.ml"
MICROSOFT = "com.microsoft"


@dataclasses.dataclass
class Call:
    """A node and the values that enter it; ``notes`` collects what a user should know about the reading."""

    node: Node
    operands: list[Value]
    notes: list[str]

    def refuse(self, expected: str, found: object) -> NoReturn:
        self.node.refuse(expected, found)

    def operand(self, position: int) -> Value:
        """The value of an input, None where the optional input is left out."""
        return self.operands[position] if position < len(self.operands) else None

    def data(self, position: int = 0) -> Data:
        """An input that must depend on the model's input."""
        value = self.operand(position)
        if not isinstance(value, Data):
            self.refuse(f"input {position} to be computed from the model's input", _kind(value))
        return value

    def constant(self, position: int) -> Constant:
        """An input that must be a constant."""
        value = self.operand(position)
        if not isinstance(value, Constant):
            self.refuse(f"input {position} to be a constant", _kind(value))
        return value

    def optional_constant(self, position: int) -> Constant | None:
        return None if self.operand(position) is None else self.constant(position)

    def parameter(self, position: int, axis: int = -1) -> Parameter:
        """A constant of floats, with its place in the graph."""
        constant = self.constant(position)
        if constant.value.dtype not in FLOATS:
            self.refuse(f"input {position} to hold float16, float32 or float64", constant.value.dtype)
        return Parameter(self.node, position, constant, axis)

    def floats(self, position: int) -> Float64s:
        """The numbers of a constant input, flat."""
        constant = self.constant(position)
        if constant.value.dtype not in FLOATS and constant.value.dtype.kind not in "iu":
            self.refuse(f"input {position} to hold numbers", constant.value.dtype)
        return vector(constant)

    def number(self, position: int) -> float:
        """A constant input of one number."""
        values = self.floats(position)
        if values.size != 1:
            self.refuse(f"input {position} to hold one number", values.size)
        return float(values[0])

    def keep(self, data: Data, expr: Expr) -> Data:
        """An expression in the layout of ``data``."""
        return Data(expr, data.layout)

    def affine(self, data: Data, scale: Float64s | float, shift: Float64s | float) -> Data:
        """A fixed scale and shift, in the layout of ``data``."""
        expr = data.expr
        vectors = np.reshape(np.float64(scale), -1), np.reshape(np.float64(shift), -1)
        return self.keep(data, Affine(expr, expr.width, self.node.label, *vectors))

    def feature_axis(self, data: Data) -> int:
        """The axis that holds all features of ``data``."""
        axis = data.layout.feature_axis
        if axis is None:
            self.refuse("all features on one axis", f"shape {data.layout.dims}")
        return axis


def spread(call: Call, constant: Constant, layout: Layout) -> tuple[tuple[int, ...] | None, Layout]:
    """How a constant is broadcast against data: the shape to bring it to (None for one number), and the new layout."""
    shape = constant.value.shape
    layout = layout.with_leading(max(len(shape) - len(layout.dims), 0))
    shape = (1,) * (len(layout.dims) - len(shape)) + shape
    for axis, (c, d) in enumerate(zip(shape, layout.one_row(), strict=True)):
        if c not in (1, d):
            call.refuse(f"a constant that fits rows of shape {layout.one_row()}", f"shape {shape} on axis {axis}")
    return (None if constant.value.size == 1 else layout.one_row()), layout


def require_size(call: Call, size: int) -> None:
    """Refuse a constant that a small file would make large."""
    if size > MAX_COMPUTED:
        call.refuse(f"at most {MAX_COMPUTED} numbers in a computed constant", size)


Handler = Callable[[Call], Value | list[Value]]
HANDLERS: dict[tuple[str, str], Handler] = {}


def reads(*ops: str, domain: str = "") -> Callable[[Handler], Handler]:
    """Register a function as the reader of operators; it gives the value of the output, or a list of values."""

    def register(handler: Handler) -> Handler:
        for op in ops:
            HANDLERS[domain, op] = handler
        return handler

    return register


def _kind(value: Value) -> str:
    match value:
        case None:
            return "nothing"
        case Constant():
            return "a constant"
        case Data():
            return "a tensor that depends on the input"
        case Tail():
            return f"a {value.kind} tail"
    return "an unread tensor"
