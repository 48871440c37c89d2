"""Editors by name: one comes with the package, the others with a distribution of data beside it.

All of them together are more than twice the size of the package without them.
"""

from __future__ import annotations

import importlib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

SUFFIX = ".onnx"
DISTRIBUTION = "metaedit_fast_editors"  # the name of its import package too
IN_DISTRIBUTION = (
    "adult-data-minimisation",
    "adult-equalized-odds",
    "bank-data-minimisation",
    "bank-equalized-odds",
    "bank-pruning",
)


def bundled_editors() -> list[str]:
    """The names of the editors that are installed, for ``load_editor``."""
    return sorted(bundled_files())


def bundled_files() -> dict[str, Traversable]:
    """The files of these editors by their names."""
    folders: list[Traversable] = [resources.files("metaedit_fast") / "editors"]
    try:
        folders.append(resources.files(importlib.import_module(DISTRIBUTION)))
    except ModuleNotFoundError:
        # A checkout from which the package runs without having been installed has them beside it.
        folders.append(Path(__file__).resolve().parents[2] / "packages" / "editors" / DISTRIBUTION)
    entries = (entry for folder in folders if folder.is_dir() for entry in folder.iterdir())
    return {entry.name[: -len(SUFFIX)]: entry for entry in entries if entry.name.endswith(SUFFIX)}


def is_missing(name: str) -> str:
    """What to tell somebody who asked for the editor ``name``, of which there is neither a file nor a bundled one."""
    if name in IN_DISTRIBUTION:
        return (
            f"{name}: this editor comes with {DISTRIBUTION}, which is not installed: pip install "
            "'metaedit_fast[editors]', or in a checkout pip install ./packages/editors"
        )
    return f"{name}: no such file, nor one of the bundled editors {bundled_editors()}"
