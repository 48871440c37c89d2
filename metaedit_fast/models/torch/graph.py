"""Modules whose ``forward`` is Python code: traced by ``torch.fx`` and read node by node."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import fx, nn

from metaedit_fast.models.chain import Float64s, Parameter, Value, first_columns, padded, refusal
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.slots import Slot
from metaedit_fast.models.torch.adapter import ModuleReader, to_numpy
from metaedit_fast.models.torch.checks import is_dense
from metaedit_fast.models.torch.modules import InputNormalisation, SkipMLP

# Functions and tensor methods by what they compute; a trailing underscore, in place, makes no
# difference in a chain, whose values have one reader.
_ACTIVATIONS: dict[Any, str] = {
    F.relu: "relu", torch.relu: "relu", torch.relu_: "relu", F.relu_: "relu", "relu": "relu", "relu_": "relu",
    F.tanh: "tanh", torch.tanh: "tanh", torch.tanh_: "tanh", "tanh": "tanh", "tanh_": "tanh",
    F.sigmoid: "sigmoid", torch.sigmoid: "sigmoid", torch.sigmoid_: "sigmoid", "sigmoid": "sigmoid",
    "sigmoid_": "sigmoid", F.gelu: "gelu", F.silu: "silu", F.relu6: "relu6",
    F.leaky_relu: "leaky_relu", F.leaky_relu_: "leaky_relu", F.elu: "elu", F.elu_: "elu",
}  # fmt: skip
_ALPHA = {"leaky_relu": ("negative_slope", 0.01), "elu": ("alpha", 1.0)}
_SOFTMAX = (F.softmax, torch.softmax, "softmax")
_LOG_SOFTMAX = (F.log_softmax, torch.log_softmax, "log_softmax")
_ARITHMETIC: dict[Any, str] = {
    operator.add: "add", torch.add: "add", "add": "add", operator.iadd: "add", "add_": "add",
    operator.sub: "sub", torch.sub: "sub", "sub": "sub", operator.isub: "sub", "sub_": "sub",
    operator.mul: "mul", torch.mul: "mul", "mul": "mul", operator.imul: "mul", "mul_": "mul",
    operator.truediv: "div", torch.div: "div", "div": "div", operator.itruediv: "div", "div_": "div",
}  # fmt: skip
_IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv, "add_", "sub_", "mul_", "div_")
# Ways around forward, which tracing would not see.
_CALLS = ("__call__", "_wrapped_call_impl", "_call_impl")
_SAME = ("contiguous", "clone", torch.clone)


class Rows:
    """The number of rows, or the shape, of a tensor inside the traced code."""


class _Proxy(fx.Proxy):
    """Records ``x += y`` as what it is; fx's own proxy would take it for ``x = x + y``."""

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __isub__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.isub, (self, other), {})

    def __imul__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})

    def __itruediv__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.itruediv, (self, other), {})


class _Tracer(fx.Tracer):
    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Give the proxy that tells arithmetic in place apart."""
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Keep torch's own modules and ours whole; a user's code is traced."""
        return type(m) in (InputNormalisation, SkipMLP) or super().is_leaf_module(m, module_qualified_name)


def read_graph(module: nn.Module, reader: ModuleReader) -> tuple[MLP, list[Slot]]:
    """Read a module through the graph of its ``forward``. Raises ``UnsupportedModelError``.

    Tracing runs the user's code and takes tensors that it computes for constants. So it runs on a copy,
    and a second time with other parameter values: both must give the same model.
    """
    where = f"module {type(module).__name__}"
    if not isinstance(module, fx.GraphModule):  # whose __call__ is torch's own
        for name in _CALLS:
            if getattr(type(module), name) is not getattr(nn.Module, name):
                raise refusal(where, "a forward and nothing around it", f"a {name} of its own; put it into forward")
    with torch.random.fork_rng(devices=[]):
        shadow, graph = _traced(where, lambda: _copied(module))
        _require_unchanged(module, shadow, where)
        mlp, slots = GraphReader(shadow, reader).read(graph)
        kept = [(p, p.data) for p in shadow.parameters() if p.is_floating_point()]
        for parameter, values in kept:
            parameter.data = values * 0.5 + 1.0  # not in place: a constant may be a view of the memory
        _, again = _traced(where, lambda: shadow)
        for parameter, values in kept:
            parameter.data = values
    if GraphReader(shadow, ModuleReader()).read(again)[0].content_hash() != mlp.content_hash():
        expected = "a forward whose constants are the same each time, whatever the values of its parameters"
        got = "others when it was traced again; does it draw random numbers, or compute with self.parameters()?"
        raise refusal(where, expected, got)
    return mlp, slots


def _traced(where: str, shadow_of: Callable[[], nn.Module]) -> tuple[nn.Module, fx.Graph]:
    try:
        shadow = shadow_of()
        return shadow, _Tracer().trace(shadow)
    except Exception as error:  # tracing runs the user's code, which may raise anything
        got = f"{type(error).__name__}: {error}"
        raise refusal(where, "a forward that torch.fx can trace", got) from error


def _copied(module: nn.Module) -> nn.Module:
    """Copy a module, in evaluation mode, so that F.dropout(training=...) is off; tensors with a graph too."""
    copies: dict[int, Any] = {id(buffer): buffer.detach().clone() for buffer in module.buffers()}
    for p in module.parameters():
        copies[id(p)] = nn.Parameter(p.detach().clone(), requires_grad=p.requires_grad)
    return copy.deepcopy(module, copies).eval()


def _require_unchanged(module: nn.Module, shadow: nn.Module, where: str) -> None:
    """Refuse a ``forward`` that changed a tensor of the copy: its outputs would differ from call to call."""
    now = {**dict(shadow.named_parameters()), **dict(shadow.named_buffers())}
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if not is_dense(tensor):
            continue
        other = now.get(name)
        same = other is not None and (other.dtype, other.shape) == (tensor.dtype, tensor.shape)
        if not same or not bool(((other == tensor) | ((other != other) & (tensor != tensor))).all()):
            raise refusal(where, "a forward that changes no parameter and no buffer in evaluation", f"a changed {name}")


class GraphReader:
    """Follows the nodes of a traced graph of ``module``, and tells the reader's chain what they compute."""

    name = "traced graph"

    def __init__(self, module: nn.Module, reader: ModuleReader) -> None:
        self.module = module
        self.reader = reader
        self.chain = reader.chain
        self.values: dict[fx.Node, Value | Rows | Parameter] = {}
        self.buffers: set[str] = set()
        self.has_input = False

    def read(self, graph: fx.Graph) -> tuple[MLP, list[Slot]]:
        """Follow all nodes in order; each must be part of the chain."""
        for node in graph.nodes:
            where = f"node {node.name!r} of the {self.name}"
            if node.op == "placeholder":
                self.values[node] = self.placeholder(node, where)
            elif node.op == "output":
                return self.chain.finish(self._value(self.result(node, where), where), where="the output")
            elif node.op == "get_attr":
                key = str(node.target)
                self.values[node] = self.tensor(key, operator.attrgetter(key)(self.module))
            elif node.op == "call_module":
                target = self.module.get_submodule(str(node.target))
                self.values[node] = self.reader.apply(target, str(node.target), self._value(node.args[0], where))
            else:
                self.values[node] = self.call(node, f"{where} ({_name(node.target)})")
        raise AssertionError("a traced graph ends in an output")

    def placeholder(self, node: fx.Node, where: str) -> Value | Rows | Parameter:
        """Take an argument of the graph: the one input."""
        if self.has_input:
            raise refusal(where, "one input", f"a second one, {node.target!r}")
        self.has_input = True
        return self.chain.value

    def result(self, node: fx.Node, where: str) -> Any:
        """What the output node gives."""
        return node.args[0]

    def tensor(self, key: str, tensor: torch.Tensor) -> Parameter:
        """Read a tensor of the module, and remember whether an edit may change it."""
        if not isinstance(tensor, torch.nn.Parameter):
            self.buffers.add(key)
        return Parameter(key, to_numpy(tensor, key))

    def call(self, node: fx.Node, where: str) -> Value | Rows:
        """Follow a function or method."""
        function = node.target
        if function in _ARITHMETIC:
            return self.arithmetic(node, _ARITHMETIC[function], where, in_place=function in _IN_PLACE)
        first = self.operand(node.args[0] if node.args else node.kwargs.get("input"), where)
        if function in ("size", getattr) and isinstance(first, Value):
            if function is getattr and node.args[1] != "shape":
                raise refusal(where, "no attribute of a tensor but its shape", node.args[1])
            return Rows()
        if isinstance(first, Rows):
            if function is not operator.getitem or node.args[1] != 0:
                raise refusal(where, "only the number of rows of a shape", node.args[1:])
            return first
        if isinstance(first, Parameter):
            raise refusal(where, "a tensor that depends on the input", f"the parameter {first.key}")
        return self.compute(node, function, first, where)

    def compute(self, node: fx.Node, function: Any, value: Value, where: str) -> Value:
        """Follow ``value`` through ``function``, which takes the arguments of ``node``."""
        if function in _ACTIVATIONS:
            return self._activation(node, _ACTIVATIONS[function], value, where)
        if function in _SOFTMAX or function in _LOG_SOFTMAX:
            log = function in _LOG_SOFTMAX
            return self.reader.softmax(value, argument(node, 1, "dim", None), where, log=log)
        if function is F.linear:
            return self._linear(node, value, where)
        if function is F.dropout:
            if argument(node, 2, "training", True):
                raise refusal(where, "dropout that ends in evaluation", "training=True")
            self.reader.note("dropout does nothing in evaluation")
            return self.chain.activation(value, "identity", where=where)
        if function in (torch.flatten, "flatten"):
            if (argument(node, 1, "start_dim", 0), argument(node, 2, "end_dim", -1)) != (1, -1):
                raise refusal(where, "start_dim 1 and end_dim -1", node.args[1:])
            return self.chain.flatten(value, None, where=where)
        if function in ("view", "reshape", torch.reshape):
            return self._view(node, value, where)
        if function in (torch.squeeze, "squeeze"):
            if argument(node, 1, "dim", None) not in (-1, 1):
                raise refusal(where, "a squeeze of dim -1 or 1", node.args[1:])
            return self.chain.squeeze(value, where=where)
        if function is operator.getitem:
            return first_columns(value, _columns(node.args[1], where), where=where)
        if function is F.pad:
            return self._pad(node, value, where)
        if function in _SAME:
            return value
        raise refusal(where, "an operation of a plain MLP", _name(function))

    def _activation(self, node: fx.Node, name: str, value: Value, where: str) -> Value:
        alpha = float(argument(node, 1, *_ALPHA[name])) if name in _ALPHA else 0.0
        if name == "gelu" and argument(node, 1, "approximate", "none") == "tanh":
            name = "gelu_tanh"
        return self.chain.activation(value, name, alpha, where=where)

    def _linear(self, node: fx.Node, value: Value, where: str) -> Value:
        held = [argument(node, 1, "weight", None), argument(node, 2, "bias", None)]
        weight, bias = (None if h is None else self.operand(h, where) for h in held)
        if not isinstance(weight, Parameter) or not isinstance(bias, Parameter | None):
            raise refusal(where, "a weight and a bias that are parameters themselves", "computed ones")
        for held_by in (weight, bias):
            if held_by is not None and held_by.key in self.buffers:
                raise refusal(where, "a weight and a bias that are parameters", f"the buffer {held_by.key}")
        return self.chain.linear(value, weight, bias, transpose=True, where=where)

    def arithmetic(self, node: fx.Node, operation: str, where: str, *, in_place: bool) -> Value:
        """Read ``a + b`` and the like: of two tensors a skip, of a tensor and a constant a scale and shift."""
        if set(node.kwargs) - {"input", "other"}:
            raise refusal(where, "plain arithmetic", dict(node.kwargs))
        operands = [argument(node, 0, "input", None), argument(node, 1, "other", None)]
        left, right = (self.operand(o, where) if isinstance(o, fx.Node) else o for o in operands)
        if isinstance(left, Value) and isinstance(right, Value):
            if operation != "add":
                raise refusal(where, "no arithmetic of two tensors but a sum", operation)
            if left is self.chain.value:
                return self.chain.skip(left, right, where=where)
            if in_place:
                expected = "a sum in place into the pre-activations only"
                raise refusal(where, expected, "one into an earlier layer's outputs")
            return self.chain.skip(right, left, where=where)
        if isinstance(left, Value):
            value, held, swapped = left, right, False
        else:
            value, held, swapped = self._value(operands[1], where), left, True
        if swapped and operation == "div":
            raise refusal(where, "a tensor divided by a constant", "a constant divided by a tensor")
        scale, shift, home = self._constant(operation, held, swapped, where)
        result = self.chain.affine(value, scale, shift, home, where=where)
        if in_place:
            value.layer = None  # a skip would see the changed values
        return result

    def _constant(
        self, operation: str, held: object, swapped: bool, where: str
    ) -> tuple[Float64s, Float64s, Parameter | None]:
        """Give scale, shift and home of an operation with a constant."""
        if isinstance(held, Parameter):
            constant = held.array.astype(np.float64)
            constant = constant.reshape(() if constant.size == 1 else -1)
            if held.array.shape[:-1] not in ((), (1,)):
                raise refusal(where, "a constant per column", f"{held.key} of shape {held.array.shape}")
        elif isinstance(held, int | float):
            constant = np.asarray(held, np.float64)
        else:
            raise refusal(where, "a tensor and a constant", repr(held))
        one, zero = np.asarray(1.0), np.asarray(0.0)
        if isinstance(held, Parameter) and held.key not in self.buffers:
            if operation == "add" and constant.ndim:
                return one, zero, held
            self.chain.use(where, held)  # stays as it is, which it would not as another layer's bias
        match operation:
            case "mul":
                return constant, zero, None
            case "div":
                return 1.0 / constant, zero, None
            case "sub":
                return (-one, constant, None) if swapped else (one, -constant, None)
        return one, constant, None

    def _view(self, node: fx.Node, value: Value, where: str) -> Value:
        shape = node.args[1] if isinstance(node.args[1], list | tuple) else node.args[1:]
        sizes = [self.values.get(size) if isinstance(size, fx.Node) else size for size in shape]
        match sizes:
            case [Rows(), -1]:
                return self.chain.flatten(value, None, where=where)
            case [Rows() | -1, int(width)] if width > 0:
                return self.chain.flatten(value, width, where=where)
        raise refusal(where, "a view of rows by columns", tuple(shape))

    def _pad(self, node: fx.Node, value: Value, where: str) -> Value:
        widths, mode = argument(node, 1, "pad", None), argument(node, 2, "mode", "constant")
        fill = argument(node, 3, "value", None)
        if not isinstance(widths, list | tuple) or len(widths) != 2 or widths[0] != 0 or mode != "constant" or fill:
            raise refusal(where, "zeros behind the columns", (widths, mode, fill))
        return padded(value, int(widths[1]), self.chain.width_of(value), where=where)

    def operand(self, argument: Any, where: str) -> Value | Rows | Parameter:
        """What an argument stands for, which must be a node."""
        if not isinstance(argument, fx.Node):
            raise refusal(where, "a tensor", repr(argument))
        return self.values[argument]

    def _value(self, argument: Any, where: str) -> Value:
        operand = self.operand(argument, where)
        if not isinstance(operand, Value):
            raise refusal(where, "a tensor that depends on the input", "a parameter or a shape")
        return operand


def argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    """Give an argument of a call, by place or by name."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _columns(index: Any, where: str) -> int:
    """The stop of ``[:, :stop]``."""
    match index:
        case (slice(start=None, stop=None, step=None), slice(start=None | 0, stop=int(stop), step=None | 1)):
            return stop
    raise refusal(where, "a slice [:, :n]", index)


def _name(target: Callable[..., Any] | str) -> str:
    return target if isinstance(target, str) else getattr(target, "__name__", repr(target))
