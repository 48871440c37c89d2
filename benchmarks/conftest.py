"""The seeded population that every benchmark uses, and a gate: no figure without a passed check."""

from __future__ import annotations

import numpy as np
import pytest

from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import ACTIVATIONS, NORMS
from metaedit_fast.population.sampling import sample_runs

N_INPUTS = 14


@pytest.fixture(scope="session")
def population() -> list[MLP]:
    """64 MLPs of the architectures that the population sampler draws, with random weights of trained size."""
    rng = np.random.default_rng(0)
    mlps = []
    for run in sample_runs(64, seed=0, n_inputs=N_INPUTS):
        mlp = MLP(run.spec, np.zeros(run.spec.n_parameters))
        for kind, _, view in mlp.parameters():
            if kind == "weight":
                view[...] = rng.normal(size=view.shape) / np.sqrt(view.shape[0])
            elif kind == "norm_scale":
                view[...] = 1.0
        mlps.append(mlp)
    return mlps


@pytest.fixture(scope="session")
def rows() -> np.ndarray:
    """256 standardised rows."""
    return np.random.default_rng(1).normal(size=(256, N_INPUTS)).astype(np.float32)


@pytest.fixture(scope="session", params=[False, True], ids=["weights", "probe"])
def editor(request: pytest.FixtureRequest, rows: np.ndarray):
    """An untrained editor of the shipped size; time does not depend on what was learned."""
    torch = pytest.importorskip("torch")
    from metaedit_fast.editing.editor import Editor, EditorInfo, Envelope
    from metaedit_fast.metanet.config import MetanetConfig
    from metaedit_fast.metanet.metanetwork import Metanetwork

    torch.manual_seed(0)
    config = MetanetConfig(N_INPUTS, probe=request.param)
    envelope = Envelope((1, 4), (16, 128), ACTIVATIONS, NORMS, 8)
    return Editor.from_network(Metanetwork(config), EditorInfo("bench", config, envelope), probe=rows)
