"""Models as PyTorch's two exporters and skl2onnx write them."""

from __future__ import annotations

import io
import logging
import warnings

import numpy as np
import onnx
import pytest

from metaedit_fast.models.spec import LayerSpec, MLPSpec

ROWS = 6


def _networks():
    nn = pytest.importorskip("torch").nn
    from metaedit_fast.models.torch.modules import SkipMLP

    kinds = (nn.ReLU(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Tanh(), nn.LeakyReLU(0.2), nn.Sigmoid())
    kinds += (nn.ELU(0.7), nn.ReLU6(), nn.PReLU(), nn.Hardtanh(0, 6), nn.Dropout(0.3))
    skips = ((0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (3, 4), (0, 4))
    hidden = (LayerSpec(8, "gelu"), LayerSpec(5, "silu", norm="layer"), LayerSpec(8, "relu"), LayerSpec(4, "tanh"))
    return {
        "activations": nn.Sequential(*[m for kind in kinds for m in (nn.Linear(6, 6), kind)], nn.Linear(6, 3)),
        "layer norm": nn.Sequential(
            *(nn.Linear(6, 5), nn.LayerNorm(5), nn.SiLU(), nn.Linear(5, 5, bias=False)),
            *(nn.LayerNorm(5, elementwise_affine=False), nn.GELU(), nn.Linear(5, 4), nn.LayerNorm(4, bias=False)),
            *(nn.ReLU(), nn.Linear(4, 1), nn.Sigmoid()),
        ),
        "batch norm": nn.Sequential(
            *(nn.BatchNorm1d(6), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.BatchNorm1d(5)),
            *(nn.Linear(5, 4, bias=False), nn.BatchNorm1d(4), nn.ELU(), nn.Linear(4, 3), nn.Softmax(-1)),
        ),
        "images": nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)),
        "skips": SkipMLP(MLPSpec(6, (*hidden, LayerSpec(2)), skips)),
    }


def _randomise(network):
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
            if "running_var" in name:
                tensor.uniform_(0.5, 2)
            elif tensor.is_floating_point() and tensor.ndim == 1 and tensor.numel() > 1:
                tensor.add_(torch.randn_like(tensor) * 0.3)
    return network.eval()


def _export(network, shape, *, opset, dynamo):
    import torch

    x = torch.randn(2, *shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters warn about themselves
        if not dynamo:
            file = io.BytesIO()
            names = {"input_names": ["x"], "dynamic_axes": {"x": {0: "rows"}}}
            torch.onnx.export(network, (x,), file, dynamo=False, opset_version=opset, **names)
            return onnx.load_from_string(file.getvalue())
        logging.disable(logging.CRITICAL)
        try:
            rows = torch.export.Dim("rows")
            options = {"dynamo": True, "dynamic_shapes": ({0: rows},), "verbose": False, "opset_version": opset}
            return torch.onnx.export(network, (x,), **options).model_proto
        finally:
            logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", ["activations", "layer norm", "batch norm", "images", "skips"])
@pytest.mark.parametrize("opset", [9, 17, 20])
def test_torchscript_exporter(kit, name, opset):
    network = _randomise(_networks()[name])
    opened = kit.check(
        _export(network, (1, 2, 3) if name == "images" else (6,), opset=opset, dynamo=False), tolerance=5e-6
    )
    _same_as_torch(network, opened, name)


@pytest.mark.parametrize("name", ["batch norm", "skips"])
def test_dynamo_exporter(kit, name):
    pytest.importorskip("onnxscript")
    network = _randomise(_networks()[name])
    opened = kit.check(_export(network, (6,), opset=18, dynamo=True), tolerance=5e-6)
    _same_as_torch(network, opened, name)


def _same_as_torch(network, opened, name):
    import torch

    rows = np.random.default_rng(0).normal(size=(ROWS, 6)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(rows).reshape(ROWS, *((1, 2, 3) if name == "images" else (6,)))).numpy()
    np.testing.assert_allclose(opened.mlp.forward(rows), expected, atol=5e-6)
    if name == "skips":
        assert opened.mlp.spec.skips == network.spec.skips


def test_view_of_unknown_batch(kit):
    """``x.view(x.size(0), -1)`` becomes Shape, Gather, Concat and Reshape."""
    torch = pytest.importorskip("torch")

    class Viewed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(6, 2)

        def forward(self, x):
            return self.linear(x.view(x.size(0), -1))

    kit.check(_export(Viewed().eval(), (2, 3), opset=17, dynamo=False))


@pytest.fixture(scope="module")
def table():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    x = rng.normal(1, 2, size=(80, 4))
    return x, (x[:, 0] > 1).astype(int) + (x[:, 1] > 1)


def _fitted(estimator, x, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a few iterations do not converge
        return estimator.fit(x, y)


def _to_onnx(estimator, x, zipmap):
    skl2onnx = pytest.importorskip("skl2onnx")
    options = None if zipmap is None else {id(estimator): {"zipmap": zipmap}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return skl2onnx.to_onnx(estimator, x[:1], options=options)


@pytest.mark.parametrize(("dtype", "zipmap"), [(np.float32, True), (np.float32, False), (np.float64, False)])
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize(("classes", "activation"), [(2, "relu"), (3, "tanh"), (2, "logistic")])
def test_skl2onnx_classifiers(kit, table, classes, activation, scaled, zipmap, dtype):
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = table
    labels = np.array(["no", "yes", "maybe"])[y % classes] if classes == 3 else y % 2
    estimator = MLPClassifier((5, 4), activation=activation, max_iter=5, random_state=0)
    estimator = _fitted(make_pipeline(StandardScaler(), estimator) if scaled else estimator, x, labels)
    model = _to_onnx(estimator, x.astype(dtype), zipmap)
    opened = (
        kit.check(model, output="probabilities", behind=_two_classes) if not zipmap else _checked_labels(kit, model, x)
    )
    expected = estimator.predict_proba(x.astype(dtype))
    np.testing.assert_allclose(_two_classes(opened.mlp.forward(x)), expected, atol=1e-5)
    assert opened.mlp.spec.output == ("softmax" if classes == 3 else "sigmoid")
    assert (opened.mlp.input_scale is not None) == scaled
    assert any("[1 - p, p]" in note for note in opened.notes) == (classes == 2)


def _checked_labels(kit, model, x):
    """With ZipMap the scores are dictionaries; the labels of an edited model tell that they follow."""
    from metaedit_fast.models.onnx import open_onnx

    opened = open_onnx(model)
    other = kit.edited(opened)
    probabilities = _two_classes(other.forward(x))
    dtype = onnx.helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type)
    written = kit.run(opened.write(other), x.astype(dtype), "output_probability")
    found = np.array([[row[k] for k in sorted(row)] for row in written])
    assert [o.name for o in model.graph.output] == ["output_label", "output_probability"]
    np.testing.assert_allclose(found, probabilities, atol=1e-5)
    return opened


def _two_classes(p):
    return np.concatenate([1 - p, p], axis=1) if p.shape[1] == 1 else p


@pytest.mark.parametrize("outputs", [1, 2])
def test_skl2onnx_regressors(kit, table, outputs):
    from sklearn.neural_network import MLPRegressor

    x, _ = table
    estimator = _fitted(MLPRegressor(hidden_layer_sizes=(5,), max_iter=5, random_state=0), x, x[:, :outputs].squeeze())
    opened = kit.check(_to_onnx(estimator, x.astype(np.float32), None))
    # skl2onnx gives all outputs of all rows in one column.
    assert any("in another shape" in note for note in opened.notes) == (outputs > 1)
    expected = estimator.predict(x).reshape(len(x), -1)
    np.testing.assert_allclose(opened.mlp.forward(x), expected, atol=1e-5)


@pytest.mark.parametrize("front", ["MinMaxScaler", "MaxAbsScaler", "RobustScaler", "PCA"])
def test_skl2onnx_pipelines(kit, table, front):
    """What a step in front becomes in the graph is read; PCA is a linear layer there."""
    from sklearn import decomposition, preprocessing
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline

    x, y = table
    step = getattr(preprocessing, front, None) or getattr(decomposition, front)
    pipeline = _fitted(make_pipeline(step(), MLPClassifier((5,), max_iter=5, random_state=0)), x, y)
    opened = kit.check(_to_onnx(pipeline, x.astype(np.float32), False), output="probabilities", tolerance=5e-6)
    np.testing.assert_allclose(opened.mlp.forward(x), pipeline.predict_proba(x.astype(np.float32)), atol=1e-5)
    assert len(opened.mlp.spec.layers) == (3 if front == "PCA" else 2)


def test_skl2onnx_steps_that_are_no_mlp_are_refused_by_the_node(table):
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Binarizer, Normalizer

    from metaedit_fast.errors import UnsupportedModelError
    from metaedit_fast.models.onnx import open_onnx

    x, y = table
    for step in (Normalizer(), Binarizer()):
        pipeline = _fitted(make_pipeline(step, MLPClassifier((5,), max_iter=5, random_state=0)), x, y)
        with pytest.raises(UnsupportedModelError, match=type(step).__name__):
            open_onnx(_to_onnx(pipeline, x.astype(np.float32), False))
