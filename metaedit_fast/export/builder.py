"""A small writer of ONNX graphs: one method an operation, results named after the part that they belong to."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

OPSET = 18
IR_VERSION = 8  # the one of opset 18, so that every runtime that knows the operators reads the file
END = np.iinfo(np.int64).max


class GraphBuilder:
    """Collects nodes; every method that adds an operation returns the name of its result.

    ``weights`` are the learned parameters, by name and in torch's layout; the graph holds all of them.
    """

    def __init__(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        self.weights = dict(weights)
        self.nodes: list[NodeProto] = []
        self._constants: dict[tuple[str, bytes, tuple[int, ...]], TensorProto] = {}
        self._numbers = itertools.count()
        self._scope = ""

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names of nodes and results with ``name``."""
        outer, self._scope = self._scope, f"{self._scope}{name}/"
        yield
        self._scope = outer

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add one node with one output."""
        (result,) = self.ops(kind, *inputs, n_outputs=1, **attributes)
        return result

    def ops(self, kind: str, *inputs: str, n_outputs: int, **attributes: Any) -> list[str]:
        """Add one node with several outputs."""
        name = f"{self._scope}{kind}_{next(self._numbers)}"
        results = [name] if n_outputs == 1 else [f"{name}.{i}" for i in range(n_outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), results, name, **attributes))
        return results

    def constant(self, value: ArrayLike, dtype: type[np.generic] = np.int64) -> str:
        """The name of an initializer that holds ``value``; equal ones are shared."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.tobytes(), array.shape)
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(array, f"constant_{len(self._constants)}")
        return str(self._constants[key].name)

    def linear(self, x: str, name: str, *, bias: bool = True) -> str:
        """``x @ weight.T + bias`` of the torch linear ``name``; ``x`` is ``[rows, n_in]``."""
        return self.affine(x, f"{name}.weight", f"{name}.bias" if bias else None)

    def affine(self, x: str, weight: str, bias: str | None = None) -> str:
        return self.op("Gemm", x, weight, *([bias] if bias else []), transB=1)

    def layer_norm(self, x: str, name: str) -> str:
        return self.op("LayerNormalization", x, f"{name}.weight", f"{name}.bias", axis=-1, epsilon=1e-5)

    def silu(self, x: str) -> str:
        return self.op("Mul", x, self.op("Sigmoid", x))

    def add(self, *terms: str) -> str:
        total = terms[0]
        for term in terms[1:]:
            total = self.op("Add", total, term)
        return total

    def concat(self, *parts: str, axis: int) -> str:
        return self.op("Concat", *parts, axis=axis)

    def gather(self, x: str, rows: str) -> str:
        return self.op("Gather", x, rows, axis=0)

    def slice(self, x: str, start: str | int, stop: str | int = END, *, axis: int = 0) -> str:
        """``x[start:stop]`` along ``axis``; bounds are numbers or names of int64 ``[1]`` tensors."""
        bounds = [b if isinstance(b, str) else self.constant([b]) for b in (start, stop)]
        return self.op("Slice", x, *bounds, self.constant([axis]))

    def reduce(self, how: str, x: str, axis: int) -> str:
        return self.op(f"Reduce{how}", x, self.constant([axis]), keepdims=0)

    def zeros(self, shape: str) -> str:
        """Float zeros of the shape that the int64 tensor ``shape`` holds."""
        return self.op("ConstantOfShape", shape, value=helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]))

    @contextmanager
    def subgraph(self) -> Iterator[list[NodeProto]]:
        """Nodes added inside go to the list that this gives, not to the graph; they may use outer results."""
        outer, self.nodes = self.nodes, []
        yield self.nodes
        self.nodes = outer

    def rename(self, result: str, name: str) -> None:
        """Give a result the name of a graph output."""
        self.nodes.append(helper.make_node("Identity", [result], [name], name))

    def model(self, name: str, inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]) -> ModelProto:
        learned = [numpy_helper.from_array(array, key) for key, array in self.weights.items()]
        graph: GraphProto = helper.make_graph(
            self.nodes, name, list(inputs), list(outputs), [*learned, *self._constants.values()]
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="metaedit_fast",
        )


def tensor(name: str, dtype: int, *shape: str | int) -> ValueInfoProto:
    """The declaration of an input or output; named dimensions are free."""
    return helper.make_tensor_value_info(name, dtype, list(shape))
