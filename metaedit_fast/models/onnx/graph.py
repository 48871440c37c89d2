"""An ONNX graph as the reader sees it: nodes with checked attributes, and constants with their origin."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from metaedit_fast.errors import UnsupportedModelError

Array = NDArray[Any]

OLDEST_OPSET = 7  # before, Add and Mul broadcast by attributes
OLDEST_IR = 3
MAX_SHAPE_ENTRIES = 64
MAX_VIEWS = 100
STANDARD_DOMAINS = ("", "ai.onnx")
FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))
_KINDS = {
    onnx.AttributeProto.INT: "an int",
    onnx.AttributeProto.FLOAT: "a float",
    onnx.AttributeProto.STRING: "a string",
    onnx.AttributeProto.INTS: "a list of ints",
    onnx.AttributeProto.FLOATS: "a list of floats",
    onnx.AttributeProto.TENSOR: "a tensor",
}


def refuse(where: str, expected: str, found: object) -> NoReturn:
    """Raise the one error of this adapter, with its three parts."""
    raise UnsupportedModelError(f"{where}: expected {expected}, found {found}")


@dataclasses.dataclass(frozen=True)
class Constant:
    """A tensor that is known without running the model.

    ``root`` names the initializer or the output of the Constant node that holds the numbers; None where
    they are computed, so that nothing can be written back. ``to_root`` turns a new value of this tensor
    into the new value of its root. Shapes that hold the number of rows are object arrays with None there.
    """

    value: Array
    root: str | None = None
    to_root: Callable[[Array], Array] = lambda value: value
    n_views: int = 0

    def view(self, value: Array, undo: Callable[[Array], Array]) -> Constant:
        """The constant after an operation that only moves numbers; ``undo`` is its inverse."""
        if self.root is None or self.n_views == MAX_VIEWS:  # a longer chain of calls might not come back
            return Constant(value)
        before = self.to_root
        return Constant(value, self.root, lambda new: before(undo(new)), self.n_views + 1)

    def reshaped(self, shape: tuple[int, ...]) -> Constant:
        old = self.value.shape
        return self.view(self.value.reshape(shape), lambda new: new.reshape(old))


class Node:
    """One node of the graph, with its place in it."""

    def __init__(self, index: int, proto: onnx.NodeProto, opset: int) -> None:
        self.index = index
        self.proto = proto
        self.opset = opset
        self.op = proto.op_type
        self.domain = "" if proto.domain in STANDARD_DOMAINS else proto.domain
        self.inputs = list(proto.input)
        self.outputs = list(proto.output)
        self._attributes = {a.name: a for a in proto.attribute}
        output = next(filter(None, self.outputs), "none")
        name = f"node {proto.name!r} " if proto.name else "node "
        self.label = f"{name}({self.op}, output {output!r})"

    def refuse(self, expected: str, found: object) -> NoReturn:
        """Raise ``UnsupportedModelError`` that names this node."""
        refuse(self.label, expected, found)

    def has(self, name: str) -> bool:
        return name in self._attributes

    def integer(self, name: str, default: int) -> int:
        attribute = self._attribute(name, onnx.AttributeProto.INT)
        return default if attribute is None else attribute.i

    def number(self, name: str, default: float) -> float:
        """A float attribute, as the shortest decimal that gives these float32 bits: 0.01, not 0.00999999978."""
        attribute = self._attribute(name, onnx.AttributeProto.FLOAT)
        return default if attribute is None else float(str(np.float32(attribute.f)))

    def string(self, name: str, default: str) -> str:
        attribute = self._attribute(name, onnx.AttributeProto.STRING)
        return default if attribute is None else attribute.s.decode("utf-8", "replace")

    def ints(self, name: str) -> list[int] | None:
        attribute = self._attribute(name, onnx.AttributeProto.INTS)
        return None if attribute is None else list(attribute.ints)

    def floats(self, name: str) -> list[float] | None:
        attribute = self._attribute(name, onnx.AttributeProto.FLOATS)
        return None if attribute is None else list(attribute.floats)

    def tensor(self, name: str) -> Array | None:
        attribute = self._attribute(name, onnx.AttributeProto.TENSOR)
        return None if attribute is None else to_array(attribute.t, f"{self.label}, attribute {name!r}")

    def _attribute(self, name: str, kind: onnx.AttributeProto.AttributeType) -> onnx.AttributeProto | None:
        attribute = self._attributes.get(name)
        if attribute is not None and attribute.type != kind:
            self.refuse(f"attribute {name!r} to be {_KINDS[kind]}", f"type {attribute.type}")
        return attribute


class Graph:
    """The nodes and constants of a model, checked for what every later step takes for granted.

    Raises ``UnsupportedModelError`` for versions out of range, subgraphs, names that are defined twice or
    not before their use, tensors that are kept elsewhere, and damaged constants.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.proto = graph
        versions = {o.domain: o.version for o in model.opset_import}
        self.opset = versions.get("", versions.get("ai.onnx", 0))
        newest = onnx.defs.onnx_opset_version()
        if not OLDEST_OPSET <= self.opset <= newest:
            refuse("opset_import", f"the standard operators in version {OLDEST_OPSET} to {newest}", self.opset)
        if model.ir_version < OLDEST_IR:
            refuse("ir_version", f"{OLDEST_IR} or newer", model.ir_version)
        if any(function.domain in STANDARD_DOMAINS for function in model.functions):
            refuse("the model", "the standard operators", "a function of its own under a standard domain")
        if graph.sparse_initializer:
            refuse("the graph", "dense initializers", "a sparse one")
        self.nodes = [Node(i, n, self.opset) for i, n in enumerate(graph.node)]
        self.initializers = {t.name: t for t in graph.initializer}
        self.inputs = [i for i in graph.input if i.name not in self.initializers]
        self._check_names()
        self._tensors: dict[str, Callable[[], Constant]] = {}
        self._constants: dict[str, Constant] = {}
        self._find_constants()

    def is_constant(self, name: str) -> bool:
        return name in self._tensors

    def constant(self, name: str) -> Constant:
        """The constant called ``name``; its numbers are decoded on first use."""
        if name not in self._constants:
            try:
                self._constants[name] = self._tensors[name]()
            except RecursionError:
                refuse(f"constant {name!r}", "a shorter chain of operations", "one that is too long")
        return self._constants[name]

    def uses(self) -> dict[str, list[tuple[int, int]]]:
        """Where each root's numbers go: ``(node, input)``, seen through views; node -1 is the graph's output."""
        found: dict[str, list[tuple[int, int]]] = collections.defaultdict(list)
        leaves = [(n.index, i, name) for n in self.nodes for i, name in enumerate(n.inputs) if not self._is_view(n)]
        leaves += [(-1, i, o.name) for i, o in enumerate(self.proto.output)]
        for node, position, name in leaves:
            if name in self._tensors:
                root = self.constant(name).root
                if root is not None:
                    found[root].append((node, position))
        return found

    def _is_view(self, node: Node) -> bool:
        return all(name in self._tensors for name in node.outputs)

    def _check_names(self) -> None:
        if len(self.initializers) != len(self.proto.initializer):
            refuse("the graph", "each initializer to have a name of its own", "two of one name")
        known = {*self.initializers, *(i.name for i in self.inputs), ""}
        for node in self.nodes:
            if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.proto.attribute):
                node.refuse("no control flow", "a subgraph")
            for name in node.inputs:
                if name not in known:
                    node.refuse("inputs that are computed before", repr(name))
            for name in filter(None, node.outputs):
                if name in known:
                    node.refuse("a new name for each output", f"{name!r} a second time")
                known.add(name)

    def _find_constants(self) -> None:
        for name, tensor in self.initializers.items():
            self._tensors[name] = lambda t=tensor, n=name: Constant(to_array(t, f"initializer {n!r}"), n)  # type: ignore[misc]
        for node in self.nodes:
            if node.op == "Constant" and not node.domain and len(node.outputs) == 1:
                self._tensors[node.outputs[0]] = lambda node=node: _of_node(node)  # type: ignore[misc]
            elif self._moves_constants(node):
                self._tensors[node.outputs[0]] = lambda node=node: self._viewed(node)  # type: ignore[misc]

    def _moves_constants(self, node: Node) -> bool:
        known = all(name in self._tensors for name in node.inputs if name)
        return known and node.op in VIEWS and not node.domain and len(node.inputs) > 0 and len(node.outputs) == 1

    def _viewed(self, node: Node) -> Constant:
        operands = [self.constant(name) if name else None for name in node.inputs]
        first = operands[0]
        if first is None:
            node.refuse("a first input", "none")
        viewed: Constant = guarded(node, lambda: VIEWS[node.op](node, first, operands[1:]))
        return viewed


def guarded(node: Node, work: Callable[[], Any]) -> Any:
    """Run ``work`` on a node of unknown making: what its odd attributes and shapes raise, names the node."""
    try:
        return work()
    except UnsupportedModelError:
        raise
    except Exception as error:
        raise UnsupportedModelError(f"{node.label}: expected a well-formed node, found {error!r}") from error


def to_array(tensor: onnx.TensorProto, where: str) -> Array:
    """The numbers of a tensor. Raises ``UnsupportedModelError`` where they lie elsewhere or are damaged."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        refuse(where, "its numbers inside the model (read_onnx_file loads external data)", "external data")
    if tensor.HasField("segment"):
        refuse(where, "a whole tensor", "a segment")
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except Exception as error:  # onnx raises whatever comes up on damaged tensors
        raise UnsupportedModelError(f"{where}: expected a well-formed tensor, found {error!r}") from error


def ints_of(constant: Constant, node: Node, what: str) -> list[int | None]:
    """A short list of ints, such as a shape or axes; None stands for the number of rows."""
    value = constant.value
    if value.dtype.kind not in "iuO" or value.size > MAX_SHAPE_ENTRIES:
        node.refuse(f"{what} to be a few ints", f"{value.dtype} {value.shape}")
    return [None if v is None else int(v) for v in value.reshape(-1)]


def axes_of(node: Node, operands: Iterable[Constant | None], attribute: str = "axes") -> list[int] | None:
    """Axes given as an attribute, or by newer opsets as an input."""
    operand = next(iter(operands), None)
    if operand is None:
        return node.ints(attribute)
    found = ints_of(operand, node, attribute)
    if None in found:
        node.refuse(f"fixed {attribute}", "the number of rows")
    return [v for v in found if v is not None]


def normal_axis(axis: int, rank: int, node: Node) -> int:
    """``axis`` counted from the front."""
    if not -rank <= axis < rank:
        node.refuse(f"an axis of a tensor of rank {rank}", axis)
    return axis % rank


def _of_node(node: Node) -> Constant:
    if len(node.proto.attribute) != 1:
        node.refuse("one value", f"{len(node.proto.attribute)} attributes")
    attribute = node.proto.attribute[0]
    name, root = attribute.name, node.outputs[0]
    value: Array | None
    match name:
        case "value":
            value = node.tensor(name)
        case "value_float":
            value = np.array(node._attribute(name, onnx.AttributeProto.FLOAT).f, np.float32)  # type: ignore[union-attr]
        case "value_floats":
            value = np.array(node.floats(name), np.float32)
        case "value_int":
            value = np.array(node.integer(name, 0), np.int64)
        case "value_ints":
            value = np.array(node.ints(name), np.int64)
        case "value_string":
            value = np.array(node.string(name, ""), object)
        case _:
            value = None
    if value is None:
        node.refuse("a dense value", name)
    return Constant(value, root)


View = Callable[[Node, Constant, "list[Constant | None]"], Constant]


def _identity(node: Node, data: Constant, rest: list[Constant | None]) -> Constant:
    return data


def _cast(node: Node, data: Constant, rest: list[Constant | None]) -> Constant:
    to = onnx.helper.tensor_dtype_to_np_dtype(node.integer("to", 0))
    if data.value.dtype == object:  # a shape; it stays one
        return data
    old = data.value
    with np.errstate(over="ignore", invalid="ignore"):
        new = old.astype(to)
    if old.dtype not in FLOATS or to not in FLOATS:
        return Constant(new)

    def undo(edited: Array) -> Array:
        # Numbers that are as they were keep all their bits in the root, be it wider than the cast.
        return np.where(edited == new, old, edited.astype(old.dtype))

    return data.view(new, undo)


def _transpose(node: Node, data: Constant, rest: list[Constant | None]) -> Constant:
    perm = node.ints("perm") or list(range(data.value.ndim))[::-1]
    if sorted(perm) != list(range(data.value.ndim)):
        node.refuse(f"a permutation of {data.value.ndim} axes", perm)
    return data.view(data.value.transpose(perm), lambda new: new.transpose(np.argsort(perm)))


def _reshape(node: Node, data: Constant, rest: list[Constant | None]) -> Constant:
    if not rest or rest[0] is None:
        node.refuse("a shape as second input", "none")
    target = ints_of(rest[0], node, "the shape")
    old = data.value.shape
    keep = not node.integer("allowzero", 0)
    shape = [old[i] if v == 0 and keep else v for i, v in enumerate(target)]
    return data.reshaped(tuple(shape))  # type: ignore[arg-type]  # numpy refuses a None


def _flatten(node: Node, data: Constant, rest: list[Constant | None]) -> Constant:
    axis = node.integer("axis", 1)
    shape = data.value.shape
    if not -len(shape) <= axis <= len(shape):
        node.refuse(f"an axis of a tensor of rank {len(shape)}", axis)
    front = int(np.prod(shape[:axis]))
    return data.reshaped((front, data.value.size // max(front, 1)))


def _squeeze(node: Node, data: Constant, rest: list[Constant | None]) -> Constant:
    axes = axes_of(node, rest)
    value = np.squeeze(data.value, None if axes is None else tuple(axes))
    return data.reshaped(value.shape)


def _unsqueeze(node: Node, data: Constant, rest: list[Constant | None]) -> Constant:
    axes = axes_of(node, rest)
    if axes is None:
        node.refuse("axes", "none")
    return data.reshaped(np.expand_dims(data.value, tuple(axes)).shape)


# Operations that only move or re-type the numbers of a constant.
VIEWS: dict[str, View] = {
    "Identity": _identity,
    "Cast": _cast,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
}
