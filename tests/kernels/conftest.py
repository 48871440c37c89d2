"""What the kernel tests share: the instruction sets of this machine and the one table of error limits."""

from __future__ import annotations

import numpy as np
import pytest

from metaedit_fast import _core

# Norm-wise relative errors by precision: against the reference in float64, and against the reference in float32, which
# has rounding errors of its own: up to 6e-7 for a layer, and for a network, whose layers pass them on, up to 1.2e-6.
TOLERANCE = {
    "float32": {"layer": {"float64": 1e-6, "float32": 2e-6}, "network": {"float64": 2e-6, "float32": 3e-6}},
    "bf16x3": {"layer": {"float64": 1e-5, "float32": 1e-5}, "network": {"float64": 2e-5, "float32": 2e-5}},
    "bf16": {"layer": {"float64": 5e-3, "float32": 5e-3}, "network": {"float64": 1e-2, "float32": 1e-2}},
}

# What the levels have beside float32, which each of them has.
FASTER = {"avx512_bf16": ("bf16",), "amx": ("bf16x3", "bf16")}


@pytest.fixture(
    scope="session",
    params=[{"isa": isa, "precision": p} for isa in _core.available_isas() for p in ("float32", *FASTER.get(isa, ()))],
    ids=lambda arithmetic: "-".join(arithmetic.values()),
)
def arithmetic(request: pytest.FixtureRequest) -> dict[str, str]:
    """Everything that this machine and build can compute a forward pass with, as keywords: ``isa``, ``precision``."""
    return dict(request.param)


@pytest.fixture(scope="session", params=_core.available_isas())
def isa(request: pytest.FixtureRequest) -> str:
    """Every instruction set that this machine and build have, by name."""
    return str(request.param)


def _expect_close(got: np.ndarray, expected: np.ndarray, of: str, what: str, precision: str = "float32") -> None:
    assert np.isfinite(got).all(), f"{what}: not all written, or not finite"
    wide = expected.astype(np.float64)
    error = float(np.linalg.norm(got - wide))
    limit = TOLERANCE[precision][of][str(expected.dtype)] * float(np.linalg.norm(wide))
    assert error <= limit, f"{what} against {expected.dtype}: {error:.1e}, limit {limit:.1e}"


@pytest.fixture(scope="session")
def expect_close():
    """``expect_close(got, expected, of, what, precision)``: finite, and within the error limit of the dtype of
    ``expected``, of a "layer" or a "network", and of the precision; ``what`` is for the message.
    """
    return _expect_close
