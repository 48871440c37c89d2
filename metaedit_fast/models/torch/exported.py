"""Programs of ``torch.export`` as MLPs: ``open_exported``.

A program is a graph of ATen operators over named parameters, buffers and inputs; its nodes are read one by one as
those of a traced module are, and each operator that has no place in an MLP is refused by the node's name.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import fx
from torch.export import ExportedProgram

from metaedit_fast.models.chain import Parameter, Value, first_columns, refusal
from metaedit_fast.models.opened import Arrays, Opened
from metaedit_fast.models.torch.adapter import ModuleReader, copy_into, to_numpy
from metaedit_fast.models.torch.checks import require_one_owner
from metaedit_fast.models.torch.graph import GraphReader, Rows, argument

_ATEN = torch.ops.aten
# Operators whose arguments stand in the same places as those of a function that ``GraphReader`` knows.
_SAME_AS: dict[Any, Any] = {
    _ATEN.relu.default: F.relu, _ATEN.relu_.default: F.relu, _ATEN.relu6.default: F.relu6,
    _ATEN.relu6_.default: F.relu6, _ATEN.tanh.default: F.tanh, _ATEN.tanh_.default: F.tanh,
    _ATEN.sigmoid.default: F.sigmoid, _ATEN.sigmoid_.default: F.sigmoid, _ATEN.gelu.default: F.gelu,
    _ATEN.silu.default: F.silu, _ATEN.silu_.default: F.silu, _ATEN.leaky_relu.default: F.leaky_relu,
    _ATEN.leaky_relu_.default: F.leaky_relu, _ATEN.softmax.int: F.softmax, _ATEN.log_softmax.int: F.log_softmax,
    _ATEN.linear.default: F.linear, _ATEN.dropout.default: F.dropout, _ATEN.flatten.using_ints: torch.flatten,
    _ATEN.view.default: "view", _ATEN.reshape.default: "view", _ATEN.squeeze.dim: "squeeze",
    _ATEN.clone.default: "clone", _ATEN.contiguous.default: "clone", _ATEN.pad.default: F.pad,
}  # fmt: skip
_ARITHMETIC = {
    _ATEN.add.Tensor: "add", _ATEN.sub.Tensor: "sub", _ATEN.mul.Tensor: "mul", _ATEN.div.Tensor: "div",
    _ATEN.add.Scalar: "add", _ATEN.sub.Scalar: "sub", _ATEN.mul.Scalar: "mul", _ATEN.div.Scalar: "div",
}  # fmt: skip
_ARITHMETIC_IN_PLACE = {
    _ATEN.add_.Tensor: "add", _ATEN.sub_.Tensor: "sub", _ATEN.mul_.Tensor: "mul", _ATEN.div_.Tensor: "div",
}  # fmt: skip
_ELUS = (_ATEN.elu.default, _ATEN.elu_.default)
_HARDTANHS = (_ATEN.hardtanh.default, _ATEN.hardtanh_.default)
_TO_THE_END = 2**63 - 1  # how a program writes the stop of a slice that has none


class OpenedExported(Opened[ExportedProgram]):
    """An exported program that was read as an MLP; keys of slots are names of parameters."""

    kind = "torch_export"

    def _arrays(self) -> Arrays:
        return {slot.key: to_numpy(self.model.state_dict[slot.key], slot.key) for slot in self.slots}

    def _copy(self) -> ExportedProgram:
        # What tells the computation is shared, as torch itself does where it makes one program of another: a copy of
        # a graph names its nodes anew, and the signature would name none of them.
        shared = (self.model.graph_module, self.model.module_call_graph)
        return copy.deepcopy(self.model, {id(part): part for part in shared})

    def _assign(self, model: ExportedProgram, arrays: Arrays) -> None:
        copy_into(model.state_dict, arrays)


def open_exported(program: ExportedProgram) -> OpenedExported:
    """Read a program that ``torch.export.export`` made of a module in evaluation mode.

    ``write`` gives a program of the same graph and signature with a ``state_dict`` of its own, which holds other
    parameter values; buffers, constants, dtypes and devices are as they were.

    Raises ``UnsupportedModelError``, naming the node, for a program that is no MLP, that was decomposed
    (``run_decompositions``), that writes to its buffers, or whose parameters share memory.
    """
    signature = program.graph_signature
    for what in ("buffers_to_mutate", "user_inputs_to_mutate"):
        mutated = getattr(signature, what)
        if mutated:
            expected = "a program that changes none of its tensors, exported in evaluation mode"
            raise refusal("the exported program", expected, f"{what}: {sorted(mutated.values())}")
    tensors = [*program.state_dict.items(), *program.constants.items()]
    require_one_owner((name, tensor) for name, tensor in tensors if isinstance(tensor, torch.Tensor))
    reader = ModuleReader()
    mlp, slots = _ProgramReader(program, reader).read(program.graph)
    return OpenedExported(program, mlp, slots, tuple(reader.notes))


class _ProgramReader(GraphReader):
    name = "exported program"

    def __init__(self, program: ExportedProgram, reader: ModuleReader) -> None:
        super().__init__(program.graph_module, reader)
        signature = program.graph_signature
        self.program = program
        self.inputs = {name for name in signature.user_inputs if isinstance(name, str)}
        self.held = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }

    def placeholder(self, node: fx.Node, where: str) -> Value | Rows | Parameter:
        """The input, or a tensor that the program holds under a name."""
        if node.name in self.inputs:
            return super().placeholder(node, where)
        if not node.users:
            return Rows()  # such as the count of a batch norm's batches; nothing reads it
        if node.name not in self.held:
            raise refusal(where, "an input, a parameter or a buffer", f"{node.target!r}")
        key = self.held[node.name]
        tensor = self.program.state_dict.get(key, self.program.constants.get(key))
        if not isinstance(tensor, torch.Tensor):
            raise refusal(where, f"a tensor of the name {key!r}", type(tensor).__name__)
        if not tensor.is_floating_point():  # a batch norm in training counts its batches
            expected = "a program whose constants are floats, exported in evaluation mode"
            raise refusal(where, expected, f"the use of {tensor.dtype} {key!r}")
        return self.tensor(key, tensor)

    def result(self, node: fx.Node, where: str) -> Any:
        """The one output, of the tuple that a program gives."""
        (outputs,) = node.args
        if not isinstance(outputs, tuple | list) or len(outputs) != 1:
            raise refusal(where, "one output", outputs)
        return outputs[0]

    def call(self, node: fx.Node, where: str) -> Value | Rows:
        """Follow an ATen operator."""
        target = node.target
        if target in _ARITHMETIC or target in _ARITHMETIC_IN_PLACE:
            operation = _ARITHMETIC.get(target) or _ARITHMETIC_IN_PLACE[target]
            return self.arithmetic(node, operation, where, in_place=target in _ARITHMETIC_IN_PLACE)
        value = self.operand(argument(node, 0, "self", None), where)
        if not isinstance(value, Value):
            raise refusal(where, "a tensor that depends on the input", "a parameter or a shape")
        if target is _ATEN.sym_size.int:
            if node.args[1] != 0:
                raise refusal(where, "only the number of rows of a shape", node.args[1])
            return Rows()
        if target in _SAME_AS:
            return self.compute(node, _SAME_AS[target], value, where)
        if target in _ELUS:
            if node.args[2:] not in ((), (1.0,), (1.0, 1.0)) or node.kwargs:
                raise refusal(where, "an ELU whose scales are 1", (node.args[1:], node.kwargs))
            return self.compute(node, F.elu, value, where)
        if target in _HARDTANHS and node.args[1:] == (0.0, 6.0):
            return self.chain.activation(value, "relu6", where=where)
        if target is _ATEN.slice.Tensor:
            return self._slice(node, value, where)
        if target is _ATEN.batch_norm.default:
            return self._batch_norm(node, value, where)
        if target is _ATEN.layer_norm.default:
            return self._layer_norm(node, value, where)
        hint = "; pass the program as torch.export.export gives it, of a module in evaluation mode"
        raise refusal(where, "an operator of a plain MLP", f"{target}{hint}")

    def _slice(self, node: fx.Node, value: Value, where: str) -> Value:
        dim, start, stop = (argument(node, i, n, d) for i, n, d in ((1, "dim", 0), (2, "start", 0), (3, "end", None)))
        if argument(node, 4, "step", 1) != 1 or start not in (0, None) or dim not in (0, 1, -1):
            raise refusal(where, "a slice [:, :n]", node.args[1:])
        if stop is None or stop == _TO_THE_END:
            return value
        if dim == 0 or not isinstance(stop, int):
            raise refusal(where, "a slice [:, :n]", node.args[1:])
        return first_columns(value, stop, where=where)

    def _batch_norm(self, node: fx.Node, value: Value, where: str) -> Value:
        gamma, beta, mean, variance = (self._held(argument(node, i, "", None), where) for i in range(1, 5))
        training, eps = argument(node, 5, "training", True), argument(node, 7, "eps", None)
        if training or mean is None or variance is None:
            raise refusal(where, "a batch norm with running statistics, exported in evaluation mode", "one in training")
        self.reader.note(f"batch norm {node.name!r} is folded, with its running statistics; its scale stays as it is")
        arrays = mean.array, variance.array
        if beta is not None and beta.key in self.buffers:
            raise refusal(where, "a shift that is a parameter", f"the buffer {beta.key}")
        return self.chain.batch_norm(value, *arrays, gamma, beta, float(eps), where=where)

    def _layer_norm(self, node: fx.Node, value: Value, where: str) -> Value:
        shape, eps = node.args[1], argument(node, 4, "eps", 1e-5)
        scale, shift = (self._held(argument(node, i, n, None), where) for i, n in ((2, "weight"), (3, "bias")))
        if not isinstance(shape, list | tuple) or len(shape) != 1 or not isinstance(shape[0], int):
            raise refusal(where, "a layer norm over one axis", shape)
        for held in (scale, shift):
            if held is not None and held.key in self.buffers:
                raise refusal(where, "a scale and a shift that are parameters", f"the buffer {held.key}")
        return self.chain.layer_norm(value, shape[0], scale, shift, float(eps), where=where)

    def _held(self, operand: Any, where: str) -> Parameter | None:
        if operand is None:
            return None
        found = self.operand(operand, where)
        if not isinstance(found, Parameter):
            raise refusal(where, "a parameter or a buffer", "a computed tensor")
        return found
