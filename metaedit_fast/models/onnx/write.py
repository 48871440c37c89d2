"""Edited parameters back into an ONNX graph: numbers are replaced, and shared ones are untied if they differ."""

from __future__ import annotations

import collections
import itertools
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from metaedit_fast.models.onnx.assemble import Home
from metaedit_fast.models.onnx.graph import Constant, Graph
from metaedit_fast.models.opened import Arrays

IR_WITHOUT_LISTED_INITIALIZERS = 4


def present_constant(graph: Graph, home: Home) -> Constant:
    """What stands now where the parameter was read; an empty optional input stands for the zeros that were read."""
    parameter = home.parameter
    inputs = graph.nodes[parameter.node.index].inputs
    name = inputs[parameter.position] if parameter.position < len(inputs) else ""
    return graph.constant(name) if name else parameter.constant


def tied_notes(graph: Graph, homes: list[Home]) -> list[str]:
    """One note for each tensor that is read in several places, one of them a parameter of the MLP."""
    uses = graph.uses()
    roots = dict.fromkeys(present_constant(graph, home).root for home in homes)
    return [
        f"{root!r} is read in {len(uses[root])} places; where an edit makes them differ, each gets a tensor of its own"
        for root in roots
        if root is not None and len(uses[root]) > 1
    ]


def put(model: onnx.ModelProto, homes: list[Home], arrays: Arrays) -> None:
    """Write the arrays of all slots into ``model``, in place. Tensors without a change keep their bytes.

    Where one initializer serves several parameters, or a parameter and something else, it is replaced only
    if all of them agree; otherwise a parameter that changed gets an initializer of its own.
    """
    graph = Graph(model)
    uses = graph.uses()
    by_root: dict[str | None, list[tuple[Home, Constant, NDArray[Any]]]] = collections.defaultdict(list)
    for home in homes:
        constant = present_constant(graph, home)
        by_root[constant.root].append((home, constant, arrays[home.slot.key]))
    for root, members in by_root.items():
        changed = [m for m in members if not _same_bits(m[0].array(m[1].value), m[2])]
        if root is None or any(new.size != constant.value.size for _, constant, new in changed):
            alone = changed
        else:
            wanted = [constant.to_root(new.reshape(constant.value.shape)) for _, constant, new in members]
            alone = []
            if len(uses[root]) != len(members):
                alone = changed
            elif any(not _same_bits(wanted[0], other) for other in wanted):
                alone = changed if len(changed) < len(members) else changed[1:]
            if changed and len(alone) < len(changed):
                keeper = changed[0]
                _replace(model, graph, root, keeper[1].to_root(keeper[2].reshape(keeper[1].value.shape)))
        for home, constant, new in alone:
            _give_own(model, home, constant, new)


def _same_bits(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def _replace(model: onnx.ModelProto, graph: Graph, root: str, value: NDArray[Any]) -> None:
    """New numbers for an initializer or a Constant node."""
    if root in graph.initializers:
        _set_numbers(graph.initializers[root], value)
        return
    node = next(n for n in model.graph.node if root in n.output)
    attribute = node.attribute[0]
    if attribute.name == "value":
        _set_numbers(attribute.t, value)
    elif attribute.name == "value_float":
        attribute.f = float(value)
    else:
        attribute.floats[:] = value.tolist()


def _set_numbers(tensor: onnx.TensorProto, value: NDArray[Any]) -> None:
    fresh = numpy_helper.from_array(np.ascontiguousarray(value), tensor.name)
    for field in ("float_data", "double_data", "int32_data"):
        tensor.ClearField(field)
    tensor.raw_data = fresh.raw_data


def _give_own(model: onnx.ModelProto, home: Home, constant: Constant, new: NDArray[Any]) -> None:
    """A new initializer for one parameter, and the node's input led to it."""
    graph, parameter = model.graph, home.parameter
    node = graph.node[parameter.node.index]
    shape = constant.value.shape
    if new.size != constant.value.size:  # one number for all features became one for each
        rank = max(len(shape), -parameter.axis)
        shape = tuple(new.size if axis == rank + parameter.axis else 1 for axis in range(rank))
    taken = {t.name for t in graph.initializer} | {name for n in graph.node for name in (*n.input, *n.output)}
    taken |= {i.name for i in graph.input}
    base = parameter.name or f"{node.output[0]}_shift"
    name = next(n for i in itertools.count() if (n := f"{base}_edited{i or ''}") not in taken)
    tensor = numpy_helper.from_array(np.ascontiguousarray(new.reshape(shape)), name)
    graph.initializer.append(tensor)
    if model.ir_version < IR_WITHOUT_LISTED_INITIALIZERS:
        graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, shape))
    while len(node.input) <= parameter.position:
        node.input.append("")
    node.input[parameter.position] = name
