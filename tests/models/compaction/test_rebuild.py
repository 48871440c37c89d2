"""Smaller models of every kind: what is cut keeps its bits, its names and its place."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from metaedit_fast.models.compaction.plan import Plan, plan_of
from metaedit_fast.models.compaction.rebuild import FRESH_ONNX_NOTE, FRESH_TORCH_NOTE, rebuilt
from metaedit_fast.models.convert import open_model, read_model
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.onnx import mlp_to_onnx
from metaedit_fast.models.spec import ACTIVATIONS, MLPSpec

DEAD, STILL = [1, 4], [2]  # of the first hidden layer


def rows(n_inputs: int, n: int = 12) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(n, n_inputs)).astype(np.float32)


def holed(model: object) -> tuple[object, Plan]:
    """``model`` with zeros: neurons 1 and 4 of its first layer are dead, 2 is constant, input 1 is unused."""
    opened = open_model(model)
    mlp = opened.mlp.replace(opened.mlp.theta.copy())
    mlp.weight(1)[DEAD] = 0
    mlp.weight(0)[:, STILL] = 0
    mlp.weight(0)[1] = 0
    return opened.write(mlp), plan_of(mlp)


def check(model: object, *, drop_inputs: bool) -> object:
    """The compacted model, read back, is the planned network."""
    opened = open_model(model)
    plan = plan_of(opened.mlp, drop_inputs=drop_inputs)
    smaller, notes = rebuilt(opened, plan)
    again = read_model(smaller)
    assert again.spec == plan.mlp.spec
    assert again.spec.widths[1] == opened.mlp.spec.widths[1] - 3
    assert plan.inputs_removed == drop_inputs
    assert notes == ()
    x = rows(opened.mlp.spec.n_inputs)
    expected = opened.mlp.forward(x, np.float64)
    got = again.forward(x[:, plan.kept[0]], np.float64)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6 * (1 + np.abs(expected).max()))
    return smaller


def some_mlp(**changes) -> MLP:
    spec = MLPSpec.simple((4, 7, 5, 3), **changes)
    return MLP(spec, np.random.default_rng(0).normal(size=spec.n_parameters))


def run_onnx(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {session.get_inputs()[0].name: x}))


@pytest.mark.parametrize("drop_inputs", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_onnx_graphs_are_cut_in_place(activation: str, drop_inputs: bool) -> None:
    mlp = some_mlp(activation=activation, output="softmax")
    mlp = MLP(mlp.spec, mlp.theta, [1, 2, 3, 4], [0, 1, 0, 1])
    model, _ = holed(mlp_to_onnx(mlp))
    smaller = check(model, drop_inputs=drop_inputs)
    assert [node.op_type for node in smaller.graph.node] == [node.op_type for node in model.graph.node]
    names = [tensor.name for tensor in smaller.graph.initializer]
    assert sorted(names) == sorted(tensor.name for tensor in model.graph.initializer)
    onnx.checker.check_model(smaller, full_check=True)
    x = rows(4)
    np.testing.assert_allclose(
        run_onnx(smaller, np.delete(x, 1, 1) if drop_inputs else x)[0], run_onnx(model, x)[0], rtol=1e-5, atol=1e-6
    )


def test_an_onnx_graph_keeps_its_tail_its_names_and_its_untouched_bits() -> None:
    model = mlp_to_onnx(some_mlp())
    model.graph.node.append(helper.make_node("ArgMax", ["y"], ["label"], axis=1, keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("label", onnx.TensorProto.INT64, ["rows"]))
    model, _ = holed(model)
    smaller = check(model, drop_inputs=False)
    x = rows(4)
    for got, expected in zip(run_onnx(smaller, x), run_onnx(model, x), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    before, after = ({t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in (model, smaller))
    assert np.array_equal(after["layers.0.weight"], np.delete(before["layers.0.weight"], [*DEAD, *STILL], 1))
    assert np.array_equal(after["layers.2.weight"], before["layers.2.weight"])


def test_an_onnx_graph_of_products_and_sums() -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "mean": rng.normal(size=(1, 4)),
        "w0": rng.normal(size=(7, 4)),
        "b0": rng.normal(size=(1, 7)),
        "gamma": rng.normal(size=7),
        "beta": rng.normal(size=7),
        "mu": rng.normal(size=7),
        "var": rng.uniform(1, 2, 7),
        "w1": rng.normal(size=(7, 3)),
    }
    nodes = [
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Transpose", ["w0"], ["w0t"], perm=[1, 0]),
        helper.make_node("MatMul", ["centred", "w0t"], ["z"]),
        helper.make_node("Add", ["b0", "z"], ["z0"]),
        helper.make_node("BatchNormalization", ["z0", "gamma", "beta", "mu", "var"], ["n"]),
        helper.make_node("Sigmoid", ["n"], ["h"]),
        helper.make_node("Gemm", ["h", "w1"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, ["n", 4])],
        [helper.make_tensor_value_info("y", 1, ["n", 3])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in arrays.items()],
    )
    model, _ = holed(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8))
    smaller = check(model, drop_inputs=True)
    assert [node.op_type for node in smaller.graph.node] == [n.op_type for n in nodes if n.op_type != "Transpose"]
    x = rows(4)
    np.testing.assert_allclose(run_onnx(smaller, np.delete(x, 1, 1))[0], run_onnx(model, x)[0], rtol=1e-4, atol=1e-5)


def test_an_onnx_graph_that_fixes_a_width_elsewhere_is_written_anew() -> None:
    model = mlp_to_onnx(some_mlp())
    shape = numpy_helper.from_array(np.array([-1, 7]), "shape")
    model.graph.initializer.append(shape)
    position = next(i for i, node in enumerate(model.graph.node) if node.name == "layers.1.linear")
    model.graph.node.insert(
        position, helper.make_node("Reshape", [model.graph.node[position].input[0], "shape"], ["r"])
    )
    model.graph.node[position + 1].input[0] = "r"
    model, plan = holed(model)
    smaller, notes = rebuilt(open_model(model), plan)
    assert notes == (FRESH_ONNX_NOTE,)
    np.testing.assert_allclose(run_onnx(smaller, rows(4))[0], run_onnx(model, rows(4))[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("drop_inputs", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_sequentials_are_cut_in_place(dtype: str, drop_inputs: bool) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.BatchNorm1d(4),
        nn.Sequential(nn.Linear(4, 7, bias=False), nn.BatchNorm1d(7), nn.SiLU(), nn.Dropout(0.1)),
        nn.Linear(7, 5),
        nn.LayerNorm(5),
        nn.Sigmoid(),
        nn.Linear(5, 3),
    ).to(getattr(torch, dtype))
    module[1][1].running_mean.normal_()
    module[2].bias.requires_grad_(False)
    model, _ = holed(module.eval())
    smaller = check(model, drop_inputs=drop_inputs)
    assert list(smaller.state_dict()) == list(module.state_dict())
    assert smaller[2].weight.dtype == getattr(torch, dtype)
    assert not smaller[2].bias.requires_grad
    assert (smaller[1][0].out_features, smaller[1][1].num_features, smaller[2].in_features) == (4, 4, 4)
    assert not smaller.training
    x = torch.tensor(rows(4), dtype=smaller[2].weight.dtype)
    with torch.no_grad():
        expected = model(x)
        got = smaller(x[:, [0, 2, 3]] if drop_inputs else x)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_a_linear_layer_without_bias_gets_one_for_what_is_folded() -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(0)
    model, _ = holed(
        nn.Sequential(nn.Linear(4, 7), nn.Sigmoid(), nn.Linear(7, 5, bias=False), nn.ReLU(), nn.Linear(5, 3))
    )
    smaller = check(model, drop_inputs=False)
    assert smaller[2].bias.requires_grad
    assert smaller.training


def test_other_torch_modules_are_rebuilt() -> None:
    torch = pytest.importorskip("torch")
    from metaedit_fast.models.torch import mlp_to_torch

    module = mlp_to_torch(some_mlp(skips=[(0, 1)])).double()
    opened = open_model(module)
    mlp = opened.mlp.replace(opened.mlp.theta.copy())
    mlp.weight(1)[6] = 0
    smaller, notes = rebuilt(open_model(opened.write(mlp)), plan_of(mlp))
    assert notes == (FRESH_TORCH_NOTE,)
    assert next(smaller.parameters()).dtype == torch.float64
    x = rows(4)
    expected = mlp.logits(x, np.float64)
    np.testing.assert_allclose(smaller(torch.tensor(x).double()).detach(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("drop_inputs", [False, True])
def test_scikit_learn(drop_inputs: bool) -> None:
    pytest.importorskip("sklearn")
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    x = rows(4, 60).astype(np.float64)
    labels = (x[:, 0] > 0).astype(int) + (x[:, 2] > 0.5)
    network = MLPClassifier((7, 5), activation="tanh", max_iter=5, random_state=0)
    with pytest.warns(Warning, match="Maximum iterations"):
        pipeline = make_pipeline(StandardScaler(), MinMaxScaler(), network).fit(x, labels)
    model, _ = holed(pipeline)
    smaller = check(model, drop_inputs=drop_inputs)
    assert smaller[-1].hidden_layer_sizes == (4, 5)
    fewer = np.delete(x, 1, 1) if drop_inputs else x
    np.testing.assert_allclose(smaller.predict_proba(fewer), model.predict_proba(x), rtol=1e-5, atol=1e-6)
    assert model[-1].hidden_layer_sizes == (7, 5)
    smaller[-1].partial_fit(smaller[:-1].transform(fewer), labels)  # training goes on from there


def test_what_is_not_smaller_is_a_copy() -> None:
    model = mlp_to_onnx(some_mlp())
    smaller, notes = rebuilt(open_model(model), plan_of(read_model(model), drop_inputs=True))
    assert smaller == model
    assert smaller is not model
    assert notes == ()
