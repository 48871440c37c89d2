"""The compiled minimiser on every instruction set against the same one in numpy and float64, and its bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaedit_fast import _core
from metaedit_fast.editing.odds import OddsTerm
from metaedit_fast.editing.refine import refine_all
from metaedit_fast.models.backprop import backward, trace
from metaedit_fast.models.divergence import jsd_with_gradient, mean_jsd
from metaedit_fast.models.mlp import MLP, log_proba_of
from metaedit_fast.models.spec import ACTIVATIONS, NORMS, LayerSpec, MLPSpec

RNG = np.random.default_rng(0)
X = RNG.normal(size=(600, 6)).astype(np.float32)
WIDTHS = (6, 33, 18, 3)


@pytest.fixture(params=_core.available_isas())
def isa(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def model(spec: MLPSpec, seed: int = 0, spread: float = 0.5) -> MLP:
    rng = np.random.default_rng(seed)
    mlp = MLP(spec, rng.normal(0, spread, spec.n_parameters))
    for kind, i, view in mlp.parameters():
        if kind == "bias" and not spec.layers[i].bias:
            view[:] = 0
        elif kind == "norm_scale":
            view[:] = view + 1 if spec.layers[i].norm_affine else 1
        elif kind == "norm_shift" and not spec.layers[i].norm_affine:
            view[:] = 0
    return mlp


def pruned(mlp: MLP, density: float, seed: int = 0) -> MLP:
    """With exactly that share of the weights, drawn at random; at least none and at most all."""
    theta, n = mlp.theta.copy(), mlp.spec.n_weights
    gone = np.random.default_rng(seed).permutation(n)[round(density * n) :]
    theta[gone] = 0
    return mlp.replace(theta)


def odds_penalty(odds: OddsTerm | None, logits: np.ndarray) -> tuple[float, np.ndarray]:
    """By its formula in torch and float64, with its gradient in the logits."""
    if odds is None:
        return 0.0, np.zeros_like(logits)
    torch = pytest.importorskip("torch")
    leaf = torch.tensor(logits, requires_grad=True)
    both = torch.nn.functional.pad(leaf, (1, 0)) if logits.shape[1] == 1 else leaf
    p = torch.softmax(both / odds.temperature, -1)
    labels, groups = np.asarray(odds.labels), np.asarray(odds.groups)
    total = leaf.sum() * 0.0
    for c in range(1 if p.shape[1] == 2 else 0, p.shape[1]):
        for rows in (labels == c, labels != c):
            cells = [rows & (groups == g) for g in np.unique(groups)]
            rates = [(p[torch.from_numpy(cell), c].mean(), cell.sum()) for cell in cells if cell.any()]
            for i, (rate, n) in enumerate(rates):
                for other, m in rates[:i]:
                    variance = rate * (1 - rate) / n + other * (1 - other) / m
                    expected = ((rate - other) ** 2 + odds.noise * variance).sqrt()
                    total = total + odds.strength * (expected - odds.limit).clamp(min=0) ** 2
    total.backward()
    return total.item(), leaf.grad.numpy()


class Objective:
    """Mean JSD in float64 at the free parameters, with a penalty or not, its gradient, and the Fisher information."""

    def __init__(self, edited: MLP, original: MLP, x: np.ndarray, odds: OddsTerm | None = None) -> None:
        self.mlp, self.x, self.odds = edited, x, odds
        self.log_p = log_proba_of(trace(original, x, np.float64).outputs[-1])
        self.free = edited.spec.owned_parameters.copy()
        self.free[: edited.spec.n_weights] = edited.theta[: edited.spec.n_weights] != 0

    def value(self, theta: np.ndarray) -> tuple[float, np.ndarray, float]:
        """The objective, its gradient, and the penalty in it."""
        mlp = MLP(self.mlp.spec, np.zeros_like(self.mlp.theta), self.mlp.input_scale, self.mlp.input_shift)
        mlp.theta = theta  # float64, which the constructor would round
        self.run = trace(mlp, self.x, np.float64)
        divergence, at_outputs = jsd_with_gradient(self.log_p, self.run.outputs[-1])
        penalty, of_penalty = odds_penalty(self.odds, self.run.outputs[-1])
        gradient = backward(self.run, at_outputs + of_penalty).theta
        return float(divergence.mean()) + penalty, gradient[self.free], penalty

    def scale(self) -> np.ndarray:
        spec, logits = self.mlp.spec, self.run.outputs[-1]
        p = np.exp(log_proba_of(logits))
        eye, squares = np.eye(p.shape[1]), [np.zeros_like(z) for z in self.run.outputs[1:]]
        for c in range(p.shape[1]):
            direction = (np.sqrt(p[:, [c]]) * (eye[c] - p))[:, -logits.shape[1] :]
            for total, g in zip(squares, backward(self.run, direction).linear, strict=True):
                total += g * g
        fisher = np.empty(spec.n_parameters)
        for kind, i, where, _ in spec.parameter_slices:
            if kind == "weight":
                fisher[where] = ((self.run.outputs[i] ** 2).T @ squares[i] / len(self.x)).ravel()
            else:
                fisher[where] = squares[i].mean(0) if kind == "bias" else squares[i].mean()
        fisher = fisher[self.free]
        return (fisher + 0.01 * fisher.mean() + 1.2e-38) ** -0.375


def reference(edited: MLP, original: MLP, x: np.ndarray, steps: int, odds: OddsTerm | None = None) -> list[float]:
    """The history of editing.refine."""
    objective = Objective(edited, original, x, odds)
    theta, free = edited.theta.astype(np.float64), objective.free
    value, raw, penalty = objective.value(theta)
    scale, history, pairs = objective.scale(), [value], []
    gradient = raw * scale
    while len(history) <= steps:
        direction, weights = -gradient, []
        for s, y in reversed(pairs[-10:]):
            weights.append(s @ direction / (s @ y))
            direction = direction - weights[-1] * y
        if not pairs:
            direction = direction * (value / (gradient @ gradient))
        else:
            s, y = pairs[-1]
            direction = direction * ((s @ s) / (s @ y) if penalty > 0 else (s @ y) / (y @ y))
        for (s, y), weight in zip(pairs[-10:], reversed(weights), strict=True):
            direction = direction + (weight - y @ direction / (s @ y)) * s
        slope, length, start = gradient @ direction, 1.0, theta.copy()
        while True:
            theta[free] = start[free] + length * scale * direction
            trial, raw, penalty = objective.value(theta)
            history.append(trial)
            if trial <= value + 1e-4 * length * slope or len(history) > steps:
                break
            length *= min(max(-slope * length / (2 * (trial - value - slope * length)), 0.1), 0.5)
        if (length * direction) @ (raw * scale - gradient) > 0:
            pairs.append((length * direction, raw * scale - gradient))
        value, gradient = trial, raw * scale
    return history


# Rounding grows from step to step, the more the fewer rows and parameters smooth it; so a few steps are compared.
@pytest.mark.parametrize("n_rows", [100, 256, 600])
@pytest.mark.parametrize("density", [1.0, 0.8, 0.5, 0.15])
def test_the_first_steps_are_those_of_float64(density: float, n_rows: int, isa: str) -> None:
    specs = [
        MLPSpec.simple(WIDTHS, "silu"),
        MLPSpec.simple(WIDTHS, "tanh", "layer"),
        MLPSpec.simple(WIDTHS, "gelu", skips=[(0, 1), (1, 2)]),
        MLPSpec.simple((6, 40, 1), "elu"),
        MLPSpec.simple((6, 30, 2), "sigmoid"),
    ]
    originals = [model(spec, i) for i, spec in enumerate(specs)]
    noise = np.random.default_rng(5)
    edited = [
        m.replace(np.where(p.theta == 0, 0, p.theta + noise.normal(0, 0.05, m.theta.size)))
        for m in originals
        for p in [pruned(m, density)]
    ]
    x = X[:n_rows]
    found = refine_all(edited, originals, x, steps=4, isa=isa)
    for (got, info), start, original in zip(found, edited, originals, strict=True):
        np.testing.assert_allclose(info.history, reference(start, original, x, 4), rtol=1e-4)
        assert mean_jsd(original, got, x) == pytest.approx(info.after, rel=1e-4)


@pytest.mark.parametrize("n_rows", [100, 256, 600])
@pytest.mark.parametrize(("limit", "noise"), [(0.0, 0.0), (0.05, 0.0), (0.0, 3.0), (0.2, 2.0)])
@pytest.mark.parametrize("n_outputs", [1, 2, 4])
def test_the_first_steps_with_odds_are_those_of_float64(
    n_outputs: int, limit: float, noise: float, n_rows: int, isa: str
) -> None:
    specs = [
        MLPSpec.simple((6, 33, 18, n_outputs), "silu", "layer"),
        MLPSpec.simple((6, 40, n_outputs), "tanh", skips=[(0, 1)]),
    ]
    originals = [model(spec, i) for i, spec in enumerate(specs)]
    edited = [originals[0].replace(originals[0].theta * 0.8), pruned(originals[1], 0.5)]
    rng = np.random.default_rng(6)
    labels = rng.integers(0, max(n_outputs, 2), n_rows)
    groups = np.where(X[:n_rows, 0] > 0.5, 7, rng.choice([-1, 3], n_rows))
    groups[(labels == 1) & (groups == 7)] = 3  # a cell without rows
    odds = OddsTerm(labels, groups, strength=5.0, limit=limit, noise=noise)
    found = refine_all(edited, originals, X[:n_rows], steps=3, odds=odds, isa=isa)
    for (_, info), start, original in zip(found, edited, originals, strict=True):
        np.testing.assert_allclose(info.history, reference(start, original, X[:n_rows], 3, odds), rtol=2e-4)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=8), st.integers(1, 6))
def test_bits_depend_neither_on_threads_nor_on_neighbours(chosen: list[int], n_threads: int) -> None:
    specs = [MLPSpec.simple((6, 5 + 7 * i, 2 + i % 3), "silu", NORMS[i % 2]) for i in range(8)]
    originals = [model(spec, i) for i, spec in enumerate(specs)]
    edited = [pruned(m, 1.0 - 0.12 * i) for i, m in enumerate(originals)]
    for level in _core.available_isas():
        pick = [edited[i] for i in chosen], [originals[i] for i in chosen]
        together = refine_all(*pick, X[:70], steps=5, num_threads=n_threads, isa=level)
        for i, (got, info) in zip(chosen, together, strict=True):
            alone, alone_info = refine_all([edited[i]], [originals[i]], X[:70], steps=5, num_threads=1, isa=level)[0]
            assert got.theta.tobytes() == alone.theta.tobytes()
            assert info == alone_info


@pytest.mark.parametrize("density", [0.0, 0.02, 0.3, 1.0])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_keeps_its_mask(activation: str, norm: str, density: float, isa: str) -> None:
    skips = [(0, 2), (1, 2)] if activation in ("relu", "tanh") else []
    original = model(MLPSpec.simple((6, 12, 9, 4, 2), activation, norm, skips))
    start = pruned(original, density)
    expect_kept_and_better(start, original, X[:90], isa)


@pytest.mark.parametrize("n_rows", [1, 63, 65, 257])
@pytest.mark.parametrize("widths", [(6, 2), (6, 1), (6, 1, 1, 3), (6, 512, 2), (6, 3, 2, 5, 1)])
def test_widths_and_rows_of_every_kind(widths: tuple[int, ...], n_rows: int, isa: str) -> None:
    for seed, density in enumerate((0.05, 0.4, 0.9)):
        original = model(MLPSpec.simple(widths, "gelu"), seed)
        expect_kept_and_better(pruned(original, density), original, X[:n_rows], isa)


def test_a_single_weight_and_unread_neurons(isa: str) -> None:
    original = model(MLPSpec.simple((6, 8, 8, 2), "silu"))
    start = original.replace(np.zeros_like(original.theta))
    start.weight(0)[2, 5] = 0.7  # nothing reads it: its neuron leads nowhere
    got = expect_kept_and_better(start, original, X[:200], isa)
    assert got.weight(0)[2, 5] == np.float32(0.7)
    start.weight(1)[5, 3] = start.weight(2)[3, 0] = 0.5
    got = expect_kept_and_better(start, original, X[:200], isa)
    assert got.weight(0)[2, 5] != np.float32(0.7)


def test_parameters_that_are_not_owned_keep_their_bits(isa: str) -> None:
    layer = LayerSpec(16, "relu", norm="layer", bias=False, norm_affine=False)
    original = model(MLPSpec(6, (layer, LayerSpec(2, bias=False)), output="softmax"))
    start = pruned(original, 0.5)
    start.theta[0] = -0.0
    expect_kept_and_better(start, original, X[:100], isa)


def test_other_bits_than_those_of_zero_weights_do_not_matter() -> None:
    """What is not read may even be infinite; the mask alone says what moves."""
    original = model(MLPSpec.simple((6, 10, 2)))
    start = pruned(original, 0.5)
    mask = start.theta[: start.spec.n_weights] != 0
    mask[::3] = False
    got, _ = refine_all([start], [original], X[:50], keep_masks=[mask], steps=6)[0]
    fixed = np.concatenate([~mask, np.zeros(start.spec.n_parameters - mask.size, bool)])
    assert got.theta[fixed].tobytes() == start.theta[fixed].tobytes()
    assert (got.theta[~fixed] != start.theta[~fixed]).any()


def test_a_model_that_overflows_is_alone_with_it(isa: str) -> None:
    spec = MLPSpec.simple((6, 10, 2))
    original = model(spec)
    start = pruned(original, 0.5)
    broken = start.replace(np.where(start.theta != 0, 1e38, 0))
    (same, lost), (got, info) = refine_all([broken, start], [original, original], X[:50], steps=3, isa=isa)
    assert same.theta.tobytes() == broken.theta.tobytes()
    assert lost.best_step == 0
    assert np.isnan(lost.before)
    assert got.theta.tobytes() == refine_all([start], [original], X[:50], steps=3, isa=isa)[0][0].theta.tobytes()
    assert info.after < info.before


def test_lengths_must_agree() -> None:
    original = model(MLPSpec.simple((6, 10, 2)))
    assert refine_all([], [], X) == []
    with pytest.raises(ValueError, match="originals: expected 1"):
        refine_all([original], [], X)
    with pytest.raises(ValueError, match="keep_masks: expected 1"):
        refine_all([original], [original], X, keep_masks=[])


def expect_kept_and_better(start: MLP, original: MLP, x: np.ndarray, isa: str) -> MLP:
    before = start.theta.copy()
    got, info = refine_all([start], [original], x, steps=8, isa=isa)[0]
    assert start.theta.tobytes() == before.tobytes()
    fixed = ~start.spec.owned_parameters
    fixed[: start.spec.n_weights] |= start.theta[: start.spec.n_weights] == 0
    assert got.theta[fixed].tobytes() == start.theta[fixed].tobytes()
    assert got.is_finite
    assert len(info.history) <= 9
    assert info.history[info.best_step] == min(info.history)
    assert mean_jsd(original, got, x) <= mean_jsd(original, start, x) * (1 + 1e-6) + 1e-12
    return got
