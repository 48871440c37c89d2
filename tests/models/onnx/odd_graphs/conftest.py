"""Random graphs of everything that exporters write, in odd orders and shapes, and what ONNX Runtime makes of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest

OPEN_ROWS = 5
# None is an open axis.
INPUTS = [
    (None, 4), (None, 4), (None, 4), (None, 6), (1, 4), (1, 6), (4,), (4, 1), (1, 1, 1, 4), (None, 2, 3), (1, 2, 3),
    (1, 6, 1), (3, 4), (4, 4), (None, None), (None, 1, 2, 2), (4, None), (None, 1), (1, 1), (2, 2, 3), (1, 3, 2, 1),
]  # fmt: skip
ACTIVATIONS = [
    "Relu", "Tanh", "Sigmoid", "LeakyRelu", "LeakyRelu<alpha = 0.3>", "Elu<alpha = 0.5>", "Identity", "Dropout", "Neg",
    "Softplus", "Clip", "Cast<to = 1>", "ThresholdedRelu<alpha = 0.0>",
]  # fmt: skip


class Drawn:
    """A graph under construction: ``h`` is its last tensor, ``shadow`` an array of that tensor's shape."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset = int(self.rng.choice([9, 11, 13, 17, 20]))
        self.x = INPUTS[self.rng.integers(len(INPUTS))]
        self.dims = [OPEN_ROWS if d is None else d for d in self.x]
        self.shadow = np.zeros(self.dims)
        if self.x == (None, None):
            self.shadow = np.zeros((OPEN_ROWS, 4))
        self.nodes: list[str] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.h = "x"
        self.past: list[tuple[str, tuple[int, ...]]] = []

    def array(self, value: np.ndarray | list[int]) -> str:
        name = f"c{len(self.arrays)}"
        self.arrays[name] = np.array(value)
        return name

    def floats(self, *shape: int, positive: bool = False) -> str:
        value = self.rng.uniform(0.5, 1.5, shape) if positive else self.rng.normal(0, 0.8, shape)
        return self.array(np.asarray(value, np.float32))

    def then(self, text: str, shadow: np.ndarray) -> None:
        self.past.append((self.h, self.shadow.shape))
        name = f"t{len(self.nodes)}"
        self.nodes.append(f"{name} = {text}")
        self.h, self.shadow = name, shadow

    def pick(self, *options: object) -> object:
        return options[self.rng.integers(len(options))]

    def width(self) -> int:
        return int(self.rng.integers(1, 7))

    def matmul(self) -> None:
        m = self.width()
        self.then(
            f"MatMul({self.h}, {self.floats(self.shadow.shape[-1], m)})",
            self.shadow @ np.zeros((self.shadow.shape[-1], m)),
        )

    def left_matmul(self) -> None:
        n = self.shadow.shape[-2] if self.shadow.ndim > 1 else self.shadow.shape[0]
        w = (self.width(), n)
        self.then(f"MatMul({self.floats(*w)}, {self.h})", np.zeros(w) @ self.shadow)

    def gemm(self) -> None:
        m, trans_a, trans_b = self.width(), bool(self.rng.random() < 0.1), bool(self.rng.integers(2))
        a = self.shadow.T if trans_a else self.shadow
        if a.ndim != 2:
            return self.matmul()
        shape = (a.shape[1], m)
        result = np.zeros((a.shape[0], m))
        inputs = f"{self.h}, {self.floats(*(shape[::-1] if trans_b else shape))}"
        bias = self.pick(None, (m,), (m,), (1, m), (1,), (), (a.shape[0], 1), (a.shape[0], m))
        if bias is not None:
            inputs += f", {self.floats(*bias)}"
        elif self.opset < 11:
            inputs += f", {self.floats(m)}"
        alpha, beta = self.pick(1.0, 1.0, 0.5), self.pick(1.0, 1.0, 2.0)
        self.then(
            f"Gemm<alpha = {alpha}, beta = {beta}, transA = {int(trans_a)}, transB = {int(trans_b)}>({inputs})", result
        )

    def left_gemm(self) -> None:
        if self.shadow.ndim != 2:
            return self.left_matmul()
        w, trans = (self.width(), self.shadow.shape[0]), bool(self.rng.integers(2))
        bias = self.pick((w[0], 1), (1, 1))
        text = f"Gemm<transA = {int(trans)}>({self.floats(*(w[::-1] if trans else w))}, {self.h}, {self.floats(*bias)})"
        self.then(text, np.zeros(w) @ self.shadow)

    def arithmetic(self) -> None:
        op = str(self.pick("Add", "Add", "Sub", "Mul", "Div"))
        shape = [int(self.pick(1, d, d)) for d in self.shadow.shape]
        shape = shape[self.rng.integers(len(shape) + 1) :]
        if self.rng.random() < 0.1:
            shape = [1, *shape, *([1] if self.rng.random() < 0.3 else [])]
        try:
            result = self.shadow + np.zeros(shape)
        except ValueError:
            return
        if result.size > 500:
            return
        constant = self.floats(*shape, positive=op == "Div")
        first = op != "Div" and self.rng.random() < 0.4
        self.then(f"{op}({constant}, {self.h})" if first else f"{op}({self.h}, {constant})", result)

    def activation(self) -> None:
        kind = str(self.pick(*ACTIVATIONS))
        if kind == "Clip":
            low, high = self.pick((0.0, 6.0), (0.0, 3.4028234663852886e38), (-1.0, 1.0))
            bounds = [self.array(np.float32(v)) for v in (low, high)]
            text = (
                f"Clip({self.h}, {', '.join(bounds)})"
                if self.opset >= 11
                else f"Clip<min = {low}, max = {high}>({self.h})"
            )
            self.then(text, self.shadow)
            return
        self.then(f"{kind}({self.h})", self.shadow)

    def sloped(self) -> None:
        if self.rng.integers(2):
            value = np.full(self.pick((), (1,), self.shadow.shape[-1:]), 0.25, np.float32)
            self.then(f"PRelu({self.h}, {self.array(value)})", self.shadow)
        else:
            zero = np.zeros(self.pick((), (1,), self.shadow.shape[-1:], (3, 1)), np.float32)
            try:
                self.then(f"Max({self.array(zero)}, {self.h})", np.maximum(self.shadow, zero))
            except ValueError:
                return

    def reshape(self) -> None:
        size, parts = self.shadow.size, []
        while size > 1 and len(parts) < 3:
            divisors = [d for d in range(1, size + 1) if size % d == 0]
            parts.append(int(self.pick(*divisors)))
            size //= parts[-1]
        parts.append(size)
        shape = [int(p) for p in self.rng.permutation(parts)]
        result = self.shadow.reshape(shape)
        if self.rng.random() < 0.7:
            shape[self.rng.integers(len(shape))] = -1
        elif shape[0] == self.shadow.shape[0]:
            shape[0] = 0
        self.then(f"Reshape({self.h}, {self.array(shape)})", result)

    def to_rows(self) -> None:
        front = self.shadow.shape[0]
        shape = self.pick([-1, self.shadow.size // front], [0, -1], [1, -1], [-1])
        known = [front if v == 0 else v for v in shape]
        self.then(f"Reshape({self.h}, {self.array(shape)})", self.shadow.reshape(known))

    def flatten(self) -> None:
        axis = int(self.pick(1, 1, 1, *range(self.shadow.ndim + 1)))
        front = int(np.prod(self.shadow.shape[:axis]))
        if axis <= self.shadow.ndim:
            self.then(f"Flatten<axis = {axis}>({self.h})", self.shadow.reshape(front, -1))

    def transpose(self) -> None:
        perm = self.rng.permutation(self.shadow.ndim).tolist()
        self.then(f"Transpose<perm = {perm}>({self.h})", self.shadow.transpose(perm))

    def squeeze(self) -> None:
        ones = [i for i, d in enumerate(self.shadow.shape) if d == 1]
        if ones and self.shadow.ndim > 1:
            axis = int(self.pick(*ones))
            text = (
                f"Squeeze<axes = [{axis}]>({self.h})" if self.opset < 13 else f"Squeeze({self.h}, {self.array([axis])})"
            )
            self.then(text, self.shadow.squeeze(axis))

    def unsqueeze(self) -> None:
        axis = int(self.rng.integers(self.shadow.ndim + 1))
        if self.shadow.ndim < 4:
            text = (
                f"Unsqueeze<axes = [{axis}]>({self.h})"
                if self.opset < 13
                else f"Unsqueeze({self.h}, {self.array([axis])})"
            )
            self.then(text, np.expand_dims(self.shadow, axis))

    def cut(self, start: int, end: int, axis: int) -> str:
        if self.opset < 10:
            return f"Slice<starts = [{start}], ends = [{end}], axes = [{axis}]>({self.h})"
        return f"Slice({self.h}, {self.array([start])}, {self.array([end])}, {self.array([axis])})"

    def slices(self) -> None:
        axis = int(self.rng.integers(self.shadow.ndim))
        size = self.shadow.shape[axis]
        if size < 2:
            return
        where = int(self.rng.integers(1, size))
        if self.rng.random() < 0.3:
            self.then(self.cut(0, where, axis), self.shadow.take(range(where), axis))
            return
        names = []
        for start, end in ((0, where), (where, self.pick(size, 2**31 - 1))):
            names.append(f"t{len(self.nodes)}")
            self.nodes.append(f"{names[-1]} = {self.cut(start, int(end), axis)}")
        if self.rng.random() < 0.3:
            names.reverse()
        self.then(f"Concat<axis = {axis}>({', '.join(names)})", self.shadow)

    def split(self) -> None:
        axis = int(self.rng.integers(self.shadow.ndim))
        size = self.shadow.shape[axis]
        if size < 2:
            return
        where = int(self.rng.integers(1, size))
        names = [f"s{len(self.nodes)}", f"z{len(self.nodes)}"]
        sizes = [where, size - where]
        if self.opset < 13:
            text = f"Split<axis = {axis}, split = {sizes}>({self.h})"
        else:
            text = f"Split<axis = {axis}>({self.h}, {self.array(sizes)})"
        self.nodes.append(f"{names[0]}, {names[1]} = {text}")
        self.then(f"Concat<axis = {axis}>({', '.join(names)})", self.shadow)

    def double(self) -> None:
        if self.shadow.size < 50:
            axis = int(self.rng.integers(self.shadow.ndim))
            self.then(f"Concat<axis = {axis}>({self.h}, {self.h})", np.concatenate([self.shadow] * 2, axis))

    def batch_norm(self) -> None:
        if self.shadow.ndim > 1:
            n = self.shadow.shape[1]
            parts = [self.floats(n) for _ in range(3)] + [self.floats(n, positive=True)]
            self.then(f"BatchNormalization({self.h}, {', '.join(parts)})", self.shadow)

    def layer_norm(self) -> None:
        axis = int(self.pick(-1, -1, *range(self.shadow.ndim)))
        shape = self.shadow.shape[axis:] if axis >= 0 else self.shadow.shape[-1:]
        if self.opset >= 17:
            self.then(
                f"LayerNormalization<axis = {axis}>({self.h}, {self.floats(*shape)}, {self.floats(*shape)})",
                self.shadow,
            )

    def softmax(self) -> None:
        self.then(
            f"{self.pick('Softmax', 'LogSoftmax')}<axis = {int(self.rng.integers(self.shadow.ndim))}>({self.h})",
            self.shadow,
        )

    def join(self) -> None:
        alike = [name for name, shape in self.past if shape == self.shadow.shape]
        if alike:
            op = self.pick("Add", "Add", "Add", "Mul", "Sub")
            names = [self.h, str(self.pick(*alike))]
            self.then(f"{op}({', '.join(self.rng.permutation(names))})", self.shadow)

    def mean(self) -> None:
        axis = int(self.rng.integers(self.shadow.ndim))
        if self.opset < 18:
            self.then(f"ReduceMean<axes = [{axis}]>({self.h})", self.shadow.mean(axis, keepdims=True))

    def convolution(self) -> None:
        if self.shadow.ndim == 4:
            m, shape = self.width(), self.shadow.shape
            kernel = shape[2:] if self.rng.random() < 0.8 else (1, 1)
            out = (shape[0], m, shape[2] - kernel[0] + 1, shape[3] - kernel[1] + 1)
            self.then(f"Conv({self.h}, {self.floats(m, shape[1], *kernel)}, {self.floats(m)})", np.zeros(out))

    def computed(self) -> None:
        """A division by sqrt(variance + eps), computed in the graph."""
        parts = [self.floats(self.shadow.shape[-1], positive=True), self.floats(1, positive=True)]
        name = f"v{len(self.nodes)}"
        self.nodes += [f"{name} = Add({', '.join(parts)})", f"{name}r = Sqrt({name})"]
        self.then(f"Div({self.h}, {name}r)", self.shadow)

    def model(self, kit: type) -> onnx.ModelProto:
        """Some steps, then mostly what ends a network."""
        usual = [self.matmul, self.gemm, self.activation, self.arithmetic, self.to_rows, self.flatten]
        odd = [
            self.left_matmul, self.left_gemm, self.sloped, self.reshape, self.transpose, self.squeeze, self.unsqueeze,
            self.slices, self.split, self.double, self.batch_norm, self.layer_norm, self.softmax, self.join, self.mean,
            self.convolution, self.computed,
        ]  # fmt: skip
        p_odd = self.pick(0.0, 0.15, 0.3, 0.5)
        for _ in range(self.rng.integers(1, 10)):
            step = self.pick(*(odd if self.rng.random() < p_odd else usual))
            assert isinstance(step, Callable)
            step()
        ends: list[Callable[[], None]] = [self.matmul, self.gemm, self.left_matmul]
        if self.rng.random() < 0.9:
            ends[0 if self.rng.random() < 0.7 else self.rng.integers(3)]()
        if self.rng.random() < 0.2:
            self.softmax()
        self.then(f"Identity({self.h})", self.shadow)
        x = [f"d{i}" if d is None else d for i, d in enumerate(self.x)]
        return kit.build("\n".join(self.nodes), self.arrays, x=x, y=self.h, opset=self.opset)


def truth(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray | None:
    """What ONNX Runtime gives for one input tensor; None where it takes the model for invalid."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        result: np.ndarray = session.run(None, {"x": x})[0]
    except Exception:  # its errors have no common base
        return None
    return result


class Odd:
    """What the tests of this folder use."""

    Drawn = Drawn
    truth = staticmethod(truth)


@pytest.fixture(scope="session")
def odd() -> type[Odd]:
    return Odd
