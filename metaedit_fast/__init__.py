"""Edit populations of trained MLPs so that they meet a requirement.

Every public name stands in ``__all__``; what it needs is imported when it is first used, so that
``import metaedit_fast`` is quick and needs neither torch nor ONNX Runtime.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaedit_fast import errors
    from metaedit_fast.data import Table
    from metaedit_fast.datasets import load_dataset
    from metaedit_fast.editing.compact import CompactResult, compact
    from metaedit_fast.editing.edit import edit, edit_, edit_stream
    from metaedit_fast.editing.editor import Editor, load_editor
    from metaedit_fast.editing.result import EditResult
    from metaedit_fast.errors import UnsupportedModelError
    from metaedit_fast.export.library import ort_library_path
    from metaedit_fast.models.convert import read_model, write_model
    from metaedit_fast.models.mlp import MLP
    from metaedit_fast.models.spec import MLPSpec
    from metaedit_fast.population.store import Population
    from metaedit_fast.training.fit import fit_editor
    from metaedit_fast.versions import show_versions

    __version__: str

_HOMES = {
    "CompactResult": "metaedit_fast.editing.compact",
    "EditResult": "metaedit_fast.editing.result",
    "Editor": "metaedit_fast.editing.editor",
    "MLP": "metaedit_fast.models.mlp",
    "MLPSpec": "metaedit_fast.models.spec",
    "Population": "metaedit_fast.population.store",
    "Table": "metaedit_fast.data",
    "UnsupportedModelError": "metaedit_fast.errors",
    "compact": "metaedit_fast.editing.compact",
    "edit": "metaedit_fast.editing.edit",
    "edit_": "metaedit_fast.editing.edit",
    "edit_stream": "metaedit_fast.editing.edit",
    "fit_editor": "metaedit_fast.training.fit",
    "load_dataset": "metaedit_fast.datasets",
    "load_editor": "metaedit_fast.editing.editor",
    "ort_library_path": "metaedit_fast.export.library",
    "read_model": "metaedit_fast.models.convert",
    "show_versions": "metaedit_fast.versions",
    "write_model": "metaedit_fast.models.convert",
}

__all__ = [
    "MLP",
    "CompactResult",
    "EditResult",
    "Editor",
    "MLPSpec",
    "Population",
    "Table",
    "UnsupportedModelError",
    "__version__",
    "compact",
    "edit",
    "edit_",
    "edit_stream",
    "errors",
    "fit_editor",
    "load_dataset",
    "load_editor",
    "ort_library_path",
    "read_model",
    "show_versions",
    "write_model",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            value: Any = version("metaedit_fast")
        except PackageNotFoundError:  # a source tree that was never installed
            value = importlib.import_module("metaedit_fast._core").__version__
    elif name == "errors":
        value = importlib.import_module("metaedit_fast.errors")
    elif name in _HOMES:
        value = getattr(_imported(_HOMES[name], wanted_by=name), name)
    else:
        raise AttributeError(f"module 'metaedit_fast' has no attribute {name!r}")
    globals()[name] = value
    return value


def _imported(module: str, *, wanted_by: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "torchjd"):
            raise
        from metaedit_fast.errors import MissingDependencyError

        extra = "pip install 'metaedit_fast[train]'"
        raise MissingDependencyError(f"{wanted_by} needs the package {error.name!r}: {extra}") from error


def __dir__() -> list[str]:
    return sorted(__all__)
