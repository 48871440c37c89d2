"""A scikit-learn MLP cut down to what stays of it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.models.compaction.plan import Indices, Plan
from metaedit_fast.models.sklearn import has_steps_in_front


def cut_sklearn(estimator: Any, plan: Plan) -> Any:
    """A deep copy with fewer neurons and, where ``plan`` drops some, fewer inputs; biases are as they were.

    ``hidden_layer_sizes``, ``coefs_``, ``intercepts_`` and ``n_features_in_`` follow, and so do scalers in front
    and ``feature_names_in_``. The state of the optimiser is dropped: ``partial_fit`` begins with a new one.

    Raises ``UnsupportedModelError`` where inputs are dropped that other steps of a pipeline give.
    """
    if plan.inputs_removed and has_steps_in_front(estimator):
        raise UnsupportedModelError("the steps in front of the MLP give all of its inputs, so none can be dropped")
    result = copy.deepcopy(estimator)
    steps = [step for _, step in result.steps] if hasattr(result, "steps") else [result]
    network = steps[-1]
    pairs = list(zip(plan.kept[:-1], plan.kept[1:], strict=True))
    network.coefs_ = [w[np.ix_(n_in, n_out)] for w, (n_in, n_out) in zip(network.coefs_, pairs, strict=True)]
    network.intercepts_ = [b[n_out] for b, (_, n_out) in zip(network.intercepts_, pairs, strict=True)]
    network.hidden_layer_sizes = tuple(plan.mlp.spec.widths[1:-1])
    for name in ("_optimizer", "_coef_grads", "_intercept_grads", "_best_coefs", "_best_intercepts"):
        network.__dict__.pop(name, None)
    if plan.inputs_removed:
        for step in steps:
            if hasattr(step, "n_features_in_"):
                _keep_features(step, plan.kept[0])
    return result


def _keep_features(step: Any, kept: Indices) -> None:
    for name, value in vars(step).items():
        if isinstance(value, np.ndarray) and value.shape == (step.n_features_in_,) and name != "classes_":
            setattr(step, name, value[kept])
    step.n_features_in_ = len(kept)
