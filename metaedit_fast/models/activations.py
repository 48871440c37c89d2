"""Activation functions and their derivatives, in numpy.

``apply(name, z, alpha)`` and ``derivative(name, z, alpha)`` keep the dtype of ``z``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metaedit_fast import _core

_SQRT_HALF = 0.7071067811865476
_INV_SQRT_2PI = 0.3989422804014327
_GELU_TANH_SCALE = 0.7978845608028654
_GELU_TANH_CUBE = 0.044715

Array = NDArray[np.floating]


def sigmoid(z: Array) -> Array:
    """Logistic function; never overflows."""
    half = z.dtype.type(0.5)
    return np.asarray(half * (np.tanh(half * z) + 1))


def _normal_cdf(z: Array) -> Array:
    return np.asarray(0.5 * (1 + _core.erf(z * z.dtype.type(_SQRT_HALF))), dtype=z.dtype)


def _gelu_tanh_inner(z: Array) -> Array:
    return np.tanh(z.dtype.type(_GELU_TANH_SCALE) * (z + z.dtype.type(_GELU_TANH_CUBE) * z**3))


def apply(name: str, z: Array, alpha: float = 0.0) -> Array:
    """The activation ``name`` (one of ``spec.ACTIVATIONS``) of an array of any shape."""
    match name:
        case "identity":
            return z
        case "relu":
            return np.maximum(z, 0)
        case "leaky_relu":
            return np.where(z > 0, z, z.dtype.type(alpha) * z)
        case "relu6":
            return np.clip(z, 0, 6)
        case "elu":
            return np.where(z > 0, z, z.dtype.type(alpha) * np.expm1(np.minimum(z, 0)))
        case "tanh":
            return np.tanh(z)
        case "sigmoid":
            return sigmoid(z)
        case "silu":
            return z * sigmoid(z)
        case "gelu":
            return z * _normal_cdf(z)
        case "gelu_tanh":
            return np.asarray(z.dtype.type(0.5) * z * (1 + _gelu_tanh_inner(z)))
    raise ValueError(f"unknown activation {name!r}")


def derivative(name: str, z: Array, alpha: float = 0.0) -> Array:
    """The derivative of activation ``name`` at ``z``; at a kink the value from the left."""
    one = z.dtype.type(1)
    match name:
        case "identity":
            return np.ones_like(z)
        case "relu":
            return (z > 0).astype(z.dtype)
        case "leaky_relu":
            return np.where(z > 0, one, z.dtype.type(alpha))
        case "relu6":
            return ((z > 0) & (z < 6)).astype(z.dtype)
        case "elu":
            return np.where(z > 0, one, z.dtype.type(alpha) * np.exp(np.minimum(z, 0)))
        case "tanh":
            return 1 - np.tanh(z) ** 2
        case "sigmoid":
            s = sigmoid(z)
            return s * (1 - s)
        case "silu":
            s = sigmoid(z)
            return s * (1 + z * (1 - s))
        case "gelu":
            density = z.dtype.type(_INV_SQRT_2PI) * np.exp(-z.dtype.type(0.5) * z * z)
            return _normal_cdf(z) + z * density
        case "gelu_tanh":
            t = _gelu_tanh_inner(z)
            slope = z.dtype.type(_GELU_TANH_SCALE) * (1 + z.dtype.type(3 * _GELU_TANH_CUBE) * z * z)
            return np.asarray(z.dtype.type(0.5) * (1 + t + z * (1 - t * t) * slope))
    raise ValueError(f"unknown activation {name!r}")
