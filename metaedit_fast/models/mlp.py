"""A trained MLP: an architecture and one contiguous float32 vector of parameters θ."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metaedit_fast.models import activations
from metaedit_fast.models.spec import MLPSpec

Floats = NDArray[np.floating]


class MLP:
    """One trained MLP.

    ``theta`` is float32 ``[spec.n_parameters]`` in the order of ``MLPSpec.parameter_slices``.
    ``input_scale`` and ``input_shift`` (float32 ``[n_inputs]`` or None) are a fixed normalisation
    ``x * scale + shift`` in front of the network; it is no parameter and no edit touches it.

    Raises ``ValueError`` where a length does not fit the spec. θ may hold non-finite values; see
    ``is_finite``.
    """

    __slots__ = ("input_scale", "input_shift", "spec", "theta")

    def __init__(
        self,
        spec: MLPSpec,
        theta: ArrayLike,
        input_scale: ArrayLike | None = None,
        input_shift: ArrayLike | None = None,
    ) -> None:
        self.spec = spec
        self.theta = np.ascontiguousarray(theta, dtype=np.float32)
        if self.theta.shape != (spec.n_parameters,):
            raise ValueError(f"theta: expected shape ({spec.n_parameters},), got {self.theta.shape}")
        self.input_scale = _per_input("input_scale", input_scale, spec)
        self.input_shift = _per_input("input_shift", input_shift, spec)

    def parameters(self) -> Iterator[tuple[str, int, NDArray[np.float32]]]:
        """``(kind, layer, view)`` of every parameter, as views into θ; see ``MLPSpec.parameter_slices``."""
        for kind, layer, where, shape in self.spec.parameter_slices:
            yield kind, layer, self.theta[where].reshape(shape)

    def parameter(self, kind: str, layer: int) -> NDArray[np.float32]:
        """A view of one parameter. Raises ``KeyError`` where the spec has none such."""
        for name, index, where, shape in self.spec.parameter_slices:
            if index == layer and name == kind:
                return self.theta[where].reshape(shape)
        raise KeyError(f"this MLP has no {kind} in layer {layer}")

    def weight(self, layer: int) -> NDArray[np.float32]:
        """The weights of ``spec.layers[layer]``, ``[n_in, n_out]``, as a view."""
        return self.parameter("weight", layer)

    def bias(self, layer: int) -> NDArray[np.float32]:
        """The biases of ``spec.layers[layer]``, ``[n_out]``, as a view."""
        return self.parameter("bias", layer)

    @property
    def is_finite(self) -> bool:
        return bool(np.isfinite(self.theta).all())

    @property
    def sparsity(self) -> float:
        """Fraction of the weights that are exactly zero; biases and norm parameters are not counted."""
        return 1.0 - np.count_nonzero(self.theta[: self.spec.n_weights]) / self.spec.n_weights

    def replace(self, theta: ArrayLike) -> MLP:
        """The same network with other parameters."""
        return MLP(self.spec, theta, self.input_scale, self.input_shift)

    def without_normalisation(self) -> MLP:
        """The network behind the input normalisation, whose rows are what the first layer receives."""
        return MLP(self.spec, self.theta)

    def normalised(self, x: ArrayLike, dtype: type[np.floating] = np.float32) -> Floats:
        """Rows as the first layer receives them: ``[rows, n_inputs]`` of ``dtype``.

        Raises ``ValueError`` unless ``x`` is ``[rows, n_inputs]``.
        """
        rows = np.asarray(x, dtype=dtype)
        if rows.ndim != 2 or rows.shape[1] != self.spec.n_inputs:
            raise ValueError(f"x: expected shape [rows, {self.spec.n_inputs}], got {rows.shape}")
        if self.input_scale is not None:
            rows = rows * self.input_scale.astype(dtype)
        if self.input_shift is not None:
            rows = rows + self.input_shift.astype(dtype)
        return rows

    def logits(self, x: ArrayLike, dtype: type[np.floating] = np.float32) -> Floats:
        """What the last layer gives, ``[rows, n_outputs]``, before any softmax or sigmoid.

        float32 runs on the compiled kernels, other precisions in numpy.
        """
        from metaedit_fast.models import backprop, native

        return native.logits(self, x) if dtype is np.float32 else backprop.trace(self, x, dtype).outputs[-1]

    def forward(self, x: ArrayLike, dtype: type[np.floating] = np.float32) -> Floats:
        """What the model gives for rows ``[rows, n_inputs]``: ``[rows, n_outputs]``.

        Logits, probabilities, their logarithms or values, as ``spec.output`` says. ``dtype`` is the precision of the
        arithmetic.
        """
        logits = self.logits(x, dtype)
        if self.spec.output == "softmax":
            return np.exp(log_softmax(logits))
        if self.spec.output == "log_softmax":
            return log_softmax(logits)
        if self.spec.output == "sigmoid":
            return activations.sigmoid(logits)
        return logits

    def log_proba(self, x: ArrayLike, dtype: type[np.floating] = np.float32) -> Floats:
        """Log-probabilities ``[rows, classes]``; one output stands for two classes with logits (0, z)."""
        from metaedit_fast.models import native

        return native.log_proba(self, x) if dtype is np.float32 else log_proba_of(self.logits(x, dtype))

    def predict(self, x: ArrayLike) -> NDArray[np.intp]:
        """The class of each row's largest logit, the first of equals; for one output, is it above 0."""
        logits = self.logits(x)
        return np.asarray(logits[:, 0] > 0 if logits.shape[1] == 1 else np.argmax(logits, axis=1), np.intp)

    def content_hash(self) -> str:
        """sha256 over architecture, parameters and normalisation, in hex."""
        digest = hashlib.sha256(self.spec.to_json().encode())
        for part in (self.theta, self.input_scale, self.input_shift):
            digest.update(b"-" if part is None else part.tobytes())
        return digest.hexdigest()

    def __repr__(self) -> str:
        widths = "-".join(map(str, self.spec.widths))
        return f"MLP({widths}, {self.spec.n_weights} weights)"


def log_softmax(logits: Floats) -> Floats:
    """Row-wise log-softmax of ``[..., classes]``, stable for saturated logits."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def log_proba_of(logits: Floats) -> Floats:
    """Log-probabilities of ``[rows, n_outputs]`` logits; one output stands for two classes (0, z)."""
    if logits.shape[-1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=-1)
    return log_softmax(logits)


def _per_input(name: str, value: ArrayLike | None, spec: MLPSpec) -> NDArray[np.float32] | None:
    if value is None:
        return None
    array = np.ascontiguousarray(value, dtype=np.float32)
    if array.shape != (spec.n_inputs,):
        raise ValueError(f"{name}: expected shape ({spec.n_inputs},), got {array.shape}")
    return array
