"""Activations and their derivatives against torch."""

from __future__ import annotations

import numpy as np
import pytest

from metaedit_fast.models import activations
from metaedit_fast.models.spec import ACTIVATIONS

torch = pytest.importorskip("torch")

POINTS = np.concatenate([np.linspace(-12, 12, 2401), [-700.0, -50.0, 50.0, 700.0, 1e-12, -1e-12, 0.0, 6.0]])


@pytest.mark.parametrize("alpha", [0.01, 0.7])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_value_and_derivative_agree_with_torch(name: str, alpha: float, torch_activation) -> None:
    z = torch.tensor(POINTS, requires_grad=True)
    value = torch_activation(name, z, alpha)
    (derivative,) = torch.autograd.grad(value.sum(), z)
    np.testing.assert_allclose(activations.apply(name, POINTS, alpha), value.detach(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(activations.derivative(name, POINTS, alpha), derivative, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_float32_stays_float32_and_accurate(name: str) -> None:
    z = POINTS.astype(np.float32)
    for function in (activations.apply, activations.derivative):
        got = function(name, z, 0.3)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, function(name, z.astype(np.float64), 0.3), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_arguments_stay_untouched_and_shapes_are_kept(name: str) -> None:
    z = np.linspace(-2, 2, 24).reshape(2, 3, 4)
    before = z.copy()
    assert activations.apply(name, z, 0.3).shape == activations.derivative(name, z, 0.3).shape == z.shape
    assert np.array_equal(z, before)


def test_unknown_names_are_refused() -> None:
    for function in (activations.apply, activations.derivative):
        with pytest.raises(ValueError, match="softplus"):
            function("softplus", np.zeros(3))
