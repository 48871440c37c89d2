"""What is read between the linear layers: activations, in one node or several, and norms; checked by ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

RNG = np.random.default_rng(7)
VECTOR = {n: RNG.uniform(0.5, 2, n).astype(np.float32) for n in (1, 3, 4, 5)}


def f32(*values):
    return np.array(values, np.float32)


ACTIVATIONS = {
    "Relu(h)": ("relu", 0.0),
    "LeakyRelu<alpha = 0.2>(h)": ("leaky_relu", 0.2),
    "LeakyRelu(h)": ("leaky_relu", 0.01),
    "LeakyRelu<alpha = 0.0>(h)": ("relu", 0.0),
    "PRelu(h, slope)": ("leaky_relu", 0.25),
    "Elu<alpha = 0.7>(h)": ("elu", 0.7),
    "Elu<alpha = 0.0>(h)": ("relu", 0.0),
    "Tanh(h)": ("tanh", 0.0),
    "Sigmoid(h)": ("sigmoid", 0.0),
    "Gelu(h)": ("gelu", 0.0),
    'Gelu<approximate = "tanh">(h)': ("gelu_tanh", 0.0),
    "com.microsoft.Gelu(h)": ("gelu", 0.0),
    "Clip(h, zero, six)": ("relu6", 0.0),
    "Clip(h, zero)": ("relu", 0.0),
    "Max(h, zero)": ("relu", 0.0),
    "Max(zero, h)": ("relu", 0.0),
    "Pow(h, one)": ("identity", 0.0),
}


@pytest.mark.parametrize("node", ACTIVATIONS)
def test_activations(kit, node):
    arrays = kit.layers(4, 3, 2)
    numbers = {"slope": f32(0.25), "zero": np.float32(0), "six": np.float32(6), "one": np.float32(1)}
    arrays |= {k: v for k, v in numbers.items() if k in node}
    arrays["w1"] *= 5
    model = kit.build(f"h = Gemm(x, w1, b1)\nr = {node}\ny = Gemm(r, w2, b2)", arrays, opset=20, ir=9)
    layer = kit.check(model).mlp.spec.layers[0]
    assert (layer.activation, layer.alpha) == ACTIVATIONS[node]


def test_clip_by_attributes(kit):
    text = "h = Gemm(x, w1, b1)\nr = Clip<min = 0.0, max = 6.0>(h)\ny = Gemm(r, w2, b2)"
    assert kit.check(kit.build(text, kit.layers(4, 3, 2), opset=10)).mlp.spec.layers[0].activation == "relu6"


PATTERNS = {
    "silu": "s = Sigmoid(h)\nr = Mul(h, s)",
    "silu of other order": "s = Sigmoid(h)\nr = Mul(s, h)",
    "gelu": "d = Div(h, root)\ne = Erf(d)\np = Add(e, one)\nm = Mul(h, p)\nr = Mul(m, half)",
    "gelu half first": "i = Mul(half, h)\nd = Mul(h, rsqrt)\ne = Erf(d)\np = Add(one, e)\nr = Mul(p, i)",
    "gelu half of gate": "d = Div(h, root)\ne = Erf(d)\np = Add(e, one)\nq = Mul(p, half)\nr = Mul(h, q)",
    "gelu_tanh": (
        "q = Mul(h, h)\nc = Mul(h, q)\nk = Mul(cube, c)\nj = Add(h, k)\ni = Mul(beta, j)\nt = Tanh(i)\n"
        "p = Add(one, t)\no = Mul(half, h)\nr = Mul(o, p)"
    ),
    "gelu_tanh by pow": (
        "c = Pow(h, three)\nk = Mul(c, cube)\nj = Add(k, h)\ni = Mul(j, beta)\nt = Tanh(i)\n"
        "p = Add(t, one)\no = Mul(h, p)\nr = Mul(o, half)"
    ),
}
NUMBERS = {
    "root": 2**0.5,
    "rsqrt": 0.5**0.5,
    "one": 1,
    "half": 0.5,
    "cube": 0.044715,
    "beta": (2 / np.pi) ** 0.5,
    "three": 3,
}


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activations_of_several_nodes(kit, name, dtype):
    if dtype == np.float64 and "Erf" in PATTERNS[name]:
        pytest.skip("ONNX Runtime has no Erf of float64")
    arrays = kit.layers(4, 3, 3, 2, dtype=dtype)
    arrays |= {k: np.array(v, dtype) for k, v in NUMBERS.items() if k in PATTERNS[name]}
    text = (
        f"h = Gemm(x, w1, b1)\n{PATTERNS[name]}\ng = Gemm(r, w2, b2)\nk2 = Add(g, r)\nu = Relu(k2)\ny = Gemm(u, w3, b3)"
    )
    mlp = kit.check(kit.build(text, arrays, dtype=dtype)).mlp
    assert mlp.spec.layers[0].activation == name.split()[0]
    assert mlp.spec.skips == ((1, 2),)


def test_scaled_gelu_is_folded(kit):
    """A factor behind a pattern goes into the next layer's weights."""
    arrays = kit.layers(4, 3, 2) | {"three": np.float32(3)}
    text = "h = Gemm(x, w1, b1)\ns = Sigmoid(h)\nt = Mul(s, three)\nr = Mul(h, t)\ny = Gemm(r, w2, b2)"
    mlp = kit.check(kit.build(text, arrays)).mlp
    np.testing.assert_allclose(mlp.weight(1), 3 * arrays["w2"], rtol=1e-6)


NORMS = {
    "op": "n = LayerNormalization<axis = -1, epsilon = 0.01>(h, g, o)",
    "op axis 1": "n = LayerNormalization<axis = 1, epsilon = 0.01>(h, g, o)",
    "op without shift": "n = LayerNormalization<epsilon = 0.01>(h, g)",
    "nodes": (
        "m = ReduceMean<axes = [-1]>(h)\nc = Sub(h, m)\np = Pow(c, two)\nv = ReduceMean<axes = [1]>(p)\n"
        "e = Add(v, eps)\ns = Sqrt(e)\nd = Div(c, s)\nk = Mul(d, g)\nn = Add(k, o)"
    ),
    "nodes, products": (
        "m = ReduceMean<axes = [-1]>(h)\nc = Sub(h, m)\np = Mul(c, c)\nv = ReduceMean<axes = [-1]>(p)\n"
        "e = Add(eps, v)\ns = Sqrt(e)\ni = Reciprocal(s)\nd = Mul(c, i)\nk = Mul(g, d)\nn = Add(o, k)"
    ),
    "nodes, power": (
        "m = ReduceMean<axes = [-1]>(h)\nc = Sub(h, m)\np = Mul(c, c)\nv = ReduceMean<axes = [-1]>(p)\n"
        "e = Add(eps, v)\ni = Pow(e, minus)\nd = Mul(i, c)\nk = Mul(g, d)\nn = Add(o, k)"
    ),
    "nodes, one over": (
        "m = ReduceMean<axes = [-1]>(h)\nc = Sub(h, m)\np = Mul(c, c)\nv = ReduceMean<axes = [-1]>(p)\n"
        "e = Add(eps, v)\ns = Sqrt(e)\ni = Div(unit, s)\nd = Mul(i, c)\nk = Mul(g, d)\nj = Mul(k, unit)\nn = Sub(j, o)"
    ),
}


@pytest.mark.parametrize("name", NORMS)
def test_layer_norm(kit, name):
    arrays = kit.layers(4, 5, 2) | {"g": VECTOR[5], "o": VECTOR[5] - 1, "two": np.float32(2), "eps": np.float32(0.01)}
    arrays |= {"minus": np.float32(-0.5), "unit": np.float32(1)}
    mlp = kit.check(kit.build(f"h = Gemm(x, w1, b1)\n{NORMS[name]}\nr = Relu(n)\ny = Gemm(r, w2, b2)", arrays)).mlp
    layer = mlp.spec.layers[0]
    assert (layer.norm, layer.eps, layer.activation, layer.norm_affine) == ("layer", 0.01, "relu", True)
    assert np.array_equal(mlp.parameter("norm_scale", 0), VECTOR[5])


def test_layer_norm_with_axes_as_input(kit):
    text = NORMS["nodes"].replace("<axes = [-1]>(h)", "(h, axes)").replace("<axes = [1]>(p)", "(p, axes)")
    arrays = kit.layers(4, 5, 2) | {"g": VECTOR[5], "o": VECTOR[5], "two": np.float32(2), "eps": np.float32(0.01)}
    arrays["axes"] = np.array([-1])
    kit.check(kit.build(f"h = Gemm(x, w1, b1)\n{text}\nr = Relu(n)\ny = Gemm(r, w2, b2)", arrays, opset=18))


BATCH_NORM = "BatchNormalization<epsilon = 0.001>"
BATCH_NORMED = {
    "behind": f"h = Gemm(x, w1, b1)\nn = {BATCH_NORM}(h, g, o, m, v)\nr = Relu(n)\ny = Gemm(r, w2, b2)",
    "behind, no bias": f"h = MatMul(x, w1)\nn = {BATCH_NORM}(h, g, o, m, v)\nr = Relu(n)\ny = Gemm(r, w2, b2)",
    "in front": f"h = Gemm(x, w1, b1)\nr = Relu(h)\nn = {BATCH_NORM}(r, g, o, m, v)\ny = Gemm(n, w2, b2)",
    "both": (
        f"h = Gemm(x, w1, b1)\nk = {BATCH_NORM}(h, g, o, m, v)\nr = Tanh(k)\n"
        f"n = {BATCH_NORM}(r, g, o, m, v)\nz = MatMul(n, w2)\ny = Add(z, b2)"
    ),
    "affine in front": (
        "h = Gemm(x, w1, b1)\nr = Relu(h)\nk = Mul(r, g)\nn = Sub(k, o)\ny = Gemm<alpha = 0.5>(n, w2, b2)"
    ),
}


@pytest.mark.parametrize("name", BATCH_NORMED)
def test_what_is_folded(kit, name):
    arrays = kit.layers(4, 5, 2) | {"g": VECTOR[5], "o": VECTOR[5] - 1, "m": VECTOR[5] - 0.5, "v": VECTOR[5]}
    opened = kit.check(kit.build(BATCH_NORMED[name], arrays))
    assert any("batch norm" in note for note in opened.notes) == ("Batch" in BATCH_NORMED[name])
    assert all(layer.bias for layer in opened.mlp.spec.layers)
