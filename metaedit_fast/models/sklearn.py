"""scikit-learn's MLPs as MLPs: ``open_sklearn``."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.models.chain import Chain, Parameter, Value, refusal
from metaedit_fast.models.opened import Arrays, Opened

_ACTIVATIONS = {"identity": "identity", "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}
_SCALERS = ("StandardScaler", "MinMaxScaler", "MaxAbsScaler")


class OpenedSklearn(Opened[Any]):
    """An estimator that was read as an MLP; keys of slots are ``coefs_.0``, ``intercepts_.0`` and so on."""

    kind = "sklearn"

    def _arrays(self) -> Arrays:
        network = _network(self.model)
        return {slot.key: getattr(network, slot.key.split(".")[0])[slot.layer] for slot in self.slots}

    def _copy(self) -> Any:
        return copy.deepcopy(self.model)

    def _assign(self, model: Any, arrays: Arrays) -> None:
        network = _network(model)
        for slot in self.slots:
            # Replaced, not overwritten: memory-mapped estimators have arrays that are read-only.
            getattr(network, slot.key.split(".")[0])[slot.layer] = arrays[slot.key].copy()


def open_sklearn(estimator: Any) -> OpenedSklearn:
    """Read a fitted ``MLPClassifier`` or ``MLPRegressor``, or a ``Pipeline`` that ends in one.

    Steps of a pipeline in front may be ``StandardScaler``, ``MinMaxScaler``, ``MaxAbsScaler`` or
    ``"passthrough"``; they become the MLP's fixed normalisation of the inputs. ``write`` gives a deep
    copy with other ``coefs_`` and ``intercepts_`` and all other fitted attributes as they were.
    Raises ``UnsupportedModelError`` for anything else, naming the step.
    """
    steps = _steps(estimator)
    chain = Chain()
    value = chain.value
    for name, step in steps[:-1]:
        value = _scaler(chain, value, step, f"step {name!r} ({type(step).__name__})")
    name, network = steps[-1]
    where = f"step {name!r} ({type(network).__name__})" if len(steps) > 1 else type(network).__name__
    _require_mlp(network, where)
    last = len(network.coefs_) - 1
    for i, (weights, biases) in enumerate(zip(network.coefs_, network.intercepts_, strict=True)):
        weight, bias = Parameter(f"coefs_.{i}", weights), Parameter(f"intercepts_.{i}", biases)
        value = chain.linear(value, weight, bias, transpose=False, where=f"{where}, layer {i}")
        if i < last:
            value = chain.activation(value, _ACTIVATIONS[network.activation], where=f"{where}, layer {i}")
    match network.out_activation_:
        case "softmax":
            value = chain.softmax(value, where=where)
        case "logistic":
            value = chain.activation(value, "sigmoid", where=where)
        case "identity":
            chain.output = "identity"
        case other:
            raise refusal(where, "an output of identity, logistic or softmax", other)
    mlp, slots = chain.finish(value, where=where)
    scalers = [f"step {name!r} is the normalisation of the inputs" for name, step in steps[:-1] if _transforms(step)]
    return OpenedSklearn(estimator, mlp, slots, tuple(scalers))


def _steps(estimator: Any) -> list[tuple[str, Any]]:
    from sklearn.pipeline import Pipeline

    if not isinstance(estimator, Pipeline):
        return [("", estimator)]
    if len(estimator.steps) == 0:
        raise refusal("Pipeline", "at least one step")
    return [*estimator.steps]


def _network(estimator: Any) -> Any:
    return _steps(estimator)[-1][1]


def _require_mlp(network: Any, where: str) -> None:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    if type(network) not in (MLPClassifier, MLPRegressor):
        hint = "; pass the fitted MLP inside" if hasattr(network, "predict") else ""
        raise refusal(where, "an MLPClassifier or MLPRegressor", type(network).__name__ + hint)
    if not hasattr(network, "coefs_"):
        raise refusal(where, "a fitted estimator", "one without coefs_")
    if isinstance(network, MLPClassifier) and network.out_activation_ == "logistic" and network.n_outputs_ > 1:
        raise refusal(where, "one label per row", f"a multi-label classifier with {network.n_outputs_} labels")


def _transforms(step: Any) -> bool:
    return step is not None and step != "passthrough"


def _scaler(chain: Chain, value: Value, step: Any, where: str) -> Value:
    if not _transforms(step):
        return value
    if type(step).__name__ not in _SCALERS or not type(step).__module__.startswith("sklearn."):
        expected = f"one of {', '.join(_SCALERS)} in front of the MLP"
        raise refusal(where, expected, f"{type(step).__name__}; pass the last step alone and transform the rows before")
    if not hasattr(step, "n_features_in_"):
        raise refusal(where, "a fitted scaler", "one that is not")
    if getattr(step, "clip", False):
        raise refusal(where, "a scaler without clipping", "clip=True")
    ones, zeros = np.ones(step.n_features_in_), np.zeros(step.n_features_in_)
    if type(step).__name__ == "MinMaxScaler":
        return chain.affine(value, _float64(step.scale_), _float64(step.min_), None, where=where)
    # StandardScaler leaves out what it was told not to do; MaxAbsScaler has no mean.
    scale = ones if step.scale_ is None else 1.0 / _float64(step.scale_)
    mean = getattr(step, "mean_", None) if getattr(step, "with_mean", False) else None
    shift = zeros if mean is None else -_float64(mean) * scale
    return chain.affine(value, scale, shift, None, where=where)


def _float64(array: Any) -> NDArray[np.float64]:
    return np.asarray(array, np.float64)
