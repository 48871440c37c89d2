"""Which neurons and inputs of an MLP have no effect, and the smaller MLP without them.

A hidden neuron can go for two reasons. It is *dead* where no path of weights that are not zero leads from it
to an output. It is *constant* where none leads to it from an input that varies; what it gives, computed in
float64, then moves into the biases behind it.

Two things keep such a neuron where it is. A layer norm takes mean and variance over its whole layer, so
its neurons stay unless the layer as a whole is without effect. And a skip ties the neurons of its two layers
by their place, so tied neurons (a *strand* of ``models.symmetry``) go together or not at all; a skip that
carries nothing is dropped first, and ties nothing. Every layer keeps at least one neuron.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.models import activations
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec
from metaedit_fast.models.symmetry import strands_at

Bools = NDArray[np.bool_]
Float64s = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What stays of one MLP.

    ``before`` is its architecture, ``mlp`` the network of what stays. ``kept[t]`` are the neurons of neuron layer
    ``t`` that stay, ascending; inputs are layer 0.
    """

    before: MLPSpec
    mlp: MLP
    kept: tuple[Indices, ...]

    @property
    def is_identity(self) -> bool:
        """Whether nothing goes, neither neurons nor skips."""
        return self.before == self.mlp.spec

    @property
    def inputs_removed(self) -> int:
        return self.before.n_inputs - self.mlp.spec.n_inputs

    @property
    def neurons_removed(self) -> int:
        """Hidden neurons that go."""
        return sum(self.before.widths) - sum(self.mlp.spec.widths) - self.inputs_removed


def plan_of(mlp: MLP, *, drop_inputs: bool = False) -> Plan:
    """What of ``mlp`` stays; inputs without effect go only with ``drop_inputs``, and one always stays.

    Raises ``UnsupportedModelError`` where θ or the normalisation is not finite: nothing can be folded then.
    """
    normalisation = [part for part in (mlp.input_scale, mlp.input_shift) if part is not None]
    if not mlp.is_finite or not all(np.isfinite(part).all() for part in normalisation):
        raise UnsupportedModelError("parameters: expected finite numbers, got some that are not")
    plan = Plan(mlp.spec, mlp, tuple(np.arange(width) for width in mlp.spec.widths))
    while True:  # what was folded may leave a skip without effect, which tied neurons before
        with np.errstate(over="ignore", invalid="ignore"):
            further = _Analysis(plan.mlp).plan(drop_inputs=drop_inputs)
        if further.is_identity:
            break
        kept = tuple(before[after] for before, after in zip(plan.kept, further.kept, strict=True))
        plan = Plan(mlp.spec, further.mlp, kept)
    if not plan.mlp.is_finite:
        raise UnsupportedModelError("folded biases: expected numbers that float32 can hold, got larger ones")
    return plan


class _Analysis:
    """Constants from the inputs forwards, use from the outputs backwards; lists go by neuron layer."""

    def __init__(self, mlp: MLP) -> None:
        self.mlp, self.spec = mlp, mlp.spec
        self.skips = list(mlp.spec.skips)
        self.part = {(kind, i): view.astype(np.float64) for kind, i, view in mlp.parameters()}
        self.constant: list[Bools] = []
        self.value: list[Float64s] = []  # of constant neurons; 0 elsewhere
        self.normed: dict[int, Float64s] = {}  # by neuron layer: what a constant layer norm gives
        self.active: list[Bools] = []
        self._find_constants()
        self._find_active()
        self._drop_idle_skips()

    def _find_constants(self) -> None:
        scale, shift = self.mlp.input_scale, self.mlp.input_shift
        still = np.zeros(self.spec.n_inputs, np.bool_) if scale is None else scale == 0
        self.constant.append(still)
        self.value.append(np.where(still, 0.0 if shift is None else shift.astype(np.float64), 0.0))
        for i, layer in enumerate(self.spec.layers):
            weight = self.part["weight", i]
            constant = ~(weight[~self.constant[i]] != 0).any(axis=0)
            z = self.value[i] @ weight + self.part["bias", i]
            if layer.norm == "layer":
                scale_, shift_ = self.part["norm_scale", i], self.part["norm_shift", i]
                if constant.all():
                    centred = z - z.mean()
                    z = centred / np.sqrt((centred * centred).mean() + layer.eps) * scale_ + shift_
                    self.normed[i + 1] = z
                else:
                    constant, z = scale_ == 0, shift_
            z = z.copy()
            for source in self.spec.skips_into(i + 1):
                shared = min(self.spec.widths[source], layer.width)
                constant[:shared] &= self.constant[source][:shared]
                z[:shared] += self.value[source][:shared]
            self.constant.append(constant)
            self.value.append(np.where(constant, activations.apply(layer.activation, z, layer.alpha), 0.0))

    def _find_active(self) -> None:
        """Neurons that vary and on which an output depends."""
        used = [np.zeros(width, np.bool_) for width in self.spec.widths]
        used[-1][:] = True
        for i, layer in reversed(list(enumerate(self.spec.layers))):
            active = used[i + 1] & ~self.constant[i + 1]
            linear = active
            if layer.norm == "layer":  # its mean and variance take in the whole layer
                linear = np.full(layer.width, (active & (self.part["norm_scale", i] != 0)).any())
            used[i] |= (self.part["weight", i][:, linear] != 0).any(axis=1)
            for source in self.spec.skips_into(i + 1):
                shared = min(self.spec.widths[source], layer.width)
                used[source][:shared] |= active[:shared]
        self.active = [u & ~c for u, c in zip(used, self.constant, strict=True)]

    def _drop_idle_skips(self) -> None:
        """Skips that carry nothing but constants, or only to neurons without effect; constants go into the shift."""
        for source, target in self.spec.skips:
            shared = min(self.spec.widths[source], self.spec.widths[target])
            carries = ~self.constant[source][:shared] & self.active[target][:shared]
            layer = self.spec.layers[target - 1]
            is_norm = layer.norm == "layer"
            value = self.value[source][:shared]
            if not carries.any() and (not value.any() or (layer.norm_affine if is_norm else layer.bias)):
                self.part["norm_shift" if is_norm else "bias", target - 1][:shared] += value
                if target in self.normed:
                    self.normed[target][:shared] += value
                self.skips.remove((source, target))

    def plan(self, *, drop_inputs: bool) -> Plan:
        spec = dataclasses.replace(self.spec, skips=tuple(self.skips))
        keeps = self._kept(spec, drop_inputs=drop_inputs)
        layers = []
        for i, layer in enumerate(spec.layers):
            gone = ~keeps[i] & self.constant[i]
            folded = self.value[i][gone] @ self.part["weight", i][gone]
            self.part["bias", i] += folded
            if layer.norm == "layer" and not keeps[i + 1].all():
                # Without effect as a whole, or constant: what is left of it gives the same without its mean.
                self.part["norm_scale", i][:] = 0.0
                self.part["norm_shift", i] = self.normed.get(i + 1, self.part["norm_shift", i])
            width = int(np.count_nonzero(keeps[i + 1]))
            layers.append(dataclasses.replace(layer, width=width, bias=layer.bias or bool(folded[keeps[i + 1]].any())))
        smaller = MLPSpec(int(np.count_nonzero(keeps[0])), tuple(layers), spec.skips, spec.output)
        normalisation = [None if v is None else v[keeps[0]] for v in (self.mlp.input_scale, self.mlp.input_shift)]
        result = MLP(smaller, np.zeros(smaller.n_parameters, np.float32), *normalisation)
        for kind, i, view in result.parameters():
            value = self.part[kind, i]
            view[...] = (value[keeps[i]] if kind == "weight" else value)[..., keeps[i + 1]]
        return Plan(self.spec, result, tuple(np.flatnonzero(k) for k in keeps))

    def _kept(self, spec: MLPSpec, *, drop_inputs: bool) -> list[Bools]:
        """What stays in each neuron layer."""
        keeps = [active.copy() for active in self.active]
        keeps[-1][:] = True
        if not drop_inputs:
            keeps[0][:] = True
        for t, layer in enumerate(spec.layers[:-1], start=1):
            if layer.norm == "layer" and (keeps[t].any() or not layer.norm_affine):
                keeps[t][:] = True
        strands = [(k, strand) for k in range(max(spec.widths)) for strand in strands_at(spec, k)]
        for k, strand in strands:
            if any(keeps[t][k] for t in strand):
                _keep(keeps, k, strand)
        for t, keep in enumerate(keeps):
            if not keep.any():
                _keep(keeps, *min((s for s in strands if t in s[1]), key=lambda s: len(s[1])))
        return keeps


def _keep(keeps: list[Bools], k: int, strand: tuple[int, ...]) -> None:
    for t in strand:
        keeps[t][k] = True
