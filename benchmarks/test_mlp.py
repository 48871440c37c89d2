"""Passes of one trained MLP over rows: native on every instruction set beside numpy and torch on one thread.

A figure is printed only for a result that agrees with numpy in float64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from metaedit_fast import _core
from metaedit_fast.editing.refine import refine, refine_all
from metaedit_fast.evaluation.baselines.pruning import prune
from metaedit_fast.models import native
from metaedit_fast.models.backprop import Trace, backward, trace
from metaedit_fast.models.divergence import jsd, jsd_with_gradient, mean_jsd
from metaedit_fast.models.evaluation import evaluate, predictions_of
from metaedit_fast.models.groups import LabelledRows, group_statistics
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec
from metaedit_fast.threads import thread_count

N_INPUTS = 14
LIMIT = 1e-5
Pass = Callable[[MLP, np.ndarray, np.ndarray], np.ndarray]


def numpy_forward(mlp: MLP, log_p: np.ndarray, x: np.ndarray, dtype: type[np.floating] = np.float32) -> np.ndarray:
    return trace(mlp, x, dtype).outputs[-1]


def numpy_gradient(mlp: MLP, log_p: np.ndarray, x: np.ndarray, dtype: type[np.floating] = np.float32) -> np.ndarray:
    run = trace(mlp, x, dtype)
    return backward(run, jsd_with_gradient(log_p, run.outputs[-1])[1]).theta


def numpy_statistics(mlp: MLP, log_p: np.ndarray, x: np.ndarray, dtype: type[np.floating] = np.float32) -> np.ndarray:
    """``E[a² g²]`` of a model of two classes, the largest part of the probe's statistics."""
    run: Trace = trace(mlp, x, dtype)
    shifted = run.outputs[-1] - run.outputs[-1].max(axis=1, keepdims=True)
    root = np.exp((shifted.sum(axis=1) / 2) - np.log(np.exp(shifted).sum(axis=1)))[:, None]
    linear = backward(run, np.concatenate([-root, root], axis=1)).linear
    return np.concatenate(
        [((a * a).T @ (g * g)).ravel() / len(x) for a, g in zip(run.outputs[:-1], linear, strict=True)]
    )


REFERENCE: dict[str, Callable[..., np.ndarray]] = {
    "forward": numpy_forward,
    "value_and_gradient": numpy_gradient,
    "probe_statistics": numpy_statistics,
}


def native_pass(task: str, isa: str) -> Pass:
    return {
        "forward": lambda mlp, log_p, x: native.logits(mlp, x, isa=isa),
        "value_and_gradient": lambda mlp, log_p, x: native.value_and_gradient(mlp, log_p, x, isa=isa)[1],
        "probe_statistics": lambda mlp, log_p, x: native.probe_statistics(mlp, x, isa=isa)[3],
    }[task]


def torch_pass(task: str) -> Pass:
    torch = pytest.importorskip("torch")
    if task == "probe_statistics":
        pytest.skip("torch has no per-row gradients outside vmap")
    torch.set_num_threads(1)
    silu = torch.nn.functional.silu

    def forward(mlp: MLP, x: np.ndarray):
        parts = [
            torch.from_numpy(mlp.parameter(kind, i)).requires_grad_(task != "forward")
            for kind in ("weight", "bias")
            for i in range(len(mlp.spec.layers))
        ]
        n, h = len(mlp.spec.layers), torch.from_numpy(x)
        for i in range(n):
            h = torch.addmm(parts[n + i], h, parts[i])
            h = silu(h) if i + 1 < n else h
        return parts, h

    @torch.no_grad()
    def logits(mlp: MLP, log_p: np.ndarray, x: np.ndarray) -> np.ndarray:
        return forward(mlp, x)[1].numpy()

    def gradient(mlp: MLP, log_p: np.ndarray, x: np.ndarray) -> np.ndarray:
        parts, z = forward(mlp, x)
        p, log_q = torch.from_numpy(log_p), torch.log_softmax(z, 1)
        middle = torch.logaddexp(p, log_q) - np.log(2)
        kl = [torch.nn.functional.kl_div(middle, a, reduction="batchmean", log_target=True) for a in (p, log_q)]
        return np.concatenate([g.numpy().ravel() for g in torch.autograd.grad((kl[0] + kl[1]) / 2, parts)])

    return logits if task == "forward" else gradient


@pytest.fixture(scope="module")
def case() -> tuple[MLP, np.ndarray, np.ndarray]:
    """A network of 2660 weights, the log-probabilities of its neighbour, 1000 rows."""
    spec = MLPSpec.simple((N_INPUTS, 46, 42, 2), "silu")
    rng = np.random.default_rng(0)
    mlp = MLP(spec, rng.normal(0, 0.2, spec.n_parameters))
    x = rng.normal(size=(1000, N_INPUTS)).astype(np.float32)
    return mlp, mlp.replace(mlp.theta + rng.normal(0, 0.05, mlp.theta.size)).log_proba(x), x


@pytest.mark.parametrize("engine", ["numpy", "torch", *_core.available_isas()])
@pytest.mark.parametrize(("task", "rows"), [("forward", 1000), ("value_and_gradient", 256), ("probe_statistics", 256)])
def test_one_model(benchmark, case, task: str, rows: int, engine: str) -> None:
    mlp, log_p, x = case[0], case[1][:rows], case[2][:rows]
    engines = {"numpy": lambda: REFERENCE[task], "torch": lambda: torch_pass(task)}
    run = engines[engine]() if engine in engines else native_pass(task, engine)
    exact = REFERENCE[task](mlp, log_p, x, np.float64)
    assert np.linalg.norm(run(mlp, log_p, x) - exact) < LIMIT * np.linalg.norm(exact)
    benchmark(run, mlp, log_p, x)
    benchmark.extra_info["weights"] = mlp.spec.n_weights


@pytest.mark.parametrize("isa", _core.available_isas())
def test_population_forward(benchmark, population, isa: str) -> None:
    """1000 rows through each of 64 networks, on all threads."""
    x = np.random.default_rng(1).normal(size=(1000, N_INPUTS)).astype(np.float32)
    found = native.logits_of(population, x, isa=isa)
    for mlp, logits in zip(population, found, strict=True):
        exact = mlp.logits(x, np.float64)
        assert np.linalg.norm(logits - exact) < LIMIT * np.linalg.norm(exact)
    benchmark(native.logits_of, population, x, isa=isa)
    benchmark.extra_info["models_per_second"] = len(population) / benchmark.stats.stats.median
    benchmark.extra_info["threads"] = thread_count()


def test_population_by_groups(benchmark, population) -> None:
    """What an edit for equalised odds is told of 64 networks on 6512 labelled rows, as many as Adult's validation rows,
    on one thread.
    """
    rng = np.random.default_rng(1)
    x = rng.normal(size=(6512, N_INPUTS)).astype(np.float32)
    rows = LabelledRows(x, rng.integers(0, 2, len(x)), rng.integers(0, 2, len(x)))
    for mlp, found in zip(population, group_statistics(population, rows), strict=True):
        inputs = [
            mlp.normalised(x)[(rows.labels == y) & (rows.groups == g)].mean(axis=0) for y in (0, 1) for g in (0, 1)
        ]
        for means in (found.means[:N_INPUTS, :2], found.means[:N_INPUTS, 2:]):
            assert all(any(np.allclose(mean, own, atol=1e-4) for own in inputs) for mean in means.T)
    benchmark(group_statistics, population, rows)
    benchmark.extra_info["ms_per_model"] = 1e3 * benchmark.stats.stats.median / len(population)


@pytest.mark.parametrize("sparsity", [0.0, 0.9])
def test_population_evaluation(benchmark, population, sparsity: float) -> None:
    """JSD and confusion counts of 64 networks on 1000 rows, on all threads."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(1000, N_INPUTS)).astype(np.float32), rng.integers(0, 2, 1000)
    edited = [prune("magnitude", mlp, sparsity) for mlp in population]
    originals = predictions_of(population, x)
    found = evaluate(edited, x, y, originals=originals)
    for mlp, original, divergence, accuracy in zip(edited, population, found.jsd, found.accuracy, strict=True):
        exact = jsd(original.log_proba(x, np.float64), mlp.log_proba(x, np.float64)).mean()
        assert abs(divergence - exact) < LIMIT * exact + 1e-12
        assert accuracy == np.mean(mlp.predict(x) == y)
    benchmark(evaluate, edited, x, y, originals=originals)
    benchmark.extra_info["models_per_second"] = len(population) / benchmark.stats.stats.median
    benchmark.extra_info["threads"] = thread_count()


@pytest.mark.parametrize("sparsity", [0.5, 0.9])
def test_population_refinement(benchmark, population, sparsity: float) -> None:
    """30 steps of 64 pruned networks on 256 rows, on all threads."""
    x = np.random.default_rng(1).normal(size=(256, N_INPUTS)).astype(np.float32)
    edited = [prune("magnitude", mlp, sparsity) for mlp in population]
    for (refined, _), start, original in zip(refine_all(edited, population, x), edited, population, strict=True):
        assert mean_jsd(original, refined, x) < mean_jsd(original, start, x)
    benchmark(refine_all, edited, population, x)
    benchmark.extra_info["ms_per_model"] = 1e3 * benchmark.stats.stats.median / len(population)
    benchmark.extra_info["threads"] = thread_count()


@pytest.mark.parametrize("sparsity", [0.0, 0.9])
def test_refine(benchmark, case, sparsity: float) -> None:
    """30 steps on 256 rows, on the instruction set in force; from a disturbed or a pruned model."""
    original, _, x = case
    noise = np.random.default_rng(3).normal(0, 0.05, original.theta.size)
    start = prune("magnitude", original, sparsity) if sparsity else original.replace(original.theta + noise)
    refined, info = benchmark(refine, start, original, x[:256], steps=30)
    assert mean_jsd(original, refined, x[:256]) < 0.8 * mean_jsd(original, start, x[:256])
    assert len(info.history) > 1
    benchmark.extra_info["steps"] = len(info.history) - 1
