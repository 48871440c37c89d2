"""What a tensor inside an ONNX model means to the reader: an expression of the input, and its layout."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.models.onnx.graph import Array, Constant, Node

Float64s = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Layout:
    """The shape of a tensor, split into rows and features.

    ``batch`` is the axis that counts rows, None where the tensor holds one row. The size on that axis is
    meaningless here unless the model fixes it; 0 stands for unknown. All other axes hold the features of
    a row, in row-major order.
    """

    dims: tuple[int, ...]
    batch: int | None

    @property
    def features(self) -> int:
        return math.prod(d for axis, d in enumerate(self.dims) if axis != self.batch)

    @property
    def feature_axis(self) -> int | None:
        """The one axis that holds all features; the last of them where there is a choice, None where none does."""
        axes = [axis for axis, d in enumerate(self.dims) if axis != self.batch and d == self.features]
        return axes[-1] if axes else None

    def one_row(self) -> tuple[int, ...]:
        """The shape of a single row in this layout."""
        return tuple(1 if axis == self.batch else d for axis, d in enumerate(self.dims))

    def with_leading(self, n: int) -> Layout:
        """The same with ``n`` more axes of size 1 in front."""
        return Layout((1,) * n + self.dims, None if self.batch is None else self.batch + n)

    def resized(self, axis: int, size: int) -> Layout:
        """The same with another size on one axis."""
        return Layout((*self.dims[:axis], size, *self.dims[axis + 1 :]), self.batch)


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A constant as it enters a node: what an edit may replace. ``position`` counts the node's inputs.

    ``axis`` is the axis of the features, from the end, for a vector that must grow from one number.
    """

    node: Node
    position: int
    constant: Constant
    axis: int = -1

    @property
    def name(self) -> str:
        return self.node.inputs[self.position] if self.position < len(self.node.inputs) else ""

    def matrix(self, value: Array) -> Array:
        """A weight's numbers as a matrix: without leading axes, a vector as a column, a kernel as ``[out, in]``."""
        if self.node.op == "Conv":
            return value.reshape(len(value), -1)
        return value.reshape(value.shape[-2:] if value.ndim > 1 else (-1, 1))

    @property
    def is_writable(self) -> bool:
        """Can an edit replace it? A computed constant it cannot; an optional input that was left out it can fill."""
        return self.constant.root is not None or not self.name


@dataclasses.dataclass(eq=False)
class Expr:
    """A function of the model's input, ``width`` features a row. Two expressions are equal if they are one object.

    ``source`` is what it is a function of, ``where`` names the node that computes it.
    """

    source: Expr | None
    width: int
    where: str

    def depends_on(self, other: Expr) -> bool:
        """Is ``other`` one of the expressions on the way from the input to this one?"""
        step: Expr | None = self
        while step is not None and step is not other:
            step = step.source
        return step is other


class Input(Expr):
    """The model's input."""


@dataclasses.dataclass(eq=False)
class Linear(Expr):
    """``factor * (source @ W) + bias_factor * b``; the array of W holds it transposed where ``transpose`` says so."""

    weight: Parameter
    transpose: bool
    factor: float = 1.0
    bias: Parameter | None = None
    bias_factor: float = 1.0


@dataclasses.dataclass(eq=False)
class Affine(Expr):
    """``source * scale + shift + sign * addend``; vectors of one number or of one a feature.

    ``multiplier`` is the parameter that ``scale`` holds, where it is one.
    """

    scale: Float64s
    shift: Float64s
    multiplier: Parameter | None = None
    addend: Parameter | None = None
    sign: float = 1.0

    @property
    def total_shift(self) -> Float64s:
        if self.addend is None:
            return self.shift
        return self.shift + self.sign * vector(self.addend.constant)


@dataclasses.dataclass(eq=False)
class Norm(Expr):
    """``(source - mean) / sqrt(variance + eps)`` over the features."""

    eps: float


@dataclasses.dataclass(eq=False)
class Activation(Expr):
    """One of ``spec.ACTIVATIONS``, element by element."""

    name: str
    alpha: float = 0.0


@dataclasses.dataclass(eq=False)
class Skip(Expr):
    """``source`` with the first ``columns`` features of ``branch`` added to its own first features."""

    branch: Expr
    columns: int


@dataclasses.dataclass(eq=False)
class Softmax(Expr):
    """Softmax over the features, or its logarithm."""

    log: bool


@dataclasses.dataclass(eq=False)
class Part(Expr):
    """A piece of a pattern of several nodes, such as the mean inside a layer norm.

    ``branch`` and ``number`` mean what ``kind`` needs: see where the parts are made.
    """

    kind: str
    number: float = 0.0
    branch: Expr | None = None


@dataclasses.dataclass(frozen=True)
class Data:
    """A tensor that holds an expression in some layout."""

    expr: Expr
    layout: Layout


@dataclasses.dataclass(frozen=True)
class Tail:
    """What is made of the network's output and stays as it is: labels, or scores in another form.

    ``note`` tells a user what is made of it; ``reason`` why nothing else may stand behind.
    """

    source: Expr
    kind: str  # "label" or "scores"
    note: str = ""
    reason: str = "nothing but labels behind the network's scores"


@dataclasses.dataclass(frozen=True)
class Unread:
    """A tensor that the reader cannot express, and why; an error only where the output needs it."""

    reason: str


Value = Constant | Data | Tail | Unread | None


def is_part(expr: Expr | None, *kinds: str) -> bool:
    """Is this a piece of a pattern, of one of these kinds?"""
    return isinstance(expr, Part) and expr.kind in kinds


def vector(constant: Constant) -> Float64s:
    """The numbers of a constant, flat and in float64."""
    return np.asarray(constant.value, np.float64).reshape(-1)


def scalings(expr: Expr) -> list[tuple[float, Expr]]:
    """The ways to write ``expr`` as number times expression: itself first, then without its plain factors."""
    factor = 1.0
    found = [(factor, expr)]
    while isinstance(expr, Affine) and expr.source is not None and expr.scale.size == 1 and not expr.total_shift.any():
        factor *= float(expr.scale[0])
        expr = expr.source
        found.append((factor, expr))
    return found


def scalar_affine(expr: Expr) -> tuple[float, float, Expr]:
    """``(a, b, e)`` such that ``expr = a * e + b``, with as many steps taken off as are uniform over the features."""
    a, b = 1.0, 0.0
    while isinstance(expr, Affine) and expr.source is not None and expr.scale.size == expr.total_shift.size == 1:
        a, b = a * float(expr.scale[0]), b + a * float(expr.total_shift[0])
        expr = expr.source
    return a, b, expr
