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
    """

    kind: str
    layer: int
    key: str
    transpose: bool = False
    scale: float | NDArray[np.float64] = 1.0
    shift: float | NDArray[np.float64] = 0.0

    def load(self, stored: NDArray[np.generic], shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The MLP's value of this slot; ``stored`` is broadcast to ``shape`` where it is smaller."""
        oriented = stored.T if self.transpose else stored
        if oriented.size == int(np.prod(shape)):
            oriented = oriented.reshape(shape)
        value = oriented.astype(np.float64) * self.scale + self.shift
        return np.ascontiguousarray(np.broadcast_to(value, shape), dtype=np.float32)

    def store(self, value: NDArray[np.float32], stored: NDArray[np.generic]) -> NDArray[np.generic]:
        """A new foreign array that holds ``value``; elements that did not change keep their bits.

        The result has the dtype of ``stored``, and its shape unless a broadcast array had to grow.
        Raises ``UnsupportedModelError`` where a changed element is multiplied by an exact zero.
        """
        before = self.load(stored, value.shape)
        changed = before.view(np.uint32) != np.ascontiguousarray(value).view(np.uint32)
        if not changed.any():
            return stored
        scale = np.broadcast_to(np.asarray(self.scale, np.float64), value.shape)
        if (changed & (scale == 0)).any():
            raise UnsupportedModelError(
                f"{self.key}: an edit of the {self.kind} of layer {self.layer} cannot be written back, because the "
                "model multiplies it by a normalisation scale that is exactly 0"
            )
        wanted = (value.astype(np.float64) - self.shift) / np.where(scale == 0, 1.0, scale)
        oriented = stored.T if self.transpose else stored
        if oriented.size == value.size:
            oriented = oriented.reshape(value.shape)
        result = np.where(changed, wanted.astype(stored.dtype), np.broadcast_to(oriented, value.shape))
        result = result.T if self.transpose else result
        return np.ascontiguousarray(result.reshape(stored.shape) if result.size == stored.size else result)


def fill(mlp: MLP, slots: list[Slot], arrays: dict[str, NDArray[np.generic]]) -> None:
    """Load every slot into θ, in place."""
    for slot in slots:
        target = mlp.parameter(slot.kind, slot.layer)
        target[...] = slot.load(arrays[slot.key], target.shape)


def collect(mlp: MLP, slots: list[Slot], arrays: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    """The foreign arrays that hold θ: every slot's key, with unchanged arrays passed through as they are."""
    return {slot.key: slot.store(mlp.parameter(slot.kind, slot.layer), arrays[slot.key]) for slot in slots}
