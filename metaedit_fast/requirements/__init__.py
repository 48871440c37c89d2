"""The requirements that an editor can be trained for."""

from __future__ import annotations

from metaedit_fast.requirements.base import Requirement
from metaedit_fast.requirements.pruning import Pruning

REQUIREMENTS: dict[str, Requirement] = {requirement.name: requirement for requirement in (Pruning(),)}


def get_requirement(name: str) -> Requirement:
    """The requirement called ``name``. Raises ``ValueError`` that lists the known ones."""
    if name not in REQUIREMENTS:
        raise ValueError(f"requirement: expected one of {sorted(REQUIREMENTS)}, got {name!r}")
    return REQUIREMENTS[name]


__all__ = ["REQUIREMENTS", "Pruning", "Requirement", "get_requirement"]
