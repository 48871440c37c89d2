"""A small writer of ONNX graphs: one method an operation; what it collects becomes a function or a model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from onnx import FunctionProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

OPSET = 18
IR_VERSION = 8  # the one of opset 18, so that every runtime that knows the operators reads the file
DOMAIN = "metaedit"
DOMAIN_VERSION = 1
END = np.iinfo(np.int64).max

FLOAT, DOUBLE, INT64, BOOL = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.BOOL
_NUMPY: dict[int, type[np.generic]] = {FLOAT: np.float32, DOUBLE: np.float64, INT64: np.int64, BOOL: np.bool_}


class GraphBuilder:
    """Collects nodes; every method that adds an operation returns the name of its result."""

    def __init__(self) -> None:
        self._nodes: list[NodeProto] = []
        self._constants: dict[tuple[str, bytes, tuple[int, ...]], NodeProto] = {}
        self._numbers = itertools.count()

    # --- nodes ---

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add one node with one output."""
        (result,) = self.ops(kind, *inputs, n_outputs=1, **attributes)
        return result

    def ops(self, kind: str, *inputs: str, n_outputs: int, **attributes: Any) -> list[str]:
        """Add one node with several outputs."""
        number = next(self._numbers)
        results = [f"{kind}_{number}.{i}" if n_outputs > 1 else f"{kind}_{number}" for i in range(n_outputs)]
        self._nodes.append(helper.make_node(kind, list(inputs), results, **attributes))
        return results

    def constant(self, value: ArrayLike, dtype: int = INT64) -> str:
        """The name of a tensor that holds ``value``; equal ones are shared."""
        array: NDArray[np.generic] = np.asarray(value, _NUMPY[dtype])
        key = (array.dtype.str, array.tobytes(), array.shape)
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            self._constants[key] = helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))
        return str(self._constants[key].output[0])

    def rename(self, result: str, name: str) -> None:
        """Give a result the name of an output."""
        self._nodes.append(helper.make_node("Identity", [result], [name]))

    # --- arithmetic ---

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

    def sub(self, x: str, y: str) -> str:
        return self.op("Sub", x, y)

    def mul(self, x: str, y: str) -> str:
        return self.op("Mul", x, y)

    def clip(self, x: str, limit: float) -> str:
        """Between -limit and limit."""
        return self.op("Clip", x, self.constant(-limit, FLOAT), self.constant(limit, FLOAT))

    def cast(self, x: str, dtype: int) -> str:
        return self.op("Cast", x, to=dtype)

    def where(self, condition: str, x: str, y: str) -> str:
        return self.op("Where", condition, x, y)

    def log(self, x: str) -> str:
        """The logarithm of a float tensor as double.

        Runtimes compute whole vectors and what is left over by different formulas, which in float would let a
        result depend on its place in the tensor, and on the number of threads; in double it is rounded away.
        """
        return self.op("Log", self.cast(x, DOUBLE))

    # --- shapes and places ---

    def concat(self, *parts: str, axis: int = 0) -> str:
        return self.op("Concat", *parts, axis=axis)

    def columns(self, *parts: str) -> str:
        """Vectors ``[n]`` as the columns of a matrix."""
        return self.concat(*(self.unsqueeze(part, 1) for part in parts), axis=1)

    def column(self, x: str, index: int) -> str:
        """Column ``index`` of a matrix, ``[n]``."""
        return self.op("Gather", x, self.constant(index), axis=1)

    def gather(self, x: str, rows: str) -> str:
        return self.op("Gather", x, rows, axis=0)

    def slice(self, x: str, start: str | int, stop: str | int = END, *, axis: int = 0) -> str:
        """``x[start:stop]`` along ``axis``; bounds are numbers or names of int64 ``[1]`` tensors."""
        bounds = [b if isinstance(b, str) else self.constant([b]) for b in (start, stop)]
        return self.op("Slice", x, *bounds, self.constant([axis]))

    def reduce(self, how: str, x: str, axis: int, *, keepdims: bool = False) -> str:
        return self.op(f"Reduce{how}", x, self.constant([axis]), keepdims=int(keepdims))

    def reshape(self, x: str, shape: str) -> str:
        return self.op("Reshape", x, shape)

    def flat(self, x: str) -> str:
        return self.reshape(x, self.constant([-1]))

    def unsqueeze(self, x: str, axis: int) -> str:
        return self.op("Unsqueeze", x, self.constant([axis]))

    def scalar(self, x: str) -> str:
        """An ``[1]`` tensor as one of no dimension."""
        return self.op("Squeeze", x, self.constant([0]))

    def length(self, x: str) -> str:
        """The size of the first dimension, int64 ``[1]``."""
        return self.op("Shape", x, start=0, end=1)

    def fill(self, shape: str, value: float, dtype: int) -> str:
        """``value`` in the shape that the int64 tensor ``shape`` holds."""
        return self.op("ConstantOfShape", shape, value=helper.make_tensor("value", dtype, [1], [value]))

    def arange(self, count: str) -> str:
        """``0..count-1``; ``count`` is ``[1]``."""
        return self.op("Range", self.constant(0), self.scalar(count), self.constant(1))

    def places(self, flags: str) -> str:
        """Where the bool vector is true, int64."""
        return self.op("Squeeze", self.op("NonZero", flags), self.constant([0]))

    def put(self, x: str, places: str, values: str) -> str:
        """``x`` with ``values`` at ``places`` (a vector, no place twice) along the first dimension."""
        return self.op("ScatterND", x, self.unsqueeze(places, 1), values)

    def starts(self, counts: str) -> tuple[str, str]:
        """Where parts of these sizes begin, one after the other, and the sum ``[1]``."""
        ends = self.op("CumSum", self.concat(self.constant([0]), counts), self.constant(0))
        return self.slice(ends, 0, -1), self.slice(ends, -1)

    def spread(self, counts: str) -> tuple[str, str]:
        """``0, 0, .., 1, 1, ..``: number ``i`` comes ``counts[i] >= 1`` times; and where each begins."""
        first, total = self.starts(counts)
        ones = self.fill(self.length(counts), 1, INT64)
        marks = self.put(self.fill(total, 0, INT64), first, ones)
        return self.sub(self.op("CumSum", marks, self.constant(0)), self.constant(1)), first

    # --- loops ---

    def loop(
        self, count: str, state: Sequence[str], types: Sequence[int], body: Callable[..., Sequence[str]]
    ) -> list[str]:
        """``state = body(step, *state)`` for every step below ``count`` (a scalar); tensors of these types."""
        kinds = [lambda name, dtype=dtype: helper.make_tensor_value_info(name, dtype, None) for dtype in types]
        return self._loop(count, state, kinds, body)

    def collect(self, count: str, empty: Sequence[tuple[int, tuple[int, ...]]], body: Any) -> list[str]:
        """What ``body(step)`` gives for every step, joined along the first dimension.

        ``empty`` has the type and the further dimensions of each of its results.
        """
        start = [self.op("SequenceConstruct", self.constant(np.zeros((0, *shape)), dtype)) for dtype, shape in empty]
        kinds = [
            lambda name, dtype=dtype: helper.make_tensor_sequence_value_info(name, dtype, None) for dtype, _ in empty
        ]

        def insert(step: str, *before: str) -> list[str]:
            return [self.op("SequenceInsert", b, x) for b, x in zip(before, body(step), strict=True)]

        return [self.op("ConcatFromSequence", s, axis=0) for s in self._loop(count, start, kinds, insert)]

    def _loop(
        self,
        count: str,
        state: Sequence[str],
        kinds: Sequence[Callable[[str], ValueInfoProto]],
        body: Callable[..., Sequence[str]],
    ) -> list[str]:
        always = self.constant(True, BOOL)  # optional, but ONNX's own evaluator takes a missing one for False
        number = next(self._numbers)
        step, go_on = f"step_{number}", f"go_on_{number}"
        before = [f"before_{number}.{i}" for i in range(len(state))]
        with self._subgraph() as nodes:
            after = body(step, *before)
            still = self.op("Identity", go_on)
        graph = helper.make_graph(
            nodes,
            f"body_{number}",
            [tensor(step, INT64), tensor(go_on, BOOL), *(k(n) for k, n in zip(kinds, before, strict=True))],
            [tensor(still, BOOL), *(k(n) for k, n in zip(kinds, after, strict=True))],
        )
        results = [f"loop_{number}.{i}" for i in range(len(state))]
        self._nodes.append(helper.make_node("Loop", [count, always, *state], results, body=graph))
        return results

    @contextmanager
    def _subgraph(self) -> Iterator[list[NodeProto]]:
        """Nodes added inside go to the list that this gives; they may use outer results."""
        outer, self._nodes = self._nodes, []
        yield self._nodes
        self._nodes = outer

    # --- what becomes of the nodes ---

    @property
    def nodes(self) -> list[NodeProto]:
        return [*self._constants.values(), *self._nodes]

    def function(
        self, name: str, inputs: Sequence[str], outputs: Mapping[str, str], attributes: Sequence[str] = ()
    ) -> FunctionProto:
        """The nodes as the body of the operator ``name`` of our domain; ``outputs`` maps names to results.

        ``attributes`` are those that nodes carry for kernels; the body is written for their values.
        """
        for output, result in outputs.items():
            self.rename(result, output)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
        return helper.make_function(DOMAIN, name, list(inputs), list(outputs), self.nodes, opsets, list(attributes))

    def model(
        self,
        name: str,
        inputs: Sequence[ValueInfoProto],
        outputs: Sequence[ValueInfoProto],
        weights: Mapping[str, NDArray[np.float32]],
        functions: Sequence[FunctionProto],
    ) -> ModelProto:
        """The nodes as a model, whose initializers are ``weights``."""
        initializers = [numpy_helper.from_array(array, key) for key, array in weights.items()]
        return helper.make_model(
            helper.make_graph(self.nodes, name, list(inputs), list(outputs), initializers),
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)],
            functions=list(functions),
            ir_version=IR_VERSION,
            producer_name="metaedit_fast",
        )


def tensor(name: str, dtype: int, *shape: str | int) -> ValueInfoProto:
    """The declaration of an input or output; named dimensions are free."""
    return helper.make_tensor_value_info(name, dtype, list(shape))
