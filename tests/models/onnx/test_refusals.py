"""Graphs that are no MLP: each refusal is an UnsupportedModelError that names the node."""
# ruff: noqa: E501  # one graph a line reads best

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.models.onnx import OpenedOnnx, open_onnx, read_onnx_file

HEAD = "h = Gemm(x, w1, b1)\nr = Relu(h)\n"
REFUSED = {
    # text, what the message must hold
    "unknown operator": (HEAD + "c = Cos(r)\ny = Gemm(c, w2, b2)", "'c'", "Cos"),
    "unknown domain": (HEAD + "c = my.Op(r)\ny = Gemm(c, w2, b2)", "'c'", "my.Op"),
    "transposed data": ("y = Gemm<transA = 1>(x, w1, b1)", "'y'", "rows on axis 1"),
    "branches": (HEAD + "t = Tanh(h)\ns = Add(r, t)\ny = Gemm(s, w2, b2)", "'s'", "skip"),
    "gate": (HEAD + "t = Tanh(h)\ns = Mul(r, t)\ny = Gemm(s, w2, b2)", "'s'", "product"),
    "concatenation": (HEAD + "s = Concat<axis = 1>(h, r)\ny = Gemm(s, w4, b2)", "'s'", "concatenation"),
    "dynamic weights": (HEAD + "t = Transpose(r)\ny = MatMul(r, t)", "'y'", "constant"),
    "computed weights": ("w = Mul(w1, w1)\ny = Gemm(x, w, b1)", "'y'", "computed"),
    "computed weights of a shape": ("w = ConstantOfShape(four)\ny = MatMul(x, w)", "'y'", "computed"),
    "square": (HEAD + "s = Mul(r, r)\ny = Gemm(s, w2, b2)", "'s'", "square"),
    "root": (HEAD + "s = Sqrt(r)\ny = Gemm(s, w2, b2)", "'s'", "variance"),
    "power": (HEAD + "s = Pow(r, scalar)\ny = Gemm(s, w2, b2)", "'s'", "exponent"),
    "erf alone": (HEAD + "s = Erf(r)\ny = Gemm(s, w2, b2)", "'s'", "GELU"),
    "mean alone": (HEAD + "s = ReduceMean<axes = [1]>(r)\nt = Sub(r, s)\ny = Gemm(t, w2, b2)", "'t'", "centred"),
    "mean of rows": (HEAD + "s = ReduceMean<axes = [0]>(r)\nt = Sub(r, s)\ny = Gemm(t, w2, b2)", "'s'", "axes [0]"),
    "division by data": (HEAD + "s = Div(b1, r)\ny = Gemm(s, w2, b2)", "'s'", "division"),
    "division by zero": (HEAD + "s = Div(r, zero)\ny = Gemm(s, w2, b2)", "'s'", "zero"),
    "two activations": (HEAD + "t = Tanh(r)\ny = Gemm(t, w2, b2)", "'t'", "activation"),
    "activation at the input": ("t = Tanh(x)\ny = Gemm(t, w1, b1)", "'t'", "at the input"),
    "activation at the end": (HEAD + "z = Gemm(r, w2, b2)\ny = Tanh(z)", "'y'", "behind an activation"),
    "scale behind the last activation": (HEAD + "y = Mul(r, b1)", "'y'", "linear layer at the end"),
    "norm at the input": ("n = LayerNormalization(x, g, g)\ny = Gemm(n, w1, b1)", "'n'", "at the input"),
    "norm behind an activation": (HEAD + "n = LayerNormalization(r, b1, b1)\ny = Gemm(n, w2, b2)", "'n'", "norm"),
    "norm at the end": ("h = Gemm(x, w1, b1)\ny = LayerNormalization(h, b1, b1)", "'y'", "norm"),
    "norm over rows": ("h = Gemm(x, w1, b1)\nn = LayerNormalization<axis = 0>(h, b1, b1)\ny = Gemm(n, w2, b2)", "'n'", "axis 0"),
    "scale behind a skip": (
        "h = Gemm(x, w1, b1)\nr = Relu(h)\nz = Gemm(r, w3, b1)\ns = Add(z, r)\nt = Mul(s, b1)\nq = Relu(t)\ny = Gemm(q, w2, b2)",
        "'t'",
        "skip",
    ),
    "skip from a pre-activation": (
        "h = Gemm(x, w1, b1)\nr = Relu(h)\nz = Gemm(r, w3, b1)\ns = Add(z, h)\nt = Relu(s)\ny = Gemm(t, w2, b2)",
        "'s'",
        "earlier layer",
    ),
    "skip into the output": ("h = Gemm(x, w1, b1)\nr = Relu(h)\nz = Gemm(r, w3, b1)\ny = Add(z, r)", "'y'", "linear layer at the end"),
    "skip behind the activation": (
        "h = Gemm(x, w1, b1)\nr = Relu(h)\nz = Gemm(r, w3, b1)\nq = Relu(z)\ns = Add(q, r)\ny = Gemm(s, w2, b2)",
        "'s'",
        "in front of its activation",
    ),
    "same skip twice": (
        "h = Gemm(x, w1, b1)\nr = Relu(h)\nz = Gemm(r, w3, b1)\nq = Add(z, r)\ns = Add(q, r)\nt = Relu(s)\ny = Gemm(t, w2, b2)",
        "'s'",
        "second",
    ),
    "slice of the middle": (
        "h = Gemm(x, w1, b1)\nr = Relu(h)\ns = Slice(r, one, two, one)\ny = Mul(s, scalar)",
        "'s'",
        "a middle used otherwise",
    ),
    "parts in another order": (
        "a, b = Split<axis = 1, num_outputs = 2>(x)\ns = Concat<axis = 1>(b, a)\ny = Gemm(s, w1, b1)", "'s'", "concatenation"
    ),
    "parts that do not fit": ("a, b = Split<axis = 1>(x, square)\ny = Concat<axis = 1>(a, b)", "'a'", "2 parts of 4"),
    "split of rows": ("y, b = Split<num_outputs = 2>(x)", "'y'", "features of each row"),
    "axis twice": ("u = Unsqueeze(x, twice)\ny = Squeeze(u, twice)", "'u'", "each axis once"),
    "threshold": (HEAD + "t = ThresholdedRelu(h)\ny = Gemm(t, w2, b2)", "'t'", "threshold 0"),
    "arithmetic of ints": ("w = Pow(two, two)\ny = Mul(x, w)", "'w'", "floats"),
    "arithmetic of negative ints": ("w = Add(mixed, mixed)\ny = Mul(x, w)", "'w'", "sizes"),
    "arithmetic of the rows": ("s = Shape(x)\nw = Add(s, s)\ny = Reshape(x, w)", "'w'", "sizes"),
    "arithmetic beyond bounds": ("w = Add(long, high)\ny = Mul(x, w)", "'w'", "16777216 numbers"),
    "slope that widens": ("h = Gemm(x, w1, b1)\nr = PRelu(h, cube1)\ny = Gemm(r, w2, b2)", "'r'", "at most 2 axes"),
    "a convolution": ("u = Unsqueeze(x, one)\nc = Conv(u, kernel)\ny = Flatten(c)", "'c'", "covers all"),
    "padded convolution": ("u = Unsqueeze(x, one)\nc = Conv<pads = [1, 1]>(u, whole_kernel)\ny = Flatten(c)", "'c'", "padding"),
    "dilated convolution": ("u = Unsqueeze(x, one)\nc = Conv<dilations = [2]>(u, whole_kernel)\ny = Flatten(c)", "'c'", "dense kernel"),
    "pad in front": (HEAD + "p = Pad(r, pads)\ny = Gemm(p, w2, b2)", "'p'", "zeros behind"),
    "multi-label": (HEAD + "z = Gemm(r, w2, b2)\ny = Sigmoid(z)", "'y'", "multi-label"),
    "softmax over rows": (HEAD + "z = Gemm(r, w2, b2)\ny = Softmax<axis = 0>(z)", "'y'", "axis 0"),
    "softmax inside": ("h = Gemm(x, w1, b1)\ns = Softmax(h)\ny = Gemm(s, w2, b2)", "'s'", "softmax inside"),
    "behind a softmax": (HEAD + "z = Gemm(r, w2, b2)\ns = Softmax(z)\ny = Mul(s, scalar)", "'s'", "softmax inside"),
    "shift and no bias": (HEAD + "s = Add(r, b1)\ny = MatMul(s, w2)", "'y'", "bias"),
    "wrong width": (HEAD + "y = Gemm(r, w1, b1)", "'y'", "4 features"),
    "wrong bias": ("y = Gemm(x, w1, g)", "'y'", "bias"),
    "wrong constant": ("h = Gemm(x, w1, b1)\ny = Add(h, g)", "'y'", "fits"),
    "a constant that widens": ("h = MatMul(x, v)\ny = Add(h, b1)", "'y'", "fits"),
    "weights of three axes": ("y = MatMul(x, cube)", "'y'", "one weight matrix"),
    "integer weights": ("y = MatMul(x, whole)", "'y'", "float32"),
    "clip": ("h = Gemm(x, w1, b1)\nr = Clip(h, zero, scalar)\ny = Gemm(r, w2, b2)", "'r'", "Clip"),
    "max": ("h = Gemm(x, w1, b1)\nr = Max(h, scalar)\ny = Gemm(r, w2, b2)", "'r'", "maximum"),
    "slopes": ("h = Gemm(x, w1, b1)\nr = PRelu(h, b1)\ny = Gemm(r, w2, b2)", "'r'", "one slope"),
    "gelu of a kind": ('h = Gemm(x, w1, b1)\nr = Gelu<approximate = "fast">(h)\ny = Gemm(r, w2, b2)', "'r'", "fast"),
    "training batch norm": ("n = BatchNormalization<training_mode = 1>(x, g, g, g, g)\ny = Gemm(n, w1, b1)", "'n'", "training"),
    "batch norm of another width": ("n = BatchNormalization(x, b1, b1, b1, b1)\ny = Gemm(n, w1, b1)", "'n'", "vectors of 4"),
    "negative variance": ("n = BatchNormalization(x, g, g, g, minus)\ny = Gemm(n, w1, b1)", "'n'", "finite"),
    "training dropout": ("n = Dropout(x, zero, true)\ny = Gemm(n, w1, b1)", "'n'", "training"),
    "feature order": ("a = Reshape(x, square)\nb = Transpose<perm = [0, 2, 1]>(a)\nf = Flatten(b)\ny = Gemm(f, w1, b1)", "'b'", "order"),
    "rows mixed": ("a = Reshape(x, mixed)\ny = MatMul(a, w8)", "'a'", "rows"),
    "cast to int": ("a = Cast<to = 7>(x)\nb = Cast<to = 1>(a)\ny = Gemm(b, w1, b1)", "'a'", "cast"),
    "no linear layer": ("y = Mul(x, g)", "'y'", "linear layer"),
    "nothing": ("y = Identity(x)", "input 'x'", "linear layer"),
    "constant output": ("y = Identity(w1)", "output 'y'", "depends on the input"),
    "second output of a node": (HEAD + "a, y = Dropout(r)", "'a'", "first output"),
    "label in use": (HEAD + "a = ArgMax(r)\ny = Cos(a)", "'y'", "labels"),
    "scaler of another width": ("a = ai.onnx.ml.Scaler<offset = [1.0, 2.0], scale = [1.0, 2.0]>(x)\ny = Gemm(a, w1, b1)", "'a'", "4 features"),
    "undefined": ("y = Gemm(missing, w1, b1)", "'y'", "'missing'"),
    "defined twice": ("h = Gemm(x, w1, b1)\nx = Relu(h)\ny = Relu(x)", "'x'", "second time"),
    "not sorted": ("y = Relu(h)\nh = Gemm(x, w1, b1)", "'y'", "'h'"),
    "attribute of another type": ("y = Gemm<alpha = 1>(x, w1, b1)", "'y'", "alpha"),
    "attribute out of range": ("y = Flatten<axis = 7>(x)", "'y'", "axis"),
    "missing input": ("h = Gemm(x)\ny = Relu(h)", "'h'", "nothing"),
    "missing shape": ("h = Reshape(x)\ny = Gemm(h, w1, b1)", "'h'", "shape"),
    "bad permutation": ("h = Transpose<perm = [0, 0]>(x)\ny = Gemm(h, w1, b1)", "'h'", "permutation"),
    "bad view": ("w = Reshape(w1, mixed)\ny = Gemm(x, w, b1)", "'w'", "well-formed"),
}  # fmt: skip


def _arrays(kit, text):
    arrays = kit.layers(4, 3, 2) | {"w3": np.ones((3, 3)), "w4": np.ones((6, 2)), "w8": np.ones((8, 2))}
    arrays |= {"v": np.ones((4, 1)), "g": np.arange(1, 5), "zero": 0, "scalar": 2.5, "cube": np.ones((2, 4, 3))}
    arrays |= {"minus": -np.arange(1, 5)}
    ints = {"four": [4, 2], "one": [1], "two": [2], "pads": [0, 1, 0, 0], "square": [0, 2, 2], "mixed": [-1, 8]}
    ints |= {"twice": [1, 1]}
    arrays |= {"cube1": np.ones((1, 1, 1)), "kernel": np.ones((2, 1, 3)), "whole_kernel": np.ones((2, 1, 4))}
    arrays |= {"long": np.ones((5000, 1)), "high": np.ones((1, 5000))}
    arrays = {name: np.asarray(a, np.float32) for name, a in arrays.items()}
    arrays |= {name: np.array(v, np.int64) for name, v in ints.items()}
    arrays |= {"true": np.array(True), "whole": np.ones((4, 3), np.int32)}
    words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
    return {name: a for name, a in arrays.items() if name in words}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_node(kit, name):
    text, *fragments = REFUSED[name]
    model = kit.build(text, _arrays(kit, text), opset=20)
    with pytest.raises(UnsupportedModelError) as caught:
        open_onnx(model)
    message = str(caught.value)
    assert "expected" in message
    assert "found" in message
    for fragment in fragments:
        assert fragment in message, message


def test_message_names_the_node_by_its_name(kit):
    model = kit.build("y = Cos(x)")
    model.graph.node[0].name = "cosine"
    with pytest.raises(UnsupportedModelError, match="node 'cosine' .*Cos.* expected an operator of an MLP, found Cos"):
        open_onnx(model)


def test_two_inputs(kit):
    model = kit.build("y = Add(x, x2)")
    model.graph.input.append(helper.make_tensor_value_info("x2", 1, ["rows", 4]))
    with pytest.raises(UnsupportedModelError, match="one input, found 'x', 'x2'"):
        open_onnx(model)


def test_outputs_of_different_parts(kit):
    text = "h = Gemm(x, w1, b1)\nr = Relu(h)\ny = Gemm(r, w2, b2)"
    with pytest.raises(UnsupportedModelError, match="output 'r'"):
        open_onnx(kit.build(text, kit.layers(4, 3, 2), y=["y", "r"]))
    with pytest.raises(UnsupportedModelError, match="Cos"):
        open_onnx(kit.build(text + "\nc = Cos(y)", kit.layers(4, 3, 2), y=["y", "c"]))


def test_control_flow(kit):
    model = kit.build("y = Gemm(x, w1, b1)", kit.layers(4, 3))
    body = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])], "b", [], [helper.make_empty_tensor_value_info("z")]
    )
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], name="branch", then_branch=body, else_branch=body))
    with pytest.raises(UnsupportedModelError, match="'branch'.*control flow"):
        open_onnx(model)


@pytest.mark.parametrize(("opset", "ir"), [(6, 8), (99, 8), (17, 2), (0, 8)])
def test_versions(kit, opset, ir):
    model = kit.build("y = Gemm(x, w1, b1)", kit.layers(4, 3), opset=opset, ir=ir)
    with pytest.raises(UnsupportedModelError, match="version"):
        open_onnx(model)


def test_a_function_may_not_replace_an_operator(kit):
    model = kit.build("y = Gemm(x, w1, b1)", kit.layers(4, 3))
    body = [helper.make_node("Neg", ["a"], ["c"])]
    model.functions.append(helper.make_function("", "Gemm", ["a", "b"], ["c"], body, [helper.make_opsetid("", 17)]))
    with pytest.raises(UnsupportedModelError, match="function"):
        open_onnx(model)


def test_no_standard_operators(kit):
    model = kit.build("y = Gemm(x, w1, b1)", kit.layers(4, 3))
    del model.opset_import[:]
    with pytest.raises(UnsupportedModelError, match="opset_import"):
        open_onnx(model)


@pytest.mark.parametrize("x", [(0, 0, 0, 4), (1, 5), ("a", "b", "c"), (2**20, 2**20)])
def test_input_shapes(kit, x):
    with pytest.raises(UnsupportedModelError):
        open_onnx(kit.build("y = Gemm(x, w1, b1)", kit.layers(4, 3), x=x))


def test_input_types(kit):
    model = kit.build("y = Gemm(x, w1, b1)", kit.layers(4, 3))
    model.graph.input[0].type.Clear()
    with pytest.raises(UnsupportedModelError, match="input 'x': expected a tensor"):
        open_onnx(model)
    with pytest.raises(TypeError, match="expected an onnx.ModelProto"):
        open_onnx(b"")  # type: ignore[arg-type]
    with pytest.raises(UnsupportedModelError):
        open_onnx(onnx.ModelProto())


def test_external_data_is_never_followed(kit):
    model = kit.build("y = Gemm(x, w1, b1)", kit.layers(4, 3))
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(UnsupportedModelError, match="initializer 'w1'.*read_onnx_file"):
        open_onnx(model)


@pytest.mark.parametrize("damage", ["dims", "type", "raw"])
def test_damaged_tensors(kit, damage):
    model = kit.build("y = Gemm(x, w1, b1)", kit.layers(4, 3))
    tensor = model.graph.initializer[0]
    if damage == "dims":
        tensor.dims[0] = 2**40
    elif damage == "type":
        tensor.data_type = 77
    else:
        tensor.raw_data = b"123"
    with pytest.raises(UnsupportedModelError, match="'w1'"):
        open_onnx(model)


BIG = "h = Gemm(x, w1, b1)\nn = LayerNormalization(h, g, g)\nr = Elu<alpha = 0.5>(n)\nz = MatMul(r, w2)\ns = Add(z, b2)\ny = Softmax(s)"


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_mutated_graphs_never_raise_anything_else(kit, data):
    """Random changes to a model's fields: it is read or refused."""
    model = kit.build(BIG, kit.layers(4, 3, 2) | {"g": np.ones(3, np.float32)})
    node = data.draw(st.sampled_from(list(model.graph.node)))
    tensor = data.draw(st.sampled_from(list(model.graph.initializer)))
    names = st.sampled_from(["x", "h", "n", "r", "z", "s", "y", "w1", "b1", "g", "w2", "b2", "", "other"])
    ops = st.sampled_from(
        ["Add", "Sub", "Mul", "Div", "Gemm", "MatMul", "Concat", "Slice", "Pad", "Reshape", "Flatten", "Transpose", "Shape",
         "Gather", "ConstantOfShape", "BatchNormalization", "ReduceMean", "Clip", "Max", "PRelu", "Pow", "Softmax", "Squeeze",
         "Unsqueeze", "Cast", "Dropout", "ArgMax", "Constant", "Identity", "LayerNormalization", "Erf", "Sqrt", "Sum"]
    )  # fmt: skip
    for _ in range(data.draw(st.integers(1, 3))):
        match data.draw(st.integers(0, 6)):
            case 0:
                node.op_type = data.draw(ops)
            case 1:
                node.input[:] = data.draw(st.lists(names, max_size=5))
            case 2:
                node.output[:] = data.draw(st.lists(names, max_size=3))
            case 3:
                del node.attribute[:]
                value = data.draw(
                    st.one_of(st.integers(-9, 9), st.floats(width=32), st.lists(st.integers(-9, 9)), st.just("a"))
                )
                name = data.draw(
                    st.sampled_from(["axis", "axes", "alpha", "perm", "to", "transB", "epsilon", "value", "value_ints"])
                )
                if value != []:
                    node.attribute.append(helper.make_attribute(name, value))
            case 4:
                tensor.dims[:] = data.draw(st.lists(st.integers(-2, 5), max_size=4))
            case 5:
                shape = data.draw(st.lists(st.integers(0, 4), max_size=3))
                kind = data.draw(st.sampled_from([np.float32, np.int64, np.float64, np.bool_, np.float16]))
                tensor.CopyFrom(numpy_helper.from_array(np.ones(shape, kind), tensor.name))
            case 6:
                dims = data.draw(st.lists(st.sampled_from(["rows", 0, 1, 2, 4]), max_size=4))
                model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", 1, dims))
    try:
        opened = open_onnx(model)
    except UnsupportedModelError:
        return
    if opened.mlp.is_finite and not any("one row" in note for note in opened.notes):
        _must_agree(kit, model, opened)


def _must_agree(kit, model, opened):
    """Whatever is read must be read right, if ONNX Runtime can run it."""
    rows = np.random.default_rng(0).normal(size=(6, opened.mlp.spec.n_inputs)).astype(np.float32)
    try:
        expected = kit.run_rows(model, rows)
    except Exception:  # the mutation made it invalid
        return
    if expected.dtype.kind == "f" and np.isfinite(expected).all():
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(opened.mlp.forward(rows, np.float64), expected, atol=1e-4 * scale)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_files_never_raise_anything_else(kit, data, tmp_path_factory):
    model = kit.build(BIG, kit.layers(4, 3, 2) | {"g": np.ones(3, np.float32)})
    content = bytearray(model.SerializeToString())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "model.onnx"
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        assert isinstance(open_onnx(read_onnx_file(path)), OpenedOnnx)
    except UnsupportedModelError as error:
        assert str(error)  # noqa: PT017  # either is right
