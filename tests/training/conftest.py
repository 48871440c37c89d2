"""Small populations with everything that a batch may hold: norms, skips, single outputs, input normalisation."""

from __future__ import annotations

import numpy as np
import pytest

from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import LayerSpec, MLPSpec

N_INPUTS = 6


@pytest.fixture(scope="session")
def mixed_mlps() -> list[MLP]:
    specs = [
        MLPSpec.simple((N_INPUTS, 8, 2), "relu"),
        MLPSpec.simple((N_INPUTS, 9, 5, 2), "tanh", "layer", ((0, 1), (1, 2))),
        MLPSpec(N_INPUTS, (LayerSpec(7, "silu"), LayerSpec(1)), output="sigmoid"),
        MLPSpec.simple((N_INPUTS, 1, 2), "gelu"),
        MLPSpec.simple((N_INPUTS, 2)),
        MLPSpec.simple((N_INPUTS, 8, 2), "relu"),
        MLPSpec(N_INPUTS, (LayerSpec(4, "elu", norm="layer", bias=False, norm_affine=False), LayerSpec(2))),
    ]
    rng = np.random.default_rng(0)
    mlps = [MLP(spec, rng.normal(0, 0.6, spec.n_parameters)) for spec in specs]
    mlps[3].input_scale = np.linspace(0.5, 2, N_INPUTS, dtype=np.float32)
    mlps[5].input_shift = np.full(N_INPUTS, 0.3, np.float32)
    return mlps
