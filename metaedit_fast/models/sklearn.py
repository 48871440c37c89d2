"""scikit-learn's MLPs as MLPs: ``open_sklearn``."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.models.chain import Chain, Parameter, Value, refusal
from metaedit_fast.models.opened import Arrays, Opened

_ACTIVATIONS = {"identity": "identity", "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}
_SCALERS = ("StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler")


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

    Where all steps in front are ``StandardScaler``, ``MinMaxScaler``, ``MaxAbsScaler``, ``RobustScaler`` (none of
    them clipping) or ``"passthrough"``, they become the MLP's fixed normalisation of the inputs. Where any is
    something else, all steps stay in front: the MLP is that of the last step alone, its rows are what the steps
    give (``pipeline[:-1].transform(X)``), and a note says so.

    ``write`` gives a deep copy with other ``coefs_`` and ``intercepts_`` and all other fitted attributes as they
    were. Raises ``UnsupportedModelError`` for anything else, naming the step.
    """
    steps = _steps(estimator)
    chain = Chain()
    value = chain.value
    front = [(name, step) for name, step in steps[:-1] if _transforms(step)]
    for name, step in front:
        _require_fitted(step, _place(name, step))
    if not has_steps_in_front(estimator):
        for name, step in front:
            value = _scaler(chain, value, step, _place(name, step))
        notes = [f"step {name!r} is the normalisation of the inputs" for name, _ in front]
    else:
        names = ", ".join(f"{name!r} ({type(step).__name__})" for name, step in front)
        notes = [f"the steps {names} stay in front; the rows are what they give, pipeline[:-1].transform(X)"]
    name, network = steps[-1]
    where = _place(name, network) if len(steps) > 1 else type(network).__name__
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
    return OpenedSklearn(estimator, mlp, slots, tuple(notes))


def has_steps_in_front(estimator: Any) -> bool:
    """Whether the MLP read from ``estimator`` takes what steps in front of it give, not the estimator's own rows."""
    return not all(_is_affine(step) for _, step in _steps(estimator)[:-1] if _transforms(step))


def _place(name: str, step: Any) -> str:
    return f"step {name!r} ({type(step).__name__})"


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


def _require_fitted(step: Any, where: str) -> None:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    if not hasattr(step, "transform"):
        raise refusal(where, "a transformer in front of the MLP", type(step).__name__)
    try:
        check_is_fitted(step)
    except NotFittedError as error:
        raise refusal(where, "a fitted transformer", "one that is not") from error


def _is_affine(step: Any) -> bool:
    """Whether ``step`` is a scale and shift of each column, and of a class that we know."""
    known = type(step).__name__ in _SCALERS and type(step).__module__.startswith("sklearn.")
    return known and not getattr(step, "clip", False)


def _scaler(chain: Chain, value: Value, step: Any, where: str) -> Value:
    ones, zeros = np.ones(step.n_features_in_), np.zeros(step.n_features_in_)
    if type(step).__name__ == "MinMaxScaler":
        return chain.affine(value, _float64(step.scale_), _float64(step.min_), None, where=where)
    # StandardScaler and RobustScaler leave out what they were told not to do; MaxAbsScaler has no centre.
    scale = ones if step.scale_ is None else 1.0 / _float64(step.scale_)
    centre = getattr(step, "center_", None)
    if getattr(step, "with_mean", False):
        centre = step.mean_
    shift = zeros if centre is None else -_float64(centre) * scale
    return chain.affine(value, scale, shift, None, where=where)


def _float64(array: Any) -> NDArray[np.float64]:
    return np.asarray(array, np.float64)
