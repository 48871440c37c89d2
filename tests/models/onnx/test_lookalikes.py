"""Networks as public benchmarks and other exporters write them, at small widths: read, or refused with a reason."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.models.onnx import open_onnx

N = 5
RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.7, shape).astype(np.float32)


ARRAYS = {
    "w0": normal(N, 7), "b0": normal(7), "w1": normal(7, 6), "b1": normal(6), "w2": normal(6, 3), "b2": normal(3),
    "w0t": normal(7, N), "w1t": normal(6, 7), "w2t": normal(3, 6),
    "c0": normal(7, 1), "c1": normal(6, 1), "c2": normal(3, 1), "half": normal(N, 7).astype(np.float16),
    "mean4": normal(1, 1, 1, N), "mean": normal(N), "var": np.abs(normal(N)) + 0.5, "eps": np.float32(1e-3),
    "average": normal(1, 1, 1), "deviation": np.float32([[[0.3]]]),
    "out_scale": np.float32(37.4), "out_mean": np.float32(7.5), "low": np.float32(0), "six": np.float32(6),
    "rows": np.array([-1, N]), "axis1": np.array([1]), "last": np.array([-1]), "low_index": np.array(0),
    "zero": np.array([0]), "one": np.array([1]), "two": np.array([2]), "high": np.array([2**31 - 1]),
    "image": normal(7, 3, 2, 2), "channel_mean": normal(1, 3, 1, 1), "channel_scale": np.abs(normal(1, 3, 1, 1)) + 0.5,
    "g3": normal(3), "h3": normal(3), "m3": normal(3), "v3": np.abs(normal(3)) + 0.5,
    "wi": normal(12, 7), "k1": normal(6, 7, 1, 1),
    "gamma": normal(7), "beta": normal(7), "mu": normal(7), "sigma2": np.abs(normal(7)) + 0.5,
    "slope": np.full(7, 0.25, np.float32), "none": np.zeros(7, np.float32),
}  # fmt: skip
DENSE = "m1 = MatMul(r0, w1)\na1 = Add(m1, b1)\nr1 = Relu(a1)\nm2 = MatMul(r1, w2)\ny = Add(m2, b2)"
FROM_H = f"m0 = MatMul(h, w0)\na0 = Add(m0, b0)\nr0 = Relu(a0)\n{DENSE}"
# The shape of the input, the opset, the nodes.
READ = {
    "acas xu": ((1, 1, 1, N), 11, "s = Sub(x, mean4)", "h = Flatten<axis = 1>(s)", FROM_H),
    "acas xu, reshaped": ((1, 1, 1, N), 9, "s = Sub(x, mean4)", "h = Reshape(s, rows)", FROM_H),
    "acas xu, scaled output": (
        ("n", N), 12, "h = Identity(x)", FROM_H.replace("y =", "z ="), "t = Mul(z, out_scale)", "y = Add(t, out_mean)",
    ),
    "mnist fc, columns": (
        (N, 1), 13, "m0 = MatMul(w0t, x)", "a0 = Add(m0, c0)", "r0 = Relu(a0)", "m1 = MatMul(w1t, r0)",
        "a1 = Add(m1, c1)", "r1 = Relu(a1)", "m2 = MatMul(w2t, r1)", "y = Add(m2, c2)",
    ),
    "mnist fc, a vector": (
        (N,), 13, "m0 = MatMul(w0t, x)", "a0 = Add(m0, b0)", "r0 = Relu(a0)", "m1 = MatMul(w1t, r0)",
        "a1 = Add(m1, b1)", "r1 = Relu(a1)", "y = MatMul(w2t, r1)",
    ),
    "mnist fc, three axes": (
        (1, N, 1), 9, "f = Flatten(x)", "h = Gemm<transB = 1>(f, w0t, b0)", "r = Relu(h)",
        "y = Gemm<transB = 1>(r, w1t, b1)",
    ),
    "transposed initializers": (
        (1, N), 13, "t0 = Transpose<perm = [1, 0]>(w0t)", "m0 = MatMul(x, t0)", "a0 = Add(b0, m0)", "r0 = Relu(a0)",
        "t1 = Transpose<perm = [1, 0]>(w1t)", "m1 = MatMul(r0, t1)", "y = Add(b1, m1)",
    ),
    "reinforcement learning": (
        (1, N), 9, "h = Gemm<alpha = 1.0, beta = 1.0, transB = 1>(x, w0t, b0)", "r = Relu(h)",
        "y = Gemm<alpha = 1.0, beta = 1.0, transB = 1>(r, w1t, b1)",
    ),
    "normalised image": (
        ("n", 1, 1, N), 9, "s = Sub(x, average)", "d = Div(s, deviation)", "h = Flatten(d)",
        FROM_H.replace("Relu", "Sigmoid"),
    ),
    "normalised channels": (
        ("n", 3, 2, 2), 13, "s = Sub(x, channel_mean)", "d = Div(s, channel_scale)", "f = Flatten(d)",
        "h = Gemm(f, wi, b0)", "r = Tanh(h)", "y = Gemm(r, w1, b1)",
    ),
    "batch norm of channels": (
        ("n", 3, 2, 2), 13, "d = BatchNormalization(x, g3, h3, m3, v3)", "f = Flatten(d)", "h = Gemm(f, wi, b0)",
        "r = Relu(h)", "y = Gemm(r, w1, b1)",
    ),
    "dense layers as convolutions": (
        ("n", 3, 2, 2), 13, "h = Conv(x, image, b0)", "n = BatchNormalization(h, gamma, beta, mu, sigma2)",
        "r = Relu(n)", "z = Conv<kernel_shape = [1, 1], strides = [1, 1]>(r, k1, b1)", "s = Softmax<axis = 1>(z)",
        "y = Flatten(s)",
    ),
    "computed standardisation": (
        ("n", N), 13, "v = Add(var, eps)", "q = Sqrt(v)", "c = Sub(x, mean)", "h = Div(c, q)", FROM_H,
    ),
    "computed standardisation as one product": (
        ("n", N), 13, "v = Add(var, eps)", "q = Sqrt(v)", "f = Reciprocal(q)", "t = Mul(mean, f)", "c = Mul(x, f)",
        "h = Sub(c, t)", FROM_H,
    ),
    "split and joined": (
        ("n", N), 11, "a = Slice(x, zero, two, axis1)", "b = Slice(x, two, high, axis1)", "h = Concat<axis = 1>(a, b)",
        FROM_H,
    ),
    "one column at a time": (
        ("n", N), 11, "a, b, c, d, e = Split<axis = -1>(x)", "h = Concat<axis = -1>(a, b, c, d, e)", FROM_H,
    ),
    "view of a computed shape": (
        ("n", 1, N), 11, "s = Shape(x)", "g = Gather<axis = 0>(s, low_index)", "u = Unsqueeze<axes = [0]>(g)",
        "q = Concat<axis = 0>(u, last)", "h = Reshape(x, q)", FROM_H,
    ),
    "parts of a computed size": (
        ("n", N), 13, "s = Shape(x)", "g = Gather<axis = 0>(s, one)", "n = Add(g, one)", "d = Div(n, two)",
        "a = Slice(x, zero, d, axis1)", "b = Slice(x, d, g, axis1)", "h = Concat<axis = 1>(a, b)", FROM_H,
    ),
    "dropout, identities, casts": (
        ("n", N), 12, "d, mask = Dropout(x)", "i = Identity(d)", "h = Cast<to = 1>(i)", FROM_H,
    ),
    "half precision weights": (
        ("n", N), 13, "w = Cast<to = 1>(half)", "m0 = MatMul(x, w)", "a0 = Add(m0, b0)", "r0 = Relu(a0)", DENSE,
    ),
    "slopes": (("n", N), 13, "h = Gemm(x, w0, b0)", "r0 = PRelu(h, slope)", DENSE),
    "maximum with zeros": (("n", N), 13, "h = Gemm(x, w0, b0)", "r0 = Max(h, none)", DENSE),
    "threshold": (("n", N), 13, "h = Gemm(x, w0, b0)", "r0 = ThresholdedRelu<alpha = 0.0>(h)", DENSE),
    "relu6": (("n", N), 13, "h = Gemm(x, w0, b0)", "r0 = Clip(h, low, six)", DENSE),
    "transA": ((N, "n"), 13, "h = Gemm<transA = 1>(x, w0, b0)", "r0 = Relu(h)", DENSE),
    "no activations": (("n", N), 13, "h = Identity(x)", FROM_H.replace("Relu", "Identity")),
}  # fmt: skip
# The shape of the input, the node that is named, the nodes.
REFUSED = {
    "lattice of maxima": (("n", N), "'y'", "h = Gemm(x, w0, b0)", "y = ReduceMax<axes = [1]>(h)"),
    "two branches": (
        ("n", N), "'s'", "h = Gemm(x, w0, b0)", "g = MatMul(x, w0)", "s = Add(h, g)", "r = Relu(s)",
        "y = Gemm(r, w1, b1)",
    ),
    "squashed output": (("n", N), "'y'", "h = Gemm(x, w0, b0)", "r = Relu(h)", "g = Gemm(r, w1, b1)", "y = Tanh(g)"),
    "small kernel": (("n", 3, 3, 4), "'h'", "h = Conv(x, image)", "y = Flatten(h)"),
    "reordered image": (
        ("n", 3, 2, 2), "'t'", "t = Transpose<perm = [0, 2, 3, 1]>(x)", "f = Flatten(t)", "y = Gemm(f, wi, b0)",
    ),
    "some columns": (("n", N), "'g'", "g = Gather<axis = 1>(x, two)", "y = MatMul(g, b0)"),
    "clipped input": (("n", N), "'c'", "c = Clip(x, low, six)", "y = Gemm(c, w0, b0)"),
    "quantised": (("n", N), "'q'", "q = QuantizeLinear(x, eps)", "d = DequantizeLinear(q, eps)", "y = Gemm(d, w0, b0)"),
}  # fmt: skip


def built(kit: type, shape: tuple, text: str, opset: int) -> onnx.ModelProto:
    words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
    return kit.build(text, {name: a for name, a in ARRAYS.items() if name in words}, x=shape, opset=opset)


@pytest.mark.parametrize("name", READ)
def test_read(kit: type, name: str) -> None:
    shape, opset, *nodes = READ[name]
    exact = name != "half precision weights"  # an edit is rounded there
    kit.check(built(kit, shape, "\n".join(nodes), opset), tolerance=1e-5, edit=exact)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(kit: type, name: str) -> None:
    shape, node, *nodes = REFUSED[name]
    with pytest.raises(UnsupportedModelError, match=node):
        open_onnx(built(kit, shape, "\n".join(nodes), 13))


def test_double_precision_beyond_float32(kit: type) -> None:
    """Infinite in float32, though the model computes with it."""
    arrays = {"w0": np.full((N, 3), 1e200)}
    with pytest.raises(UnsupportedModelError, match="float32"):
        open_onnx(kit.build("y = MatMul(x, w0)", arrays, x=("n", N), dtype=np.float64))


@pytest.mark.parametrize("kind", [onnx.TensorProto.STRING, onnx.TensorProto.COMPLEX64, onnx.TensorProto.UNDEFINED])
def test_inputs_that_are_no_numbers(kit: type, kind: int) -> None:
    model = kit.build("y = MatMul(x, w0)", {"w0": ARRAYS["w0"]}, x=("n", N))
    model.graph.input[0].type.tensor_type.elem_type = kind
    with pytest.raises(UnsupportedModelError, match="expected numbers"):
        open_onnx(model)


@pytest.mark.parametrize("op", ["Identity", "Transpose"])
def test_endless_chains_of_views(kit: type, op: str) -> None:
    nodes = [helper.make_node(op, [f"v{i}"], [f"v{i + 1}"]) for i in range(3000)]
    model = kit.build(f"y = MatMul(x, v{len(nodes)})", {"v0": ARRAYS["w0"]}, x=("a", "b"))
    product = model.graph.node.pop()
    model.graph.node.extend([*nodes, product])
    with pytest.raises(UnsupportedModelError, match="chain of operations|computed"):
        open_onnx(model)


def test_constants_that_grow_without_bound(kit: type) -> None:
    text = "\n".join(f"v{i + 1} = Concat<axis = 0>(v{i}, v{i})" for i in range(60))
    with pytest.raises(UnsupportedModelError, match="16777216 numbers"):
        open_onnx(kit.build(f"{text}\nm = Mul(x, v60)\ny = MatMul(m, w0)", {"v0": ARRAYS["mean"], "w0": ARRAYS["w0"]}))
