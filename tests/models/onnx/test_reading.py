"""Graphs of every supported form: each is read, compared with ONNX Runtime, and written back."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

from metaedit_fast.models.onnx import open_onnx

RNG = np.random.default_rng(7)
MLP_TAIL = "\nh = MatMul(f, w1)\ng = Add(h, b1)\nr = Relu(g)\nz = MatMul(r, w2)\ny = Add(z, b2)"
VECTOR = {n: RNG.uniform(0.5, 2, n).astype(np.float32) for n in (1, 3, 4, 5)}


def f32(*values):
    return np.array(values, np.float32)


LINEAR_FORMS = {
    "gemm": ("y = Gemm(x, w1, b1)", {}),
    "gemm transB": ("y = Gemm<transB = 1>(x, wt, b1)", {"wt": lambda a: a["w1"].T}),
    "gemm alpha beta": ("y = Gemm<alpha = 0.5, beta = -2.0>(x, w1, b1)", {}),
    "gemm without C": ("y = Gemm<alpha = 0.5>(x, w1)", {}),
    "gemm beta 0": ("y = Gemm<beta = 0.0>(x, w1, b1)", {}),
    "gemm scalar C": ("y = Gemm(x, w1, c)", {"c": lambda a: f32(0.3)}),
    "gemm rank-0 C": ("y = Gemm(x, w1, c)", {"c": lambda a: np.float32(0.3)}),
    "gemm matrix C": ("y = Gemm(x, w1, c)", {"c": lambda a: a["b1"][None]}),
    "matmul": ("y = MatMul(x, w1)", {}),
    "matmul add": ("h = MatMul(x, w1)\ny = Add(h, b1)", {}),
    "add matmul": ("h = MatMul(x, w1)\ny = Add(b1, h)", {}),
    "matmul add matrix": ("h = MatMul(x, w1)\ny = Add(h, c)", {"c": lambda a: a["b1"][None]}),
    "matmul sub": ("h = MatMul(x, w1)\ny = Sub(h, b1)", {}),
    "sub from constant": ("h = MatMul(x, w1)\ny = Sub(b1, h)", {}),
    "matmul scale add": ("h = MatMul(x, w1)\ng = Mul(h, s)\ny = Add(g, b1)", {"s": lambda a: VECTOR[3]}),
    "gemm div": ("h = Gemm(x, w1, b1)\ny = Div(h, s)", {"s": lambda a: VECTOR[3]}),
    "two biases": ("h = Gemm(x, w1, b1)\ng = Add(h, s)\ny = Mul(g, s)", {"s": lambda a: VECTOR[3]}),
    "sum and neg": ("h = MatMul(x, w1)\ng = Sum(h, b1)\ny = Neg(g)", {}),
    "three axes": ("h = MatMul(x, w)\ny = Add(h, b1)", {"w": lambda a: a["w1"][None]}),
    "dot product": ("y = MatMul(x, v)", {"v": lambda a: a["w1"][:, 0]}),
    "identity after": ("h = Gemm(x, w1, b1)\ny = Identity(h)", {}),
}


@pytest.mark.parametrize("name", LINEAR_FORMS)
@pytest.mark.parametrize("ends", ["whole", "hidden"])
def test_linear_forms(kit, name, ends):
    text, extra = LINEAR_FORMS[name]
    arrays = kit.layers(4, 3, 2)
    arrays |= {key: np.asarray(make(arrays)) for key, make in extra.items()}
    if ends == "hidden":
        if name == "dot product":
            pytest.skip("a dot product drops the axis that a next layer needs")
        text = text.replace("y = ", "z = ")
        text += "\nr = Relu(z)\no = MatMul(r, w2)\ny = Add(o, b2)"
    opened = kit.check(kit.build(text, arrays))
    assert opened.kind == "onnx"
    assert opened.mlp.spec.widths[:2] == (4, 1 if name == "dot product" else 3)
    has_bias = name not in ("gemm without C", "gemm beta 0", "matmul", "dot product")
    assert opened.mlp.spec.layers[0].bias is has_bias


COLUMNS = "h = MatMul(wt, x)\ng = Add(h, c)\nr = Relu(g)\nz = MatMul(w2t, r)\ny = Add(z, c2)"


@pytest.mark.parametrize("x", [(4, 1), (4, "rows"), (4,), (1, 4, 1), ("rows", 4, 1)])
def test_constant_left_factor(kit, x):
    a = kit.layers(4, 3, 2)
    columns = len(x) > 1
    arrays = {"wt": a["w1"].T, "w2t": a["w2"].T, "c": a["b1"], "c2": a["b2"]}
    if columns:
        arrays |= {"c": a["b1"][:, None], "c2": a["b2"][:, None]}
    opened = kit.check(kit.build(COLUMNS, arrays, x=x))
    assert np.array_equal(opened.mlp.weight(0), a["w1"])
    assert any("columns" in note for note in opened.notes) == columns


def test_constant_left_factor_in_gemm(kit):
    a = kit.layers(4, 3, 2)
    text = "h = Gemm<alpha = 2.0>(wt, x, c)\nr = Tanh(h)\ny = Gemm<transA = 1>(w2, r, c2)"
    arrays = {"wt": a["w1"].T, "w2": a["w2"], "c": a["b1"][:, None], "c2": f32([0.25])}
    kit.check(kit.build(text, arrays, x=(4, "rows")))


@pytest.mark.parametrize(
    ("x", "move"),
    [
        (("rows", 2, 1, 2), "f = Flatten(x)"),
        (("rows", 2, 2), "f = Flatten<axis = -2>(x)"),
        ((1, 2, 2), "f = Flatten<axis = 1>(x)"),
        ((1, 2, 2), "f = Flatten<axis = 0>(x)"),
        (("rows", 1, 2, 2), "f = Reshape(x, minus)"),
        (("rows", 1, 2, 2), "f = Reshape(x, zero)"),
        ((1, 1, 4), "f = Reshape(x, one)"),
        ((2, 2), "f = Reshape(x, one)"),
        (("rows", 2, 2), "f = Reshape(x, one)"),
        (("rows", 1, 1, 4), "f = Squeeze(x, axes)"),
        ((1, 1, 1, 4), "f = Squeeze(x, axes)"),
        ((1, 1, 1, 4), "f = Identity(x)"),
        ((4,), "f = Identity(x)"),
        ((4,), "f = Unsqueeze(x, axis)"),
        ((4, "rows"), "f = Transpose(x)"),
        ((1, 4, 1), "f = Transpose<perm = [0, 2, 1]>(x)"),
        (("rows", 2, 2), "s = Shape(x)\nn = Gather(s, axis)\nc = Concat<axis = 0>(n, last)\nf = Reshape(x, c)"),
        (("rows", 2, 2), "s = Shape<start = 0, end = 1>(x)\nc = Concat<axis = 0>(s, last)\nf = Reshape(x, c)"),
        ((3, 4), "f = Identity(x)"),
        ((2, 2, 2), "f = Reshape(x, two)"),
        (("rows", "n"), "f = Identity(x)"),
        (None, "f = Identity(x)"),
        (("n",), "f = Identity(x)"),
    ],
)
def test_input_shapes(kit, x, move):
    ints = {
        "minus": [-1, 4],
        "zero": [0, -1],
        "one": [1, -1],
        "two": [2, -1],
        "axes": [1, 2],
        "axis": [0],
        "last": [-1],
    }
    arrays = kit.layers(4, 3, 2) | {name: np.array(v, np.int64) for name, v in ints.items()}
    arrays = {k: v for k, v in arrays.items() if k in move or k[0] in "wb"}
    model = kit.build(move + MLP_TAIL, arrays, x=x)
    if x == ("rows", 2, 2) and "one" in move:  # the Reshape allows one row only
        opened = open_onnx(model)
        assert "the model works on one row at a time" in opened.notes
        rows = RNG.normal(size=(1, 4)).astype(np.float32)
        np.testing.assert_allclose(opened.mlp.forward(rows), kit.run(model, rows.reshape(1, 2, 2)), atol=1e-6)
    elif x in (None, ("n",)):
        opened = open_onnx(model)
        rows = RNG.normal(size=(1, 4)).astype(np.float32)
        expected = kit.run(model, rows if x is None else rows[0])
        np.testing.assert_allclose(opened.mlp.forward(rows).ravel(), expected.ravel(), atol=1e-6)
    else:
        opened = kit.check(model)
    assert opened.mlp.spec.widths == (4, 3, 2)


def test_reshapes_inside(kit):
    text = """
        h = Gemm(x, w1, b1)
        u = Unsqueeze(h, one)
        r = Relu(u)
        s = Reshape(r, shape)
        d = Dropout(s)
        c = Cast<to = 1>(d)
        z = Gemm(c, w2, b2)
        y = Reshape(z, flat)
    """
    arrays = kit.layers(4, 3, 1) | {
        "one": np.array([1]),
        "shape": np.array([0, 3]),
        "flat": np.array([-1]),
    }
    kit.check(kit.build(text, arrays))


PREFIXES = {
    "sub div": ("a = Sub(x, m)\nf = Div(a, s)", 1 / VECTOR[4], -1 / VECTOR[4]),
    "mul add": ("a = Mul(s, x)\nf = Add(m, a)", VECTOR[4], np.ones(4)),
    "sub from": ("f = Sub(m, x)", -np.ones(4), np.ones(4)),
    "one number": ("f = Mul(x, k)", np.full(4, 0.5), None),
    "shift only": ("f = Add(x, m)", None, np.ones(4)),
    "scaler": (
        "f = ai.onnx.ml.Scaler<offset = [1.0, 1.0, 1.0, 1.0], scale = [2.0, 2.0, 2.0, 4.0]>(x)",
        f32(2, 2, 2, 4),
        -f32(2, 2, 2, 4),
    ),
    "scaler of one": ("f = ai.onnx.ml.Scaler<offset = [1.0], scale = [2.0]>(x)", np.full(4, 2), np.full(4, -2)),
    "batch norm": ("f = BatchNormalization<epsilon = 0.0>(x, s, m, zero, m)", VECTOR[4], np.ones(4)),
    "neutral": ("a = Mul(x, m)\nf = Add(a, zero)", None, None),
}


@pytest.mark.parametrize("name", PREFIXES)
def test_normalisation_prefix(kit, name):
    text, scale, shift = PREFIXES[name]
    arrays = kit.layers(4, 3, 2) | {"m": np.ones(4, np.float32), "s": VECTOR[4], "k": np.float32(0.5)}
    arrays["zero"] = np.zeros(4, np.float32)
    mlp = kit.check(kit.build(text + MLP_TAIL, arrays)).mlp
    for found, wanted in ((mlp.input_scale, scale), (mlp.input_shift, shift)):
        assert (found is None) == (wanted is None)
        if wanted is not None:
            np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 28, 1), (28, 1), (1, 28), (28, 28), ()])
def test_prefix_over_image_axes(kit, shape):
    mean = RNG.normal(size=shape).astype(np.float32)
    arrays = kit.layers(784, 3, 2) | {"m": mean, "s": np.float32(0.3)}
    text = "a = Sub(x, m)\nb = Div(a, s)\nf = Flatten(b)" + MLP_TAIL
    kit.check(kit.build(text, arrays, x=("rows", 1, 28, 28)), tolerance=1e-5)


def test_constant_input_of_a_layer(kit):
    """A feature that is scaled by 0 in front of a linear layer gives a constant."""
    arrays = kit.layers(4, 5, 2) | {"g": VECTOR[5] * f32(1, 0, 1, 1, 1), "o": VECTOR[5]}
    text = "h = Gemm(x, w1, b1)\nr = Relu(h)\nk = Mul(r, g)\nn = Add(k, o)\ny = Gemm(n, w2, b2)"
    kit.check(kit.build(text, arrays), edit=False)


ZEROS = "s = Shape<end = 1>(a)\nd = Concat<axis = 0>(s, two)\np = ConstantOfShape(d)"
HALVES = "s = Slice(h, zero, three, axis)\nt = Slice(h, three, end, axis)"
SKIPS = {  # nodes, width of the source and of the target
    "equal": ("z = Add(h, a)", 5, 5),
    "equal, other order": ("z = Add(a, h)", 5, 5),
    "wider source": ("s = Slice(a, zero, five, axis)\nz = Add(h, s)", 7, 5),
    "padded": ("p = Pad(a, pads)\nz = Add(h, p)", 3, 5),
    "negative pad": ("p = Pad(a, less)\nz = Add(h, p)", 7, 5),
    "zeros beside": (f"{ZEROS}\nq = Concat<axis = 1>(a, p)\nz = Add(h, q)", 3, 5),
    "sliced and padded": ("s = Slice(a, zero, three, axis)\np = Pad(s, pads)\nz = Add(h, p)", 3, 5),
    "halves": (f"{HALVES}\nu = Add(s, a)\nz = Concat<axis = 1>(u, t)", 3, 5),
    "bias behind": ("i = Add(h, a)\nz = Add(i, k)", 5, 5),
}


@pytest.mark.parametrize("name", SKIPS)
def test_skips(kit, name):
    text, source, width = SKIPS[name]
    arrays = kit.layers(4, source, width, 2)
    ints = {"zero": [0], "three": [3], "five": [5], "axis": [1], "end": [2**63 - 1], "two": [2], "pads": [0, 0, 0, 2]}
    arrays |= {k: np.array(v, np.int64) for k, v in ints.items()} | {"less": np.array([0, 0, 0, -2]), "k": VECTOR[5]}
    whole = f"g = Gemm(x, w1, b1)\na = Tanh(g)\nh = Gemm(a, w2, b2)\n{text}\nr = Relu(z)\ny = Gemm(r, w3, b3)"
    assert kit.check(kit.build(whole, arrays)).mlp.spec.skips == ((1, 2),)


def test_skip_from_normalised_inputs(kit):
    text = "n = Mul(x, s)\nh = Gemm(n, w1, b1)\nz = Add(h, n)\nr = Relu(z)\ny = Gemm(r, w2, b2)"
    arrays = kit.layers(4, 4, 2) | {"s": VECTOR[4]}
    assert kit.check(kit.build(text, arrays)).mlp.spec.skips == ((0, 1),)


@pytest.mark.parametrize(
    ("tail", "output", "width"),
    [
        ("y = Softmax(z)", "softmax", 3),
        ("y = Softmax<axis = 1>(z)", "softmax", 3),
        ("y = LogSoftmax(z)", "log_softmax", 3),
        ("y = Sigmoid(z)", "sigmoid", 1),
        ("y = Identity(z)", "logits", 3),
    ],
)
@pytest.mark.parametrize("opset", [9, 13, 21])
def test_output_maps(kit, tail, output, width, opset):
    model = kit.build(
        f"h = Gemm(x, w1, b1)\nr = Relu(h)\nz = Gemm(r, w2, b2)\n{tail}", kit.layers(4, 5, width), opset=opset
    )
    assert kit.check(model).mlp.spec.output == output


def test_several_outputs_of_one_network(kit):
    text = "z = Gemm(x, w1, b1)\np = Softmax(z)\nlabel = ArgMax<axis = 1>(p)"
    out = {"label": 7}
    logits = kit.check(kit.build(text, kit.layers(4, 3), y=["label", "z", "p"], out=out), output="z")
    probabilities = kit.check(kit.build(text, kit.layers(4, 3), y=["p", "z", "label"], out=out), output="p")
    assert (logits.mlp.spec.output, probabilities.mlp.spec.output) == ("logits", "softmax")
    label = kit.check(kit.build(text, kit.layers(4, 3), y=["label"], out=out), behind=lambda p: p.argmax(1)[:, None])
    assert any("labels only" in note for note in label.notes)


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_other_precisions(kit, dtype):
    model = kit.build(
        "h = Gemm(x, w1, b1)\nr = Relu(h)\ny = Gemm(r, w2, b2)", kit.layers(4, 5, 2, dtype=dtype), dtype=dtype
    )
    kit.check(model, tolerance=1e-6 if dtype == np.float64 else 2e-3)


def test_casts_between_floats(kit):
    text = "a = Cast<to = 1>(x)\nw = Cast<to = 1>(w1)\nh = MatMul(a, w)\ng = Cast<to = 11>(h)\ny = Add(g, b1)"
    arrays = {k: v.astype(np.float64) / 3 for k, v in kit.layers(4, 3).items()}
    opened = kit.check(kit.build(text, arrays, dtype=np.float64))
    theta = opened.mlp.theta.copy()
    theta[0] = 0
    written = opened.write(opened.mlp.replace(theta))
    found = numpy_helper.to_array(written.graph.initializer[0])
    assert found.dtype == np.float64
    assert np.array_equal(found.ravel()[1:], arrays["w1"].ravel()[1:])  # all bits beyond float32 are kept


def test_integer_input(kit):
    model = kit.build("f = Cast<to = 1>(x)\ny = Gemm(f, w1, b1)", kit.layers(4, 3), dtype=np.int64, out={"y": 1})
    rows = np.arange(8).reshape(2, 4)
    np.testing.assert_allclose(open_onnx(model).mlp.forward(rows), kit.run(model, rows), atol=1e-5)


VIEWS = {
    "identity": ("w = Identity(v)", lambda w: w),
    "transpose": ("w = Transpose<perm = [1, 0]>(v)", lambda w: w.T),
    "transpose by default": ("w = Transpose(v)", lambda w: w.T),
    "reshape": ("w = Reshape(v, shape)", lambda w: w.reshape(2, -1)),
    "squeeze": ("w = Squeeze(v)", lambda w: w[None, :, None, :]),
    "chain": ("a = Transpose(v)\nb = Identity(a)\nc = Transpose(b)\nw = Transpose(c)", lambda w: w.T),
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("where", ["initializer", "node", "listed"])
def test_constants_are_followed(kit, name, where):
    text, undo = VIEWS[name]
    arrays = kit.layers(4, 3) | {"shape": np.array([4, 3])}
    stored = np.ascontiguousarray(undo(arrays.pop("w1")))
    if where != "node":
        arrays["v"] = stored
    model = kit.build(text + "\ny = Gemm(x, w, b1)", arrays, listed=where == "listed", ir=3 if where == "listed" else 8)
    if where == "node":
        node = helper.make_node("Constant", [], ["v"], value=numpy_helper.from_array(stored, "v"))
        model.graph.node.insert(0, node)
    opened = kit.check(model)
    theta = opened.mlp.theta.copy()
    theta[0] = 42
    written = opened.write(opened.mlp.replace(theta))
    assert len(written.graph.initializer) == len(model.graph.initializer)
    assert len(written.graph.node) == len(model.graph.node)


def test_constants_by_value_attributes(kit):
    text = """
        b = Constant<value_floats = [0.5, 0.25, 1.5]>()
        k = Constant<value_float = 0.5>()
        s = Constant<value_ints = [-1, 4]>()
        f = Reshape(x, s)
        h = MatMul(f, w1)
        g = Mul(h, k)
        y = Add(g, b)
    """
    arrays = kit.layers(4, 3)
    del arrays["b1"]
    kit.check(kit.build(text, arrays))


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 15, 17, 18, 20, 21, 22, 23])
def test_opsets(kit, opset):
    text = "f = Flatten(x)\nh = Gemm(f, w1, b1)\nr = Relu(h)\nd = Dropout(r)\nz = MatMul(d, w2)\ny = Add(z, b2)"
    for ir in (3, 4, 7, 8, 10):
        if ir < 8 and opset > 17:
            continue
        kit.check(kit.build(text, kit.layers(4, 3, 2), opset=opset, ir=ir, listed=ir == 3))


def test_unused_nodes_do_not_matter(kit):
    kit.check(kit.build("c = Cos(x)\ny = Gemm(x, w1, b1)", kit.layers(4, 3)))
