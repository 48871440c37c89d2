"""An ONNX graph cut down to what stays of its network."""

from __future__ import annotations

import collections

import numpy as np
import onnx
from onnx import numpy_helper

from metaedit_fast.models.compaction.plan import Indices, Plan
from metaedit_fast.models.onnx.graph import Array, Graph, Node
from metaedit_fast.models.onnx.values import Data, Expr, Linear
from metaedit_fast.models.onnx.walk import Reading, read_graph
from metaedit_fast.models.onnx.write import IR_WITHOUT_LISTED_INITIALIZERS

# The inputs of these nodes that hold one number a feature.
_BY_FEATURE = {
    "Add": (0, 1),
    "Sum": (0, 1),
    "Sub": (0, 1),
    "Mul": (0, 1),
    "Div": (0, 1),
    "BatchNormalization": (1, 2, 3, 4),
    "LayerNormalization": (1, 2),
}


def cut_onnx(model: onnx.ModelProto, plan: Plan) -> onnx.ModelProto | None:
    """A copy of a graph in which constants have fewer rows and columns; biases are as they were.

    Nodes, names and metadata stay, but for constants that only the longer form needed; inferred shapes are
    dropped. None where a constant has no such shorter form. Whether the nodes still fit, such as a Reshape to
    a fixed width, is for the caller to find out.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = Graph(model)
    cutter = _Cutter(result, graph, read_graph(graph), plan)
    for node in graph.nodes:
        if not cutter.cut(node):
            return None
    if plan.inputs_removed and not _cut_input(result, graph, plan):
        return None
    _drop_unused(result)
    cutter.restore_names()
    result.graph.ClearField("value_info")
    return result


class _Cutter:
    def __init__(self, model: onnx.ModelProto, graph: Graph, reading: Reading, plan: Plan) -> None:
        self.model, self.graph, self.reading, self.plan = model, graph, reading, plan
        self.taken = {t.name for t in model.graph.initializer} | {i.name for i in model.graph.input}
        self.taken |= {name for node in model.graph.node for name in (*node.input, *node.output)}
        self.made: dict[tuple[str, bytes], str] = {}

    def cut(self, node: Node) -> bool:
        """Shorten the constants of one node; False where there is no way."""
        if all(self.graph.is_constant(name) for name in node.outputs):
            return True
        data = {i: d for i, name in enumerate(node.inputs) if isinstance(d := self.reading.values.get(name), Data)}
        if not data:
            return True
        position, entering = next(iter(data.items()))
        layer = _layer_of(entering.expr)
        kept = self.plan.kept[layer]
        if node.op in ("Gemm", "MatMul") and not node.domain:
            return self._cut_linear(node, 1 - position, kept, self.plan.kept[layer + 1])
        if node.op == "Scaler":
            return self._cut_attributes(node, kept, self.plan.before.widths[layer])
        for place in () if node.domain else _BY_FEATURE.get(node.op, ()):
            if place < len(node.inputs) and self.graph.is_constant(node.inputs[place]):
                value = self.graph.constant(node.inputs[place]).value
                wide = [axis for axis, size in enumerate(value.shape) if size == self.plan.before.widths[layer]]
                if value.size == 1:
                    continue
                if len(wide) != 1 or value.shape[wide[0]] != value.size:
                    return False
                self._give(node, place, value.take(kept, wide[0]))
        return True

    def _cut_linear(self, node: Node, place: int, rows: Indices, columns: Indices) -> bool:
        value = self.graph.constant(node.inputs[place]).value
        if value.ndim != 2:
            return False
        left = place == 0
        transposed = node.op == "Gemm" and bool(node.integer("transA" if left else "transB", 0))
        first, second = (columns, rows) if left != transposed else (rows, columns)
        self._give(node, place, value[np.ix_(first, second)])
        layer = _layer_of(self._data(node, 1 - place).expr)
        if node.op == "Gemm" and len(node.inputs) > 2 and node.inputs[2]:
            bias = self.graph.constant(node.inputs[2]).value
            if bias.size > 1:
                self._give(node, 2, bias.take(columns, -2 if left else -1))
        elif node.op == "Gemm" and self.plan.mlp.spec.layers[layer].bias and not self.plan.before.layers[layer].bias:
            shape = (len(columns), 1) if left else (len(columns),)
            self._give(node, 2, np.zeros(shape, value.dtype), f"{node.outputs[0]}_bias")
        return True

    def _cut_attributes(self, node: Node, kept: Indices, width: int) -> bool:
        for attribute in self.model.graph.node[node.index].attribute:
            if attribute.name in ("scale", "offset") and len(attribute.floats) == width:
                attribute.floats[:] = np.array(attribute.floats, np.float32)[kept].tolist()
        return True

    def _data(self, node: Node, place: int) -> Data:
        value = self.reading.values[node.inputs[place]]
        assert isinstance(value, Data)
        return value

    def _give(self, node: Node, place: int, value: Array, name: str = "") -> None:
        """Lead an input of a node to a new initializer; equal ones of one origin stay one."""
        base = name or node.inputs[place]
        value = np.ascontiguousarray(value)
        key = (base, f"{value.dtype}{value.shape}".encode() + value.tobytes())
        if key not in self.made:
            number = 0
            name = f"{base}_compact"
            while name in self.taken:
                number += 1
                name = f"{base}_compact{number}"
            self.taken.add(name)
            self.made[key] = name
            tensor = numpy_helper.from_array(value, name)
            self.model.graph.initializer.append(tensor)
            if self.model.ir_version < IR_WITHOUT_LISTED_INITIALIZERS:
                listed = onnx.helper.make_tensor_value_info(name, tensor.data_type, value.shape)
                self.model.graph.input.append(listed)
        target = self.model.graph.node[node.index]
        while len(target.input) <= place:
            target.input.append("")
        target.input[place] = self.made[key]

    def restore_names(self) -> None:
        """Give each new initializer the name of the one that it replaced, where that is free."""
        graph = self.model.graph
        taken = {t.name for t in graph.initializer} | {name for n in graph.node for name in (*n.input, *n.output)}
        new = {}
        for (base, _), name in self.made.items():
            if base not in taken:
                taken.add(base)
                new[name] = base
        for named in (*graph.initializer, *graph.input):
            named.name = new.get(named.name, named.name)
        for node in graph.node:
            node.input[:] = [new.get(name, name) for name in node.input]


def _layer_of(expr: Expr | None) -> int:
    """The neuron layer that an expression belongs to: how many linear layers lie on the way to it."""
    found = 0
    while expr is not None:
        found += isinstance(expr, Linear)
        expr = expr.source
    return found


def _cut_input(model: onnx.ModelProto, graph: Graph, plan: Plan) -> bool:
    """The new number of features on the one axis that has the old one."""
    value = next(i for i in model.graph.input if i.name == graph.inputs[0].name)
    sizes = [d.dim_value for d in value.type.tensor_type.shape.dim]
    wide = [axis for axis, size in enumerate(sizes) if size == plan.before.n_inputs]
    if len(wide) != 1 or any(size > 1 for axis, size in enumerate(sizes) if axis != wide[0]):
        return False
    value.type.tensor_type.shape.dim[wide[0]].dim_value = plan.mlp.spec.n_inputs
    return True


def _drop_unused(model: onnx.ModelProto) -> None:
    """Remove what the graph's outputs do not need: views and initializers of the longer form."""
    graph = model.graph
    while True:
        used = collections.Counter(name for node in graph.node for name in node.input)
        used.update(output.name for output in graph.output)
        idle = [node for node in graph.node if not any(used[name] for name in node.output)]
        for node in idle:
            graph.node.remove(node)
        if not idle:
            break
    names = {t.name for t in graph.initializer}
    for tensor in [t for t in graph.initializer if not used[t.name]]:
        graph.initializer.remove(tensor)
    for value in [i for i in graph.input if i.name in names and not used[i.name]]:
        graph.input.remove(value)
