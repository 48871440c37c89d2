"""The seeded population that every benchmark uses, and a gate: no figure without a passed check."""

from __future__ import annotations

import numpy as np
import pytest

from metaedit_fast.bench.population import N_INPUTS, mixed_population, standard_rows
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import ACTIVATIONS, NORMS


@pytest.fixture(scope="session")
def population() -> list[MLP]:
    """The 64 MLPs that ``metaedit bench`` measures metanetworks on."""
    return mixed_population()


@pytest.fixture(scope="session")
def rows() -> np.ndarray:
    """256 standardised rows."""
    return standard_rows(256)


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
