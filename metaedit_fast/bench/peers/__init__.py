"""The same work in other libraries. Each is optional: one that is not installed costs a row its figure, no more."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType


class MissingPeerError(Exception):
    """A library that a row needs is not here; the text says how to get it."""


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def load(name: str, *packages: str) -> ModuleType:
    """The module ``metaedit_fast.bench.peers.NAME``, which imports ``packages``.

    Raises ``MissingPeerError`` where one of them is not installed.
    """
    for package in packages:
        if not _is_installed(package):
            raise MissingPeerError(f"{package} is not installed (pip install {package})")
    return importlib.import_module(f"metaedit_fast.bench.peers.{name}")
