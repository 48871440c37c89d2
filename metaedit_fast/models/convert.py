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
_SUPPORTED = (
    "a torch.nn.Module, a torch.export.ExportedProgram, an MLPClassifier, an MLPRegressor, an onnx.ModelProto, an MLP "
    "or a path"
)
_PATHS = "a name that ends in .onnx or .safetensors, or a folder with config.json and model.safetensors"


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
    """Open a torch module or exported program, a scikit-learn MLP or pipeline, an ONNX model, an ``MLP`` or a path.

    A path leads to an ``.onnx`` file, a ``.safetensors`` file with its architecture, or a folder with ``config.json``
    and ``model.safetensors``. Raises ``UnsupportedModelError`` where the type is none of these or the model is no
    MLP, and ``FileNotFoundError`` where a path leads nowhere.
    """
    if isinstance(model, MLP):
        return OpenedMLP(model)
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        if _format_of(path) == "onnx":
            return OpenedFile(path)
        from metaedit_fast.models.safetensors import open_safetensors

        return open_safetensors(path)
    if _is_instance(model, "torch.nn", "Module"):
        from metaedit_fast.models.torch import open_torch

        return open_torch(model)
    if _is_instance(model, "torch.export", "ExportedProgram"):
        from metaedit_fast.models.torch.exported import open_exported

        return open_exported(model)
    if _is_instance(model, "sklearn.base", "BaseEstimator"):
        from metaedit_fast.models.sklearn import open_sklearn

        return open_sklearn(model)
    if _is_instance(model, "onnx", "ModelProto"):
        from metaedit_fast.models.onnx import open_onnx

        return open_onnx(model)
    if _is_instance(model, "metaedit_fast.models.safetensors", "SafetensorsModel"):
        from metaedit_fast.models.safetensors import open_safetensors

        return open_safetensors(model)
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    raise UnsupportedModelError(f"model: expected {_SUPPORTED}, got a {kind}")


def read_model(model: Any) -> MLP:
    """Read any model that ``open_model`` opens as an ``MLP``; raises what ``open_model`` raises."""
    return open_model(model).mlp


def write_model(mlp: MLP, path: str | os.PathLike[str], *, template: Any = None) -> None:
    """Write an MLP as an ``.onnx`` file, a ``.safetensors`` file, or a folder where ``path`` has no suffix.

    A file is written in one step: a reader sees no file or the whole one. A file of tensors has its architecture in
    its header, a folder has it in ``config.json``. ``template`` is a model of the same format, as an object or a
    path; its graph or its tensors' names and dtypes, and all else that it holds, are kept, and its parameters are
    replaced.

    Raises ``UnsupportedModelError`` where ``path`` has another suffix, or where the template is of another format
    or architecture.
    """
    target = Path(path)
    kind = _format_of(target, new=True)
    written: Any
    if template is not None:
        opened = open_model(template)
        if opened.kind != kind:
            raise UnsupportedModelError(f"template: expected a model or a path of {kind}, got one of {opened.kind!r}")
        written = opened.write(mlp)
    elif kind == "onnx":
        from metaedit_fast.models.onnx import mlp_to_onnx

        written = mlp_to_onnx(mlp)
    else:
        from metaedit_fast.models.safetensors import mlp_to_safetensors

        written = mlp_to_safetensors(mlp, folder=target.suffix.lower() != ".safetensors")
    if kind == "onnx":
        write_atomically(target, written.SerializeToString())
    else:
        written.save(target)


def _is_instance(model: object, module: str, name: str) -> bool:
    """Whether ``model`` is of a class of a module that somebody else has imported."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(model, kind)


def _format_of(path: Path, *, new: bool = False) -> str:
    """Give the kind of model at ``path``, or to be made there; of what exists, only whether it is a folder is asked.

    Raises ``UnsupportedModelError`` for another suffix.
    """
    suffix = path.suffix.lower()
    if path.is_dir() or suffix == ".safetensors" or (new and suffix == ""):
        return "safetensors"
    if suffix == ".onnx":
        return "onnx"
    if suffix in _PICKLES:
        got = f"{suffix}: a pickle runs any code that is inside; load it where you trust it and pass the model itself"
    elif suffix == ".pt2":
        got = ".pt2: it may hold pickles; load it with torch.export.load where you trust it and pass the program"
    else:
        got = repr(suffix)
    raise UnsupportedModelError(f"{path.name}: expected {_PATHS}, got {got}")
