"""Any supported model as an MLP, and back: ``open_model``, ``read_model``, ``write_model``.

Nothing here imports torch or scikit-learn: an object of theirs exists only where they are loaded.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from metaedit_fast.atomic import write_atomically
from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.opened import Arrays, Opened, OpenedMLP

_PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".joblib")
_SUPPORTED = "a torch.nn.Module, an MLPClassifier, an MLPRegressor, an onnx.ModelProto, an MLP or an .onnx path"


class OpenedFile(Opened[Any]):
    """An ``.onnx`` file that was read as an MLP.

    ``write`` gives an ``onnx.ModelProto`` and leaves the file alone; ``write_into`` replaces the file
    in one step, so that a reader sees the old or the new one.
    """

    kind = "onnx"

    def __init__(self, path: Path) -> None:
        from metaedit_fast.models.onnx import open_onnx, read_onnx_file

        self.path = path
        self._inner: Opened[Any] = open_onnx(read_onnx_file(path))
        super().__init__(self._inner.model, self._inner.mlp, self._inner.slots, self._inner.notes)

    def _arrays(self) -> Arrays:
        return self._inner._arrays()

    def _copy(self) -> Any:
        return self._inner._copy()

    def _assign(self, model: Any, arrays: Arrays) -> None:
        self._inner._assign(model, arrays)

    def write_into(self, mlp: MLP) -> None:
        """Replace the file by one with the parameters of ``mlp``; see ``Opened.write_into``."""
        super().write_into(mlp)
        write_atomically(self.path, self.model.SerializeToString())


def open_model(model: Any) -> Opened[Any]:
    """Open a torch module, a scikit-learn MLP or pipeline, an ONNX model, an ``MLP`` or an ``.onnx`` path.

    Raises ``UnsupportedModelError`` where the type is none of these or the model is no MLP, and
    ``FileNotFoundError`` where a path leads nowhere.
    """
    if isinstance(model, MLP):
        return OpenedMLP(model)
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        _require_onnx_suffix(path)
        return OpenedFile(path)
    if _is_instance(model, "torch.nn", "Module"):
        from metaedit_fast.models.torch import open_torch

        return open_torch(model)
    if _is_instance(model, "sklearn.base", "BaseEstimator"):
        from metaedit_fast.models.sklearn import open_sklearn

        return open_sklearn(model)
    if _is_instance(model, "onnx", "ModelProto"):
        from metaedit_fast.models.onnx import open_onnx

        return open_onnx(model)
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    raise UnsupportedModelError(f"model: expected {_SUPPORTED}, got a {kind}")


def read_model(model: Any) -> MLP:
    """Read any model that ``open_model`` opens as an ``MLP``; raises what ``open_model`` raises."""
    return open_model(model).mlp


def write_model(mlp: MLP, path: str | os.PathLike[str], *, template: Any = None) -> None:
    """Write an MLP as an ``.onnx`` file, in one step: a reader sees no file or the whole one.

    ``template`` is an ``onnx.ModelProto`` or a path to one, whose graph, names and metadata are kept
    and whose parameters are replaced; without it the file holds a fresh graph.
    Raises ``UnsupportedModelError`` where ``path`` has another suffix than ``.onnx``, or where the
    template has another architecture.
    """
    target = Path(path)
    _require_onnx_suffix(target)
    if template is None:
        from metaedit_fast.models.onnx import mlp_to_onnx

        write_atomically(target, mlp_to_onnx(mlp).SerializeToString())
        return
    opened = open_model(template)
    if opened.kind != "onnx":
        raise UnsupportedModelError(
            f"template: expected an onnx.ModelProto or a path, got a model of kind {opened.kind!r}"
        )
    write_atomically(target, opened.write(mlp).SerializeToString())


def _is_instance(model: object, module: str, name: str) -> bool:
    """Whether ``model`` is of a class of a module that somebody else has imported."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(model, kind)


def _require_onnx_suffix(path: Path) -> None:
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return
    if suffix in _PICKLES:
        got = f"{suffix}: a pickle runs any code that is inside; load it where you trust it and pass the model itself"
    elif suffix == ".safetensors":
        got = f"{suffix}: it has tensors but no architecture; load it into a module and pass the module"
    else:
        got = repr(suffix)
    raise UnsupportedModelError(f"{path.name}: expected the suffix .onnx, got {got}")
