"""What every adapter gives: a foreign model read as an MLP, and the way back."""

from __future__ import annotations

import abc
from typing import ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.slots import Slot, collect

ModelT = TypeVar("ModelT")
Arrays = dict[str, NDArray[np.generic]]


class Opened(abc.ABC, Generic[ModelT]):
    """A foreign model that was read as an MLP.

    ``mlp`` is a copy: editing it changes nothing in the model. ``notes`` tells what a reader should
    know about the reading, such as a batch norm that was folded. An adapter subclasses this with the
    three abstract methods below; ``slots`` say where θ lives.
    """

    kind: ClassVar[str]

    def __init__(self, model: ModelT, mlp: MLP, slots: list[Slot], notes: tuple[str, ...] = ()) -> None:
        self.model = model
        self.mlp = mlp
        self.slots = slots
        self.notes = notes

    @abc.abstractmethod
    def _arrays(self) -> Arrays:
        """Give the present array of every slot's key, as the slots expect it."""

    @abc.abstractmethod
    def _copy(self) -> ModelT:
        """Copy the model, so that nothing is shared."""

    @abc.abstractmethod
    def _assign(self, model: ModelT, arrays: Arrays) -> None:
        """Put ``arrays`` into ``model``, in place."""

    def write(self, mlp: MLP) -> ModelT:
        """Give a new model with the parameters of ``mlp``; all else is as in the original, which stays untouched.

        Raises ``UnsupportedModelError`` where ``mlp`` has another architecture or normalisation, or
        differs in a value that the model has no parameter for.
        """
        arrays = self._written(mlp)
        model = self._copy()
        self._assign(model, arrays)
        return model

    def write_into(self, mlp: MLP) -> None:
        """Like ``write``, into the model that was opened; nothing is written where it raises."""
        self._assign(self.model, self._written(mlp))

    def _written(self, mlp: MLP) -> Arrays:
        if mlp.spec != self.mlp.spec:
            raise UnsupportedModelError(
                f"an MLP of another architecture cannot be written into this model: expected {self.mlp.spec}, "
                f"got {mlp.spec}"
            )
        for name in ("input_scale", "input_shift"):
            if not _equal(getattr(mlp, name), getattr(self.mlp, name)):
                raise UnsupportedModelError(f"{name}: the normalisation of the inputs is fixed, but it was changed")
        homes = {(slot.kind, slot.layer) for slot in self.slots}
        for kind, layer, value in mlp.parameters():
            if (kind, layer) not in homes and not _equal(value, self.mlp.parameter(kind, layer)):
                raise UnsupportedModelError(
                    f"the model has no parameter for the {kind} of layer {layer}, but it was changed"
                )
        return collect(mlp, self.slots, self._arrays())


class OpenedMLP(Opened[MLP]):
    """An MLP opened as itself."""

    kind = "mlp"

    def __init__(self, model: MLP) -> None:
        super().__init__(model, model.replace(model.theta.copy()), [])

    def _arrays(self) -> Arrays:
        return {}

    def _copy(self) -> MLP:
        return self.model.replace(self.model.theta.copy())

    def _assign(self, model: MLP, arrays: Arrays) -> None:
        model.theta[...] = arrays["theta"]

    def _written(self, mlp: MLP) -> Arrays:
        if mlp.spec != self.mlp.spec:
            raise UnsupportedModelError(f"expected an MLP of the architecture {self.mlp.spec}, got {mlp.spec}")
        return {"theta": mlp.theta}


def _equal(a: NDArray[np.float32] | None, b: NDArray[np.float32] | None) -> bool:
    if a is None or b is None:
        return a is b
    return np.array_equal(a, b, equal_nan=True)
