"""How much of a model an edit preserves: Jensen-Shannon divergence of its predictions, and accuracy."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metaedit_fast.models.mlp import MLP, Floats, log_proba_of

LN2 = math.log(2.0)
# Log-probability differences beyond this change neither the divergence nor its gradient in float64,
# while the hyperbolic functions and exp below are still far from overflow.
_FAR = 700.0


def jsd(log_p: ArrayLike, log_q: ArrayLike) -> NDArray[np.float64]:
    """Jensen-Shannon divergence of each row, in nats: ``[rows]``, between 0 and ln 2.

    ``log_p`` and ``log_q`` are log-probabilities ``[rows, classes]``; a probability of 0 (``-inf``)
    is allowed. Equal rows give exactly 0. The result is as good as the inputs' own rounding, also
    for divergences far below the rounding of a probability (see ``_middle_and_difference``).

    Equivalent to: ``(kl(p, m) + kl(q, m)) / 2`` with ``m = (p + q) / 2`` (Lin 1991).
    Raises ``ValueError`` where the shapes differ.
    """
    middle, difference = _middle_and_difference(log_p, log_q)
    return _divergence(middle, difference)


def jsd_gradient(log_p: ArrayLike, logits_q: Floats) -> Floats:
    """Gradient of the mean JSD over rows with respect to ``logits_q [rows, n_outputs]``, same shape and dtype.

    ``log_p`` is ``[rows, classes]``; a single output stands for the two classes of logits (0, z).
    """
    return jsd_with_gradient(log_p, logits_q)[1]


def jsd_with_gradient(log_p: ArrayLike, logits_q: Floats) -> tuple[NDArray[np.float64], Floats]:
    """``(jsd(log_p, log_proba_of(logits_q)), jsd_gradient(log_p, logits_q))`` at the cost of one."""
    log_q = log_proba_of(logits_q)
    middle, difference = _middle_and_difference(log_p, log_q)
    # d JSD / d q_c = ½ ln(q_c / m_c) = ½ ln(2 / (1 + e^-d)), then through the softmax.
    slope = 0.5 * (LN2 - np.logaddexp(0.0, -difference))
    q = np.exp(log_q, dtype=np.float64)
    gradient = q * (slope - (q * slope).sum(axis=-1, keepdims=True)) / max(1, len(q))
    return _divergence(middle, difference), gradient[:, -logits_q.shape[-1] :].astype(logits_q.dtype)


def mean_jsd(original: MLP, edited: MLP, x: ArrayLike) -> float:
    """Mean over rows ``x [rows, n_inputs]`` of the JSD of both models' predictions, in nats."""
    return float(jsd(original.log_proba(x), edited.log_proba(x)).mean())


def accuracy(mlp: MLP, x: ArrayLike, y: ArrayLike) -> float:
    """Fraction of rows whose most probable class is the label ``y [rows]``.

    Raises ``ValueError`` where ``x`` and ``y`` differ in length.
    """
    labels = np.asarray(y)
    predicted = mlp.predict(x)
    if labels.shape != predicted.shape:
        raise ValueError(f"y: expected shape {predicted.shape}, got {labels.shape}")
    return float(np.mean(predicted == labels))


def _middle_and_difference(log_p: ArrayLike, log_q: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``m = (p + q) / 2`` and ``d = ln q - ln p``, in float64.

    With ``x = (q - p) / (q + p) = tanh(d / 2)`` the divergence is ``Σ ½ m f(d)``, where
    ``f = (1 - x) ln(1 - x) + (1 + x) ln(1 + x) = d tanh(d/2) - 2 ln cosh(d/2)``. Near 0 it is
    ``d² / 4``, computed without the cancellation of ``p ln(p/m) + q ln(q/m)``, whose terms are of
    order d.
    """
    a, b = np.asarray(log_p, dtype=np.float64), np.asarray(log_q, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"log_q: expected shape {a.shape} as log_p, got {b.shape}")
    middle = 0.5 * (np.exp(a) + np.exp(b))
    with np.errstate(invalid="ignore"):
        difference = np.where(a == b, 0.0, b - a)
    return middle, np.clip(difference, -_FAR, _FAR)


def _divergence(middle: NDArray[np.float64], difference: NDArray[np.float64]) -> NDArray[np.float64]:
    log_cosh = np.log1p(2.0 * np.square(np.sinh(0.25 * difference)))
    f = difference * np.tanh(0.5 * difference) - 2.0 * log_cosh
    # Probabilities that add up to a little over 1 must not lead past the bound.
    return np.asarray(np.minimum(0.5 * (middle * f).sum(axis=-1), LN2))
