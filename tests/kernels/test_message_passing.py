"""The compiled layer against the plain-torch reference: both forms, every instruction set, any shape."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from metaedit_fast.graph import WeightGraphBatch  # noqa: E402
from metaedit_fast.kernels import native, reference  # noqa: E402
from metaedit_fast.models.mlp import MLP  # noqa: E402
from metaedit_fast.models.spec import MLPSpec  # noqa: E402

FORMS = ("shipped", "official")
# Sizes with kernels of their own, sizes that are filled up, and one (130) beyond the vectorised kernels.
SIZES = [(16, 64), (16, 32), (1, 1), (5, 7), (33, 17), (8, 32), (32, 128), (64, 64), (128, 32), (130, 16)]


def batch_of(specs: list[MLPSpec], order: str = "model") -> WeightGraphBatch:
    return WeightGraphBatch.from_mlps([MLP(s, np.zeros(s.n_parameters)) for s in specs], order=order)


class Case:
    """A layer with random parameters and random states on a batch."""

    def __init__(self, form: str, batch: WeightGraphBatch, d_e: int = 16, d_v: int = 64, seed: int = 0) -> None:
        self.form, self.batch = form, batch
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            self.layer = reference.LAYERS[form](d_e, d_v)
            for p in self.layer.parameters():
                p.add_(0.1 * torch.randn(p.shape))  # away from the scales of 1 and shifts of 0
            self.h = torch.randn(batch.n_nodes, d_v)
            self.e = torch.randn(batch.n_edges, d_e)

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in self.layer.state_dict().items()}

    def native(self, **options: object) -> tuple[np.ndarray, np.ndarray]:
        return native.layer_forward(self.form, self.batch, self.h.numpy(), self.e.numpy(), self.parameters, **options)

    def reference(self, dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray]:
        topology = reference.Topology(self.batch)
        layer = self.layer.to(dtype)
        with torch.no_grad():
            h, e = layer(self.h.to(dtype), reference.initial_edges(self.e.to(dtype), topology), topology)
        self.layer.float()
        return h.numpy(), reference.flat_edges(e).numpy()


def check(case: Case, arithmetic: dict[str, str], expect_close: Callable[..., None]) -> None:
    out = tuple(np.full(tuple(x.shape), np.nan, np.float32) for x in (case.h, case.e))
    got = case.native(**arithmetic, out=out)
    assert got[0] is out[0] and got[1] is out[1]
    for dtype in (torch.float64, torch.float32):
        for name, mine, theirs in zip("he", got, case.reference(dtype), strict=True):
            expect_close(mine, theirs, "layer", name, arithmetic["precision"])


@st.composite
def specs(draw: st.DrawFn) -> MLPSpec:
    widths = draw(st.lists(st.integers(1, 20), min_size=2, max_size=5))
    n_hidden = len(widths) - 2
    pairs = [(s, t) for t in range(1, n_hidden + 1) for s in range(t)]
    skips = draw(st.lists(st.sampled_from(pairs), max_size=3, unique=True)) if pairs else []
    return MLPSpec.simple(widths, skips=skips)


@settings(max_examples=40, deadline=None)
@given(
    models=st.lists(specs(), min_size=1, max_size=4),
    form=st.sampled_from(FORMS),
    order=st.sampled_from(["model", "shape"]),
    sizes=st.sampled_from(SIZES),
    seed=st.integers(0, 2**31),
)
def test_ragged_batches_match_the_reference(
    arithmetic: dict[str, str],
    expect_close: Callable[..., None],
    models: list[MLPSpec],
    form: str,
    order: str,
    sizes: tuple[int, int],
    seed: int,
) -> None:
    check(Case(form, batch_of(models, order), *sizes, seed=seed), arithmetic, expect_close)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "spec",
    [
        MLPSpec.simple((1, 1)),
        MLPSpec.simple((1, 1, 1), skips=[(0, 1)]),
        MLPSpec.simple((14, 512, 64, 2)),
        MLPSpec.simple((512, 1)),
        MLPSpec.simple((14, 32, 64, 64, 2), skips=[(0, 1), (1, 2), (1, 3), (0, 3)]),
    ],
    ids=lambda spec: "-".join(map(str, spec.widths)),
)
def test_shapes_match_the_reference(
    arithmetic: dict[str, str], expect_close: Callable[..., None], form: str, spec: MLPSpec
) -> None:
    check(Case(form, batch_of([spec])), arithmetic, expect_close)


@pytest.mark.parametrize("sizes", SIZES, ids="{0[0]}-{0[1]}".format)
def test_sizes_match_the_reference(
    arithmetic: dict[str, str], expect_close: Callable[..., None], sizes: tuple[int, int]
) -> None:
    check(
        Case("shipped", batch_of([MLPSpec.simple((14, 37, 32, 2), skips=[(0, 2)])]), *sizes), arithmetic, expect_close
    )


@pytest.mark.parametrize("form", FORMS)
def test_empty_batch(arithmetic: dict[str, str], form: str) -> None:
    h, e = Case(form, batch_of([])).native(**arithmetic)
    assert h.shape == (0, 64)
    assert e.shape == (0, 16)
    assert h.dtype == e.dtype == np.float32


@pytest.mark.parametrize("form", FORMS)
def test_node_without_edges_aggregates_zero(arithmetic: dict[str, str], form: str) -> None:
    batch = batch_of([MLPSpec.simple((3, 4, 2))])
    case = Case(form, batch)
    lonely = np.concatenate([case.h.numpy(), np.ones((1, 64), np.float32)])
    core = native.FORMS[form]
    h, e = core(batch.blocks, lonely, case.e.numpy(), case.parameters, **arithmetic)
    expected = case.native(**arithmetic)
    np.testing.assert_array_equal(h[:-1], expected[0])
    np.testing.assert_array_equal(e, expected[1])
    # Alone in its graph the node has no edges either, and no aggregate of anything.
    alone, _ = core(batch.blocks[:0], lonely[-1:], case.e.numpy()[:0], case.parameters, **arithmetic)
    np.testing.assert_array_equal(h[-1:], alone)
    assert np.isfinite(alone).all()


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=20, deadline=None)
@given(models=st.lists(specs(), min_size=2, max_size=5), order=st.sampled_from(["model", "shape"]))
def test_no_bit_depends_on_the_neighbours(
    arithmetic: dict[str, str], form: str, models: list[MLPSpec], order: str
) -> None:
    together = Case(form, batch_of(models, order))
    h, e = together.native(**arithmetic)
    owner = np.repeat(together.batch.block_model, together.batch.block_sizes)
    for m, spec in enumerate(models):
        nodes = slice(*together.batch.node_offsets[m : m + 2])
        alone = Case(form, batch_of([spec], order))
        alone.h, alone.e = together.h[nodes], together.e[torch.from_numpy(owner == m)]
        h_alone, e_alone = alone.native(**arithmetic)
        np.testing.assert_array_equal(h_alone, h[nodes])
        np.testing.assert_array_equal(e_alone, e[owner == m])


@pytest.mark.parametrize("form", FORMS)
def test_a_non_finite_model_leaves_its_neighbours_alone(arithmetic: dict[str, str], form: str) -> None:
    case = Case(form, batch_of([MLPSpec.simple((5, 8, 2)), MLPSpec.simple((5, 8, 2))]))
    h, e = case.native(**arithmetic)
    n, k = int(case.batch.node_offsets[1]), case.batch.n_edges // 2
    case.h[0], case.e[0] = float("nan"), float("inf")
    h_bad, e_bad = case.native(**arithmetic)
    np.testing.assert_array_equal(h_bad[n:], h[n:])
    np.testing.assert_array_equal(e_bad[k:], e[k:])
    # What is not a number stays so, in sums and in maxima, as it does in the reference.
    expected = case.reference(torch.float32)
    np.testing.assert_array_equal(np.isnan(h_bad), np.isnan(expected[0]))
    np.testing.assert_array_equal(np.isnan(e_bad), np.isnan(expected[1]))


@pytest.mark.parametrize("form", FORMS)
def test_threads_agree_and_inputs_stay(arithmetic: dict[str, str], form: str) -> None:
    case = Case(form, batch_of([MLPSpec.simple((14, 64, 64, 2), skips=[(1, 2)])] * 3))
    before = case.h.clone(), case.e.clone()
    expected = case.native(**arithmetic)
    results: list[list[tuple[np.ndarray, np.ndarray]]] = [[], []]

    def work(mine: list[tuple[np.ndarray, np.ndarray]]) -> None:
        mine.extend(case.native(**arithmetic) for _ in range(5))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(mine) for mine in results] == [5, 5]
    for h, e in results[0] + results[1]:
        np.testing.assert_array_equal(h, expected[0])
        np.testing.assert_array_equal(e, expected[1])
    assert torch.equal(case.h, before[0])
    assert torch.equal(case.e, before[1])
