"""Models as Keras 3 exports them: ``model.export(path, format="onnx")`` with the backend torch.

``keras/`` holds three such files, made by ``export_all`` with Keras 3.15.1 and torch 2.13.0, and what Keras itself
predicts; where Keras is installed they are made afresh too. The form that tf2onnx writes is made by hand.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest

FOLDER = Path(__file__).parent / "keras"
ROWS = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)


def export_all(folder: Path) -> None:
    """Write each model as ``NAME.onnx`` and its predictions for ``ROWS`` into ``predictions.npz``; Keras's own."""
    import keras
    from keras import layers

    numbers = [0.5, 1, 1.5, 2, 2.5]
    into_tanh, into_elu = layers.Dense(7, activation="tanh"), layers.Dense(7)
    first = keras.Input((5,))
    second = into_tanh(first)
    joined = layers.Activation("elu")(layers.Add()([into_elu(second), second]))
    models = {
        "normalised": keras.Sequential([
            *(keras.Input((5,)), layers.Normalization(mean=numbers, variance=numbers), layers.Dense(8, "relu")),
            *(layers.BatchNormalization(), layers.Dropout(0.2), layers.Dense(6, "gelu"), layers.Dense(3, "softmax")),
        ]),
        "binary": keras.Sequential([
            *(keras.Input((5,)), layers.Dense(8, "silu"), layers.Dense(6), layers.BatchNormalization()),
            *(layers.LeakyReLU(0.2), layers.Dense(1, "sigmoid")),
        ]),
        "skip": keras.Model(first, layers.Dense(2)(joined)),
    }  # fmt: skip
    rng, predictions = np.random.default_rng(1), {}
    for name, model in models.items():
        for variable in model.weights:
            if "seed" not in variable.path:
                low, high = (0.5, 1.5) if "variance" in variable.path else (-0.8, 0.8)
                variable.assign(rng.uniform(low, high, variable.shape))
        predictions[name] = np.asarray(model.predict(ROWS, verbose=0))
        model.export(folder / f"{name}.onnx", format="onnx", verbose=False)
    np.savez(folder / "predictions.npz", **predictions)


def check(kit, folder):
    with np.load(folder / "predictions.npz") as expected:
        for name in ("normalised", "binary", "skip"):
            opened = kit.check(onnx.load(folder / f"{name}.onnx"), tolerance=5e-6)
            np.testing.assert_allclose(opened.mlp.forward(ROWS), expected[name], atol=1e-5)
            spec = opened.mlp.spec
            if name == "normalised":
                assert (spec.widths, spec.output) == ((5, 8, 6, 3), "softmax")
                assert opened.mlp.input_scale is not None
            elif name == "binary":
                assert [layer.activation for layer in spec.layers] == ["silu", "leaky_relu", "identity"]
                assert spec.output == "sigmoid"
            else:
                assert spec.skips == ((1, 2),)


def test_committed_exports(kit):
    check(kit, FOLDER)


def test_fresh_exports(kit, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about itself
        pytest.importorskip("keras")
        export_all(tmp_path)
    check(kit, tmp_path)


def test_the_form_of_tf2onnx(kit):
    """Made by hand: MatMul and Add for each Dense, a batch norm as Mul and Add, an axis of rows with a name."""
    weights = {
        **{f"sequential_dense_{name}": array for name, array in kit.layers(4, 6, 5, 2).items()},
        "mean": np.array([[0.1, 0.2, 0.3, 0.4]], np.float32),
        "deviation": np.array([[1, 2, 3, 4]], np.float32),
        "gamma": np.linspace(0.5, 1.5, 6, dtype=np.float32),
        "beta": np.linspace(-1, 1, 6, dtype=np.float32),
    }
    nodes = """
        normalized = Sub(x, mean)
        scaled = Div(normalized, deviation)
        a = MatMul(scaled, sequential_dense_w1)
        a_bias = Add(a, sequential_dense_b1)
        a_relu = Relu(a_bias)
        norm = Mul(a_relu, gamma)
        normed = Add(norm, beta)
        b = MatMul(normed, sequential_dense_w2)
        b_bias = Add(b, sequential_dense_b2)
        gate = Sigmoid(b_bias)
        swish = Mul(b_bias, gate)
        c = MatMul(swish, sequential_dense_w3)
        c_bias = Add(c, sequential_dense_b3)
        y = Softmax <axis = 1> (c_bias)
    """
    opened = kit.check(kit.build(nodes, weights, x=("unk__16", 4), opset=15))
    assert opened.mlp.spec.widths == (4, 6, 5, 2)
    assert [layer.activation for layer in opened.mlp.spec.layers] == ["relu", "silu", "identity"]
    np.testing.assert_allclose(opened.mlp.input_scale, [1, 0.5, 1 / 3, 0.25])
