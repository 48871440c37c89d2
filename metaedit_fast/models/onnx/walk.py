"""From an ONNX graph to one expression of its input: every node is read in turn, then the output is chosen."""

from __future__ import annotations

import dataclasses
import math

import onnx

from metaedit_fast.errors import UnsupportedModelError

# Each of these registers the operators that it reads.
from metaedit_fast.models.onnx import activations, elementwise, linear, shapes  # noqa: F401
from metaedit_fast.models.onnx.arithmetic import computed
from metaedit_fast.models.onnx.call import HANDLERS, ML, Call
from metaedit_fast.models.onnx.graph import Graph, Node, guarded, refuse
from metaedit_fast.models.onnx.values import (
    Activation,
    Data,
    Expr,
    Input,
    Layout,
    Softmax,
    Tail,
    Unread,
    Value,
)

MAX_INPUTS = 2**24
ONE_ROW_NOTE = "the model works on one row at a time"
LABEL_NOTE = "the model gives labels only; the MLP gives the scores that they are made of"
NUMBERS = {onnx.TensorProto.DataType.Value(name) for name in ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "BOOL")}
NUMBERS |= {onnx.TensorProto.DataType.Value(f"{u}INT{bits}") for u in ("", "U") for bits in (8, 16, 32, 64)}
# What may be done to labels and scores behind the network; it stays in the graph as it is.
TAIL_OPS = {
    *(("", op) for op in ("Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "ArgMax", "Gather")),
    *((ML, op) for op in ("ZipMap", "ArrayFeatureExtractor", "LabelEncoder")),
}


@dataclasses.dataclass
class Reading:
    """What a model computes: ``output`` as an expression of its input, and what a user should know about it.

    ``values`` tells what each tensor holds, by name.
    """

    output: Expr
    notes: list[str]
    values: dict[str, Value]


def read_graph(graph: Graph) -> Reading:
    """Read the graph's output as an expression of its one input.

    Raises ``UnsupportedModelError`` with the reason of the most natural way to see the input's axes.
    """
    if len(graph.inputs) != 1:
        names = ", ".join(repr(i.name) for i in graph.inputs) or "none"
        refuse("the graph", "one input", names)
    first: UnsupportedModelError | None = None
    for layout, notes in _layouts(graph):
        if not 0 < layout.features <= MAX_INPUTS:
            refuse(f"input {graph.inputs[0].name!r}", f"1 to {MAX_INPUTS} features", layout.features)
        try:
            return _read_as(graph, layout, notes)
        except UnsupportedModelError as error:
            first = first or error
    assert first is not None  # there is always a layout
    raise first


def _read_as(graph: Graph, layout: Layout, notes: list[str]) -> Reading:
    name = graph.inputs[0].name
    values: dict[str, Value] = {"": None, name: Data(Input(None, layout.features, f"input {name!r}"), layout)}
    for tensor in graph.initializers:
        values[tensor] = _constant(graph, tensor)
    for node in graph.nodes:
        if node.outputs and all(graph.is_constant(o) for o in node.outputs):
            results = [_constant(graph, o) for o in node.outputs]
        else:
            results = _evaluate(node, [values[i] for i in node.inputs], notes)
        results += [None] * len(node.outputs)
        for output, value in zip(node.outputs, results, strict=False):
            unread = Unread(f"{node.label}: expected only the first output to be used, found {output!r} in use")
            values[output] = (unread if value is None else value) if output else None
    return _choose_output(graph, values, notes)


def _constant(graph: Graph, name: str) -> Value:
    try:
        return graph.constant(name)
    except UnsupportedModelError as error:
        return Unread(str(error))


def _evaluate(node: Node, operands: list[Value], notes: list[str]) -> list[Value]:
    """The values of a node's outputs; a node that cannot be read gives ``Unread`` and the reason."""
    for operand in operands:
        if isinstance(operand, Unread):
            return [operand] * len(node.outputs)
    tails = [operand for operand in operands if isinstance(operand, Tail)]
    if tails:
        if (node.domain, node.op) in TAIL_OPS and len(tails) == 1 and not any(isinstance(o, Data) for o in operands):
            kind = tails[0].kind if node.op not in ("ArgMax", "Gather") else "label"
            return [dataclasses.replace(tails[0], kind=kind)]
        return [Unread(f"{node.label}: expected {tails[0].reason}, found {node.op}")] * len(node.outputs)
    handler = HANDLERS.get((node.domain, node.op))
    if handler is None:
        known = "an operator of an MLP"
        operator = f"{node.domain}.{node.op}" if node.domain else node.op
        return [Unread(f"{node.label}: expected {known}, found {operator}")] * len(node.outputs)
    found: list[str] = []
    call = Call(node, operands, found)
    try:
        result = guarded(node, lambda: computed(call) or handler(call))
    except UnsupportedModelError as error:
        return [Unread(str(error))] * len(node.outputs)
    notes += [note for note in found if note not in notes]
    return list(result) if isinstance(result, list) else [result]


def _choose_output(graph: Graph, values: dict[str, Value], notes: list[str]) -> Reading:
    """The first output that is no label; the others must be made of the same network's result."""
    outputs = [(o.name, values.get(o.name)) for o in graph.proto.output]
    if not outputs:
        refuse("the graph", "an output", "none")
    for name, value in outputs:
        if isinstance(value, Unread):
            raise UnsupportedModelError(value.reason)
        if not isinstance(value, (Data, Tail)):
            refuse(f"output {name!r}", "a tensor that depends on the input", "none")
    known = [value for _, value in outputs if isinstance(value, (Data, Tail))]
    scores = [v for v in known if isinstance(v, Data) or v.kind == "scores"]
    if not scores:
        notes.append(LABEL_NOTE)
    chosen = (scores or known)[0]
    expr = chosen.expr if isinstance(chosen, Data) else chosen.source
    if isinstance(chosen, Tail) and chosen.note:
        notes.append(chosen.note)
    end = _logits(expr)
    for name, value in outputs:
        assert isinstance(value, (Data, Tail))
        other = value.expr if isinstance(value, Data) else value.source
        if _logits(other) is not end:
            refuse(f"output {name!r}", "the same result as the first output is made of", "another part of the network")
    return Reading(expr, notes, values)


def _logits(expr: Expr) -> Expr | None:
    """The expression in front of a softmax or sigmoid."""
    final = isinstance(expr, Softmax) or (isinstance(expr, Activation) and expr.name == "sigmoid")
    return expr.source if final else expr


def _layouts(graph: Graph) -> list[tuple[Layout, list[str]]]:
    """The ways to see the input's axes, the most natural one first.

    An axis of open size counts rows. Where no size is open, the tensor is one row, or else its first axis
    counts them. Graphs that fix the number of rows to 1 further on are read as working on one row.
    """
    value = graph.inputs[0]
    if not value.type.HasField("tensor_type"):
        refuse(f"input {value.name!r}", "a tensor", value.type.WhichOneof("value") or "no type")
    tensor = value.type.tensor_type
    if tensor.elem_type not in NUMBERS:
        refuse(f"input {value.name!r}", "numbers", f"elements of type {tensor.elem_type}")
    if not tensor.HasField("shape"):
        return [(Layout((0, _features_of_first_linear(graph)), 0), [])]
    sizes = [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else 0 for d in tensor.shape.dim]
    return _ways_to_see(sizes, graph)


def _ways_to_see(sizes: list[int], graph: Graph) -> list[tuple[Layout, list[str]]]:
    is_open = [axis for axis, size in enumerate(sizes) if size == 0]
    if not is_open:
        ways: list[tuple[Layout, list[str]]] = [(Layout(tuple(sizes), None), [])]
        if len(sizes) > 1 and sizes[0] > 1:
            ways.append((Layout(tuple(sizes), 0), []))
        return ways
    wanted = _features_of_first_linear(graph) if len(is_open) > 1 or len(sizes) == 1 else 0
    if len(sizes) == 1:
        return [(Layout((wanted,), None), [])]
    batch, *unknown = is_open
    if len(unknown) > 1:
        refuse(f"input {graph.inputs[0].name!r}", "one axis of rows and at most one other open axis", len(is_open))
    for axis in unknown:
        sizes[axis] = wanted // max(1, math.prod(s for s in sizes if s > 0))
    one = [1 if axis == batch else size for axis, size in enumerate(sizes)]
    return [(Layout(tuple(sizes), batch), []), (Layout(tuple(one), batch), [ONE_ROW_NOTE])]


def _features_of_first_linear(graph: Graph) -> int:
    """How many features the first weight matrix takes, for inputs of unknown size."""
    for node in graph.nodes:
        if node.op in ("Gemm", "MatMul"):
            for position, name in enumerate(node.inputs[:2]):
                if graph.is_constant(name) and graph.constant(name).value.ndim == 2:
                    shape = graph.constant(name).value.shape
                    flipped = node.op == "Gemm" and node.integer("transA" if position == 0 else "transB", 0)
                    return int(shape[0 if (position == 1) != bool(flipped) else 1])
    refuse(f"input {graph.inputs[0].name!r}", "a known number of features", "an open shape")
