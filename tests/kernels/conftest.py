"""What the kernel tests share: the instruction sets of this machine and the one table of error limits."""

from __future__ import annotations

import numpy as np
import pytest

from metaedit_fast import _core

# Norm-wise relative errors: against the reference in float64, and against the reference in float32, which has
# rounding errors of its own: up to 6e-7 for a layer, and for a network, whose layers pass them on, up to 1.2e-6.
TOLERANCE = {
    "layer": {"float64": 1e-6, "float32": 2e-6},
    "network": {"float64": 2e-6, "float32": 3e-6},
}


@pytest.fixture(scope="session", params=_core.available_isas())
def isa(request: pytest.FixtureRequest) -> str:
    """Every instruction set that this machine and build have, by name."""
    return str(request.param)


def _expect_close(got: np.ndarray, expected: np.ndarray, of: str, what: str) -> None:
    assert np.isfinite(got).all(), f"{what}: not all written, or not finite"
    wide = expected.astype(np.float64)
    error = float(np.linalg.norm(got - wide))
    limit = TOLERANCE[of][str(expected.dtype)] * float(np.linalg.norm(wide))
    assert error <= limit, f"{what} against {expected.dtype}: {error:.1e}, limit {limit:.1e}"


@pytest.fixture(scope="session")
def expect_close():
    """``expect_close(got, expected, of, what)``: finite, and within the error limit of the dtype of ``expected``
    and of a "layer" or a "network"; ``what`` is for the message.
    """
    return _expect_close
