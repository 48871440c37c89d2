"""scikit-learn's MLPs: exact round trips, the same predictions, refusals by name."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.models.mlp import MLP

pytest.importorskip("sklearn")
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)

from metaedit_fast.models.sklearn import open_sklearn

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def rows(n=40, columns=4, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).normal(1.0, 2.0, size=(n, columns)).astype(dtype)


def fitted(kind=MLPClassifier, classes=2, dtype=np.float64, **options):
    """An MLP after three epochs; ``classes`` is the number of outputs of a regressor."""
    x = rows(dtype=dtype)
    settings = {"hidden_layer_sizes": (6, 5), "max_iter": 3, "random_state": 0, **options}
    if kind is MLPClassifier:
        return MLPClassifier(**settings).fit(x, np.arange(len(x)) % classes)
    targets = x[:, :classes].astype(dtype)
    return MLPRegressor(**settings).fit(x, targets[:, 0] if classes == 1 else targets)


def arrays_of(estimator):
    network = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    return [*network.coefs_, *network.intercepts_]


def same(a, b):
    return all(p.dtype == q.dtype and np.array_equal(p, q) for p, q in zip(arrays_of(a), arrays_of(b), strict=True))


def probabilities(estimator, x):
    """What sklearn gives, in the shape of ``MLP.forward``."""
    if not hasattr(estimator, "predict_proba"):
        return estimator.predict(x).reshape(len(x), -1)
    proba = estimator.predict_proba(x)
    return proba[:, 1:] if proba.shape[1] == 2 else proba


def edited(mlp, seed=0):
    rng = np.random.default_rng(seed)
    theta = mlp.theta + rng.normal(scale=0.1, size=mlp.theta.shape).astype(np.float32)
    theta[rng.random(theta.shape) < 0.3] = 0
    return mlp.replace(theta)


def check(estimator, dtype=np.float64):
    before = copy.deepcopy(estimator)
    opened = open_sklearn(estimator)
    x = rows(12, dtype=dtype, seed=1)
    assert np.allclose(opened.mlp.forward(x, np.float64), probabilities(estimator, x), rtol=1e-6, atol=1e-6)

    again = opened.write(opened.mlp)
    assert type(again) is type(estimator)
    assert same(again, estimator)
    assert np.array_equal(probabilities(again, x), probabilities(estimator, x))

    mlp = edited(opened.mlp)
    written = opened.write(mlp)
    assert same(estimator, before), "write changed the original"
    assert np.allclose(mlp.forward(x, np.float64), probabilities(written, x), rtol=1e-6, atol=1e-6)
    assert open_sklearn(written).mlp.content_hash() == mlp.content_hash()

    opened.write_into(mlp)
    assert same(estimator, written)
    return opened


@settings(max_examples=30, deadline=None)
@given(
    activation=st.sampled_from(["identity", "logistic", "tanh", "relu"]),
    hidden=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    classes=st.integers(2, 4),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_classifiers(activation, hidden, classes, dtype):
    estimator = fitted(classes=classes, dtype=dtype, hidden_layer_sizes=tuple(hidden), activation=activation)
    spec = check(estimator, dtype).mlp.spec
    assert spec.widths == (4, *hidden, 1 if classes == 2 else classes)
    assert spec.output == ("sigmoid" if classes == 2 else "softmax")


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_regressors(outputs, dtype):
    spec = check(fitted(MLPRegressor, outputs, dtype), dtype).mlp.spec
    assert (spec.output, spec.n_outputs) == ("identity", outputs)


def test_an_mlp_without_hidden_layers():
    assert check(fitted(hidden_layer_sizes=())).mlp.spec.widths == (4, 1)


def test_predicted_classes_agree():
    estimator = fitted(classes=3, max_iter=20)
    x = rows(50, seed=2)
    assert np.array_equal(open_sklearn(estimator).mlp.predict(x), estimator.predict(x))


def test_all_other_fitted_attributes_are_kept():
    estimator = fitted(max_iter=4)
    written = open_sklearn(estimator).write(edited(open_sklearn(estimator).mlp))
    assert written.get_params() == estimator.get_params()
    assert written.loss_curve_ == estimator.loss_curve_
    assert np.array_equal(written.classes_, estimator.classes_)
    assert not any(np.shares_memory(a, b) for a, b in zip(arrays_of(written), arrays_of(estimator), strict=True))


def test_read_only_arrays_can_be_written_into():
    estimator = fitted()
    for array in arrays_of(estimator):
        array.setflags(write=False)
    opened = open_sklearn(estimator)
    mlp = edited(opened.mlp)
    opened.write_into(mlp)
    assert open_sklearn(estimator).mlp.content_hash() == mlp.content_hash()


@pytest.mark.parametrize(
    "scalers",
    [
        [StandardScaler()],
        [StandardScaler(with_mean=False)],
        [StandardScaler(with_std=False)],
        [StandardScaler(with_mean=False, with_std=False)],
        [MinMaxScaler((-1, 2))],
        [MaxAbsScaler()],
        [RobustScaler()],
        [RobustScaler(with_centering=False)],
        [RobustScaler(with_scaling=False, unit_variance=True), MinMaxScaler()],
        [MinMaxScaler(), StandardScaler()],
        ["passthrough", MaxAbsScaler()],
        ["passthrough"],
    ],
)
def test_pipelines(scalers):
    pipeline = make_pipeline(*scalers, MLPClassifier((5,), max_iter=3, random_state=0))
    opened = check(pipeline.fit(rows(), np.arange(40) % 2))
    assert len(opened.notes) == sum(scaler != "passthrough" for scaler in scalers)
    assert (opened.mlp.input_scale is None) == (scalers == ["passthrough"])


def test_the_scaler_of_a_pipeline_cannot_be_edited():
    pipeline = make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(5,), max_iter=3))
    opened = open_sklearn(pipeline.fit(rows(), rows()[:, 0]))
    other = MLP(opened.mlp.spec, opened.mlp.theta, opened.mlp.input_scale * 2, opened.mlp.input_shift)
    with pytest.raises(UnsupportedModelError, match="input_scale: the normalisation"):
        opened.write(other)


def refused(estimator, message):
    with pytest.raises(UnsupportedModelError, match=message):
        open_sklearn(estimator)


def test_estimators_that_are_not_fitted_are_refused():
    refused(MLPClassifier(), "MLPClassifier: expected a fitted estimator")
    for step in (StandardScaler(), PCA(2)):
        refused(make_pipeline(step, fitted()), rf"\({type(step).__name__}\): expected a fitted transformer")


def test_multi_label_classifiers_are_refused():
    labels = np.random.default_rng(0).integers(0, 2, size=(40, 3))
    estimator = MLPClassifier((4,), max_iter=2).fit(rows(), labels)
    refused(estimator, "one label per row, got a multi-label classifier with 3")


@pytest.mark.parametrize(
    "front",
    [
        [PCA(3)],
        [MinMaxScaler(clip=True)],
        [StandardScaler(), Normalizer(), MaxAbsScaler()],
        [ColumnTransformer([("a", StandardScaler(), [2, 0])], remainder="passthrough"), "passthrough"],
        [FunctionTransformer(np.tanh), PolynomialFeatures(2)],
    ],
)
def test_other_steps_stay_in_front(front):
    """The MLP is that of the last step; the edited pipeline is the same steps and the edited MLP."""
    pipeline = make_pipeline(*front, MLPClassifier((5,), max_iter=3, random_state=0)).fit(rows(), np.arange(40) % 3)
    before = copy.deepcopy(pipeline)
    opened = open_sklearn(pipeline)
    x = rows(12, seed=1)
    inner = before[:-1].transform(x)
    assert opened.mlp.spec.n_inputs == inner.shape[1]
    assert opened.mlp.input_scale is None
    assert np.allclose(opened.mlp.forward(inner, np.float64), before.predict_proba(x), atol=1e-6)
    (note,) = opened.notes
    assert f"({type(front[0]).__name__})" in note
    assert "pipeline[:-1].transform(X)" in note
    mlp = edited(opened.mlp)
    written = opened.write(mlp)
    assert same(pipeline, before)
    assert np.allclose(mlp.forward(inner, np.float64), written.predict_proba(x), atol=1e-6)
    assert np.array_equal(written[:-1].transform(x), inner)


def test_a_step_in_front_must_transform():
    refused(Pipeline([("first", LogisticRegression()), ("mlp", fitted())]), "'first' .*expected a transformer in front")


def test_other_estimators_are_refused():
    x, y = rows(), np.arange(40) % 2
    refused(LogisticRegression().fit(x, y), "expected an MLPClassifier or MLPRegressor, got LogisticRegression")
    search = GridSearchCV(MLPClassifier((3,), max_iter=2), {"alpha": [0.1]}, cv=2).fit(x, y)
    refused(search, "pass the fitted MLP inside")
    regressor = TransformedTargetRegressor(MLPRegressor(hidden_layer_sizes=(3,), max_iter=2)).fit(x, x[:, 0])
    refused(regressor, "pass the fitted MLP inside")

    class Mine(MLPClassifier):
        pass

    refused(Mine((3,), max_iter=2).fit(x, y), "expected an MLPClassifier or MLPRegressor, got Mine")


def test_an_unknown_output_map_is_refused():
    estimator = fitted(MLPRegressor, 1)
    estimator.out_activation_ = "exp"
    refused(estimator, "an output of identity, logistic or softmax, got exp")
