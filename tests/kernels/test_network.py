"""The whole network on the compiled kernels against the torch module, and what its bits must not depend on."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from metaedit_fast.graph import WeightGraphBatch  # noqa: E402
from metaedit_fast.metanet import native  # noqa: E402
from metaedit_fast.metanet.apply import Heads  # noqa: E402
from metaedit_fast.metanet.config import MetanetConfig  # noqa: E402
from metaedit_fast.metanet.features import ModelFeatures, model_features  # noqa: E402
from metaedit_fast.metanet.metanetwork import MetanetInputs, Metanetwork  # noqa: E402
from metaedit_fast.models.mlp import MLP  # noqa: E402
from metaedit_fast.models.spec import ACTIVATIONS, LayerSpec, MLPSpec  # noqa: E402
from metaedit_fast.models.statistics import probe_statistics  # noqa: E402
from metaedit_fast.requirements.pruning import Pruning  # noqa: E402

N_INPUTS = 5
FIELDS = ("score", "relative", "additive", "node")
PROBE = np.random.default_rng(9).normal(size=(32, N_INPUTS)).astype(np.float32)

CONFIGS = {
    "shipped": MetanetConfig(N_INPUTS),
    "probe": MetanetConfig(N_INPUTS, probe=True, n_layers=2),
    "mask only": MetanetConfig(N_INPUTS, edits_parameters=False, n_layers=2),
    "odd sizes": MetanetConfig(N_INPUTS, d_e=11, d_v=23, head_hidden=20, n_layers=2),
    "wide": MetanetConfig(N_INPUTS, d_e=64, d_v=128, head_hidden=48, n_layers=2),
    "too wide for the kernels": MetanetConfig(N_INPUTS, d_e=132, d_v=16, n_layers=1),
    "official": MetanetConfig(N_INPUTS, form="official", d_v=32, n_layers=2),
}


@st.composite
def specs(draw: st.DrawFn) -> MLPSpec:
    widths = draw(st.lists(st.integers(1, 20), max_size=4))
    pairs = [(s, t) for t in range(1, len(widths) + 1) for s in range(t)]
    skips = draw(st.lists(st.sampled_from(pairs), max_size=3, unique=True)) if pairs else []
    activation = draw(st.sampled_from(ACTIVATIONS))
    norm = draw(st.sampled_from(["none", "layer"]))
    hidden = tuple(LayerSpec(w, activation, norm=norm) for w in widths)
    return MLPSpec(N_INPUTS, (*hidden, LayerSpec(draw(st.sampled_from([1, 2])))), tuple(skips))


class Network:
    """A torch network away from its start, where heads and biases are small, and the same one packed."""

    def __init__(self, config: MetanetConfig) -> None:
        self.config = config
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(0)
            self.torch = Metanetwork(config)
            for p in self.torch.parameters():
                p.add_(torch.randn(p.shape) * (0.15 * p.shape[-1] ** -0.5 if p.ndim == 2 else 0.05))
        self.weights = {name: value.numpy() for name, value in self.torch.state_dict().items()}
        self.editor = native.pack(config, self.weights)

    def batch(self, models: list[MLPSpec], seed: int = 0) -> Batch:
        rng = np.random.default_rng(seed)
        mlps = [MLP(spec, rng.normal(0, 0.7, spec.n_parameters)) for spec in models]
        statistics = [probe_statistics(mlp, PROBE) if self.config.probe else None for mlp in mlps]
        features = [model_features(m, self.config, s) for m, s in zip(mlps, statistics, strict=True)]
        budgets = [Pruning().condition(sparsity) for sparsity in rng.uniform(0.1, 0.99, len(mlps))]
        return Batch(self, mlps, features, np.array(budgets, np.float32).reshape(-1, 4))


@dataclasses.dataclass
class Batch:
    network: Network
    mlps: list[MLP]
    features: list[ModelFeatures]
    condition: np.ndarray

    @property
    def graph(self) -> WeightGraphBatch:
        return WeightGraphBatch.from_mlps(self.mlps)

    def native(self, **options: object) -> Heads:
        options = {"num_threads": 1, **options}
        return native.metanetwork_forward(self.network.editor, self.graph, self.features, self.condition, **options)

    def part(self, models: slice) -> Batch:
        return Batch(self.network, self.mlps[models], self.features[models], self.condition[models])

    def poisoned(self) -> Heads:
        n_weights = sum(mlp.spec.n_weights for mlp in self.mlps)
        shapes = [(n_weights,)] * 3 + [(self.graph.n_nodes, 3)]
        return Heads(*(np.full(shape, np.nan, np.float32) for shape in shapes))

    @torch.no_grad()
    def reference(self, dtype: torch.dtype) -> Heads:
        inputs = MetanetInputs.build(self.mlps, self.features, torch.from_numpy(self.condition))
        for name in ("edge", "node", "saliency", "condition"):
            object.__setattr__(inputs, name, getattr(inputs, name).to(dtype))
        found = self.network.torch.to(dtype)(inputs)
        self.network.torch.float()
        return Heads(*(getattr(found, name).numpy() for name in FIELDS))


NETWORKS = {name: Network(config) for name, config in CONFIGS.items()}


def check(batch: Batch, arithmetic: dict[str, str], expect_close: Callable[..., None]) -> None:
    out = batch.poisoned()
    got = batch.native(**arithmetic, out=out)
    for dtype in (torch.float64, torch.float32):
        expected = batch.reference(dtype)
        assert all(getattr(got, name) is getattr(out, name) for name in FIELDS)
        for mine, theirs, name in zip(by_head(got), by_head(expected), ("score", "edit", "node"), strict=True):
            expect_close(mine, theirs, "network", name, arithmetic["precision"])


def by_head(heads: Heads) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The outputs of one head together: on a model of a few weights one of the edit head's two may cancel down to
    the rounding errors of what it sums, in any arithmetic.
    """
    return heads.score, np.concatenate([heads.relative, heads.additive]), heads.node


def expect_same_bits(got: Heads, expected: Heads) -> None:
    for name in FIELDS:
        mine, theirs = getattr(got, name), getattr(expected, name)
        assert mine.shape == theirs.shape
        assert mine.tobytes() == theirs.tobytes(), name


def joined(parts: list[Heads]) -> Heads:
    return Heads(*(np.concatenate([getattr(part, name) for part in parts]) for name in FIELDS))


@settings(max_examples=25, deadline=None)
@given(models=st.lists(specs(), min_size=1, max_size=4), name=st.sampled_from(list(NETWORKS)), seed=st.integers(0, 99))
def test_ragged_batches_match_the_reference(
    arithmetic: dict[str, str], expect_close: Callable[..., None], models: list[MLPSpec], name: str, seed: int
) -> None:
    check(NETWORKS[name].batch(models, seed), arithmetic, expect_close)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "spec",
    [
        MLPSpec.simple((N_INPUTS, 2)),
        MLPSpec.simple((N_INPUTS, 1, 1), skips=[(0, 1)], output="logits"),
        MLPSpec.simple((N_INPUTS, 512, 33, 2)),
        MLPSpec.simple((N_INPUTS, 32, 64, 64, 2), skips=[(0, 1), (1, 2), (1, 3), (0, 3)]),
    ],
    ids=lambda spec: "-".join(map(str, spec.widths)),
)
def test_shapes_match_the_reference(
    arithmetic: dict[str, str], expect_close: Callable[..., None], name: str, spec: MLPSpec
) -> None:
    check(NETWORKS[name].batch([spec]), arithmetic, expect_close)


@pytest.mark.parametrize("name", ["shipped", "official"])
def test_empty_batch(arithmetic: dict[str, str], name: str) -> None:
    found = NETWORKS[name].batch([]).native(**arithmetic, num_threads=2)
    assert [getattr(found, field).shape for field in FIELDS] == [(0,), (0,), (0,), (0, 3)]


@settings(max_examples=15, deadline=None)
@given(
    models=st.lists(specs(), min_size=2, max_size=6),
    name=st.sampled_from(list(NETWORKS)),
    cut=st.integers(1, 5),
    n_threads=st.integers(2, 9),
)
def test_no_bit_depends_on_threads_neighbours_or_the_split(
    arithmetic: dict[str, str], models: list[MLPSpec], name: str, cut: int, n_threads: int
) -> None:
    batch = NETWORKS[name].batch(models)
    together = batch.native(**arithmetic)
    expect_same_bits(batch.native(**arithmetic, num_threads=n_threads), together)
    expect_same_bits(joined([batch.part(s).native(**arithmetic) for s in (slice(cut), slice(cut, None))]), together)
    alone = [batch.part(slice(m, m + 1)).native(**arithmetic, num_threads=n_threads) for m in range(len(models))]
    expect_same_bits(joined(alone), together)


@pytest.mark.parametrize("name", ["shipped", "official", "odd sizes"])
@pytest.mark.parametrize("widths", [(N_INPUTS, 512, 64, 2), (N_INPUTS, 200, 130, 67, 130, 130, 2)], ids=str)
def test_no_bit_of_a_large_model_depends_on_the_threads_that_share_it(
    arithmetic: dict[str, str], name: str, widths: tuple[int, ...]
) -> None:
    batch = NETWORKS[name].batch(
        [MLPSpec.simple((N_INPUTS, 2)), MLPSpec.simple(widths, skips=[(4, 5)] if len(widths) > 6 else [])]
    )
    alone = batch.native(**arithmetic)
    for n_threads in (2, 3, 4, 7, 16):
        expect_same_bits(batch.native(num_threads=n_threads, **arithmetic), alone)


def test_a_non_finite_model_leaves_its_neighbours_alone(arithmetic: dict[str, str]) -> None:
    batch = NETWORKS["shipped"].batch([MLPSpec.simple((N_INPUTS, 19, 2))] * 3)
    before = batch.native(**arithmetic)
    batch.features[1].edge[...] = np.nan
    after = batch.native(**arithmetic)
    n, v = batch.mlps[0].spec.n_weights, sum(batch.mlps[0].spec.widths)
    assert np.isnan(after.score[n : 2 * n]).all()
    for rows in (slice(n), slice(2 * n, None)):
        np.testing.assert_array_equal(after.score[rows], before.score[rows])
    for rows in (slice(v), slice(2 * v, None)):
        np.testing.assert_array_equal(after.node[rows], before.node[rows])


def test_calls_from_many_threads_agree_and_inputs_stay(arithmetic: dict[str, str]) -> None:
    batch = NETWORKS["shipped"].batch([MLPSpec.simple((N_INPUTS, 32, 16, 2), skips=[(1, 2)])] * 3)
    before = [tuple(x.tobytes() for x in (f.edge, f.node, f.node_type, f.saliency)) for f in batch.features]
    expected = batch.native(**arithmetic)
    results: list[Heads] = []

    def work() -> None:
        results.extend(batch.native(**arithmetic, num_threads=2) for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 15
    for found in results:
        expect_same_bits(found, expected)
    assert [tuple(x.tobytes() for x in (f.edge, f.node, f.node_type, f.saliency)) for f in batch.features] == before


@pytest.mark.parametrize("precision", native.PRECISIONS)
@pytest.mark.parametrize("name", ["shipped", "official", "too wide for the kernels"])
def test_the_editor_tells_the_arithmetic_that_runs(isa: str, precision: str, name: str) -> None:
    network = NETWORKS[name]
    batch = network.batch([MLPSpec.simple((N_INPUTS, 40, 2))])
    runs = network.editor.arithmetic(precision, isa)
    level_has_it = {"avx512_bf16": ["bf16"], "amx": ["bf16x3", "bf16"]}.get(isa, [])
    has_kernels = name != "too wide for the kernels"
    assert runs == (precision if has_kernels and precision in level_has_it else "float32")
    found, exact = batch.native(isa=isa, precision=precision), batch.native(isa=isa, precision="float32")
    if runs == "float32":
        expect_same_bits(found, exact)
    else:
        assert not np.array_equal(found.score, exact.score)


def test_the_editor_refuses_an_unknown_arithmetic() -> None:
    editor = NETWORKS["shipped"].editor
    with pytest.raises(ValueError, match="precision: expected 'float32', 'bf16x3' or 'bf16', got 'int8'"):
        editor.arithmetic("int8")
    with pytest.raises(ValueError, match="isa: expected an instruction set"):
        editor.arithmetic("bf16", "mmx")


def test_the_packed_editor_keeps_a_copy() -> None:
    network = Network(CONFIGS["odd sizes"])
    batch = network.batch([MLPSpec.simple((N_INPUTS, 9, 2))])
    expected = batch.native()
    for value in network.weights.values():
        value[...] = np.nan
    network.weights.clear()
    expect_same_bits(batch.native(), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_may_use_threads() -> None:
    batch = NETWORKS["shipped"].batch([MLPSpec.simple((N_INPUTS, 16, 2))] * 4)
    expected = batch.native(num_threads=2)
    child = os.fork()
    if child == 0:
        try:
            same = batch.native(num_threads=2).score.tobytes() == expected.score.tobytes()
            os._exit(0 if same else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
