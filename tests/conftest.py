"""Fixtures that many tests share: a small untrained editor, small models, the folder of shared tables."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import ACTIVATIONS, NORMS, LayerSpec, MLPSpec

N_INPUTS = 5


def random_mlp(spec: MLPSpec, seed: int) -> MLP:
    """A network of ``spec`` with weights of trained size."""
    return MLP(spec, np.random.default_rng(seed).normal(0, 0.7, spec.n_parameters).astype(np.float32))


@pytest.fixture(scope="session")
def small_mlps() -> list[MLP]:
    """Five networks of five inputs: widths, activations, norms, skips and outputs differ."""
    specs = [
        MLPSpec.simple((N_INPUTS, 8, 2)),
        MLPSpec.simple((N_INPUTS, 12, 6, 2), "gelu", norm="layer"),
        MLPSpec.simple((N_INPUTS, 6, 6, 2), "tanh", skips=[(0, 1), (1, 2)]),
        MLPSpec(N_INPUTS, (LayerSpec(7, "silu"), LayerSpec(1)), output="sigmoid"),
        MLPSpec.simple((N_INPUTS, 2), output="softmax"),
    ]
    return [random_mlp(spec, seed) for seed, spec in enumerate(specs)]


def _editor(probe):
    torch = pytest.importorskip("torch")
    from metaedit_fast.editing.editor import Editor, EditorInfo, Envelope
    from metaedit_fast.metanet.config import MetanetConfig
    from metaedit_fast.metanet.metanetwork import Metanetwork

    config = MetanetConfig(n_inputs=N_INPUTS, d_e=4, d_v=8, n_layers=2, head_hidden=8, probe=probe)
    envelope = Envelope(depth=(0, 3), width=(1, 16), activations=ACTIVATIONS, norms=NORMS, max_skips=2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Editor.from_network(Metanetwork(config), EditorInfo("tiny", config, envelope))


@pytest.fixture(scope="session")
def tiny_editor():
    """A freshly initialised editor for models of five inputs and two classes; reads weights alone."""
    return _editor(probe=False)


@pytest.fixture(scope="session")
def tiny_probe_editor():
    """The same with probe features."""
    return _editor(probe=True)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the published tables; skips where it is absent."""
    place = Path(os.environ.get("METAEDIT_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not place.is_dir():
        pytest.skip(f"no tables at {place}; METAEDIT_SHARED_DATA names their folder")
    return place
