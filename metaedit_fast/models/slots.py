"""Where the parameters of an MLP live inside a foreign model, and how values travel both ways.

Every adapter reads a foreign model into an ``MLP`` and a list of slots. Writing back replaces only
the values that an edit really changed: an untouched parameter keeps its original bits, whatever its
dtype, layout or folded normalisation, so a round trip is exact by construction.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.models.mlp import MLP


@dataclasses.dataclass(frozen=True)
class Slot:
    """One parameter of the MLP held by one foreign array.

    ``kind`` and ``layer`` name the MLP's parameter (``MLPSpec.parameter_slices``), ``key`` the
    foreign array. The MLP's value is ``stored * scale + shift``, ``stored`` transposed first where
    ``transpose`` says so; ``scale`` and ``shift`` (float64, broadcastable to the parameter's shape)
    carry what was folded into it, such as a batch norm in evaluation.

    ``offset`` (float64 ``[n_in]``, of a bias only) is a constant that the model adds to the inputs of
    this layer: the MLP's bias then holds ``offset @ weight`` too, with the weights as they are stored.
    """

    kind: str
    layer: int
    key: str
    transpose: bool = False
    scale: float | NDArray[np.float64] = 1.0
    shift: float | NDArray[np.float64] = 0.0
    offset: NDArray[np.float64] | None = None

    def exact(self, stored: NDArray[np.generic], shape: tuple[int, ...]) -> NDArray[np.float64]:
        """The MLP's value of this slot before it is rounded, what ``offset`` adds left out.

        ``stored`` is broadcast to ``shape`` where it is smaller.
        """
        oriented = stored.T if self.transpose else stored
        if oriented.size == int(np.prod(shape)):
            oriented = oriented.reshape(shape)
        with np.errstate(invalid="ignore", over="ignore"):  # a non-finite model is told apart later, by its θ
            return np.broadcast_to(oriented.astype(np.float64) * self.scale + self.shift, shape)

    def load(
        self, stored: NDArray[np.generic], shape: tuple[int, ...], carried: float | NDArray[np.float64] = 0.0
    ) -> NDArray[np.float32]:
        """The MLP's value of this slot; ``carried`` is what ``offset`` adds."""
        with np.errstate(invalid="ignore", over="ignore"):
            return (self.exact(stored, shape) + carried).astype(np.float32)

    def store(
        self,
        value: NDArray[np.float32],
        stored: NDArray[np.generic],
        carried: float | NDArray[np.float64] = 0.0,
        carried_before: float | NDArray[np.float64] = 0.0,
    ) -> NDArray[np.generic]:
        """A new foreign array that holds ``value``; elements that did not change keep their bits.

        ``carried`` and ``carried_before`` are the offset's part under the new and the old weights.
        The result has the dtype of ``stored``, and its shape unless a broadcast array had to grow.
        Raises ``UnsupportedModelError`` where a changed element is multiplied by an exact zero, or does
        not fit the dtype.
        """
        before = self.load(stored, value.shape, carried_before)
        # By value: +0 and -0 are the same weight, and a NaN that stayed a NaN did not change.
        same = (before == value) | (np.isnan(before) & np.isnan(value))
        changed = ~same | (np.asarray(carried) != carried_before)
        if not changed.any():
            return stored
        scale = np.broadcast_to(np.asarray(self.scale, np.float64), value.shape)
        if (changed & (scale == 0)).any():
            raise UnsupportedModelError(
                f"{self.key}: an edit of the {self.kind} of layer {self.layer} cannot be written back, because the "
                "model multiplies it by a normalisation scale that is exactly 0"
            )
        wanted = (value.astype(np.float64) - self.shift - carried) / np.where(scale == 0, 1.0, scale)
        oriented = stored.T if self.transpose else stored
        if oriented.size == value.size:
            oriented = oriented.reshape(value.shape)
        with np.errstate(over="ignore"):
            cast = wanted.astype(stored.dtype)
        if (changed & np.isfinite(value) & ~np.isfinite(cast)).any():
            raise UnsupportedModelError(
                f"{self.key}: an edit of the {self.kind} of layer {self.layer} does not fit {stored.dtype}"
            )
        result = np.where(changed, cast, np.broadcast_to(oriented, value.shape))
        result = result.T if self.transpose else result
        return np.ascontiguousarray(result.reshape(stored.shape) if result.size == stored.size else result)


def fill(mlp: MLP, slots: list[Slot], arrays: dict[str, NDArray[np.generic]]) -> None:
    """Load every slot into θ, in place."""
    for slot in slots:
        target = mlp.parameter(slot.kind, slot.layer)
        target[...] = slot.load(arrays[slot.key], target.shape, _carried(slot, mlp, slots, arrays))


def collect(mlp: MLP, slots: list[Slot], arrays: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    """The foreign arrays that hold θ: every slot's key, with unchanged arrays passed through as they are."""
    written: dict[str, NDArray[np.generic]] = {}
    for slot in sorted(slots, key=lambda slot: slot.offset is not None):  # an offset follows the written weights
        before, after = (_carried(slot, mlp, slots, held) for held in (arrays, written))
        value = mlp.parameter(slot.kind, slot.layer)
        written[slot.key] = slot.store(value, arrays[slot.key], after, before)
    return written


def _carried(
    slot: Slot, mlp: MLP, slots: list[Slot], arrays: dict[str, NDArray[np.generic]]
) -> float | NDArray[np.float64]:
    """What the constant ``offset`` of the inputs adds to this slot's value."""
    if slot.offset is None:
        return 0.0
    shape = mlp.weight(slot.layer).shape
    weight = next(other for other in slots if (other.kind, other.layer) == ("weight", slot.layer))
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(slot.offset @ weight.exact(arrays[weight.key], shape))
