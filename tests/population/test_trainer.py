"""The compiled trainer against torch in float64: gradients, steps of AdamW, running statistics, dropout."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metaedit_fast import _core
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import LayerSpec, MLPSpec
from metaedit_fast.population.sampling import RunSpec, stream
from metaedit_fast.population.training import folded, initial_parameters, new_trainer, trained_spec

ISAS = _core.available_isas()
N_ROWS = 700
DENSE_SKIPS = ((1, 2), (1, 3), (2, 3), (2, 4))
WIDTHS = (7, 16, 48, 64, 128, 2)
# Widths that fill no vector, narrower behind wider, one neuron; skips over all of them.
RAGGED = (5, 20, 1, 33, 17, 3)

MODULES = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "leaky_relu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
}
NORMS = {"none": lambda width: nn.Identity(), "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


def a_run(
    widths: tuple[int, ...],
    *,
    activation: str = "silu",
    norm: str = "none",
    skips: tuple[tuple[int, int], ...] = (),
    dropout: float = 0.0,
    batch_size: int = 64,
    number: int = 0,
) -> RunSpec:
    n_inputs, *hidden, n_outputs = widths
    layers = tuple(LayerSpec(w, activation, norm="layer" if norm == "layer" else "none") for w in hidden)
    spec = MLPSpec(n_inputs, (*layers, LayerSpec(n_outputs)), skips)
    return RunSpec(number, 0, spec, norm, dropout, batch_size, learning_rate=1e-3, weight_decay=0.1, split="train")


class Network(nn.Module):
    """A run in training mode, from ``theta`` in the layout of ``trained_spec(run)``."""

    def __init__(self, run: RunSpec, theta: np.ndarray, dtype: torch.dtype) -> None:
        super().__init__()
        self.run = run
        widths, layers = run.spec.widths, run.spec.layers
        self.linear = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.norm = nn.ModuleList(NORMS[run.norm](w) for w in widths[1:-1])
        self.activation = nn.ModuleList(MODULES[layer.activation]() for layer in layers[:-1])
        self.to(dtype)
        mlp = MLP(trained_spec(run), theta)
        with torch.no_grad():
            for (kind, _, value), target in zip(mlp.parameters(), self.in_order(), strict=True):
                target.copy_(torch.from_numpy(value.T if kind == "weight" else value))

    def in_order(self) -> Iterator[nn.Parameter]:
        """The parameters in the order of θ."""
        yield from (linear.weight for linear in self.linear)
        yield from (linear.bias for linear in self.linear)
        if self.run.norm != "none":
            yield from (p for norm in self.norm for p in (norm.weight, norm.bias))

    def forward(self, x: Tensor, masks: list[Tensor]) -> Tensor:
        outputs = [x]
        for i, (linear, norm, activation) in enumerate(zip(self.linear, self.norm, self.activation, strict=False)):
            z = norm(linear(outputs[-1]))
            for source in self.run.spec.skips_into(i + 1):
                c = min(z.shape[1], outputs[source].shape[1])
                z = z + nn.functional.pad(outputs[source][:, :c], (0, z.shape[1] - c))
            outputs.append(activation(z) * masks[i])
        return self.linear[-1](outputs[-1])

    def flat(self, *, gradient: bool = False) -> np.ndarray:
        """Parameters or gradients as θ."""
        values = [p.grad if gradient else p.detach() for p in self.in_order()]
        return np.concatenate([v.T.numpy().ravel() if v.ndim == 2 else v.numpy() for v in values])

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        means, variances = ([getattr(n, name) for n in self.norm] for name in ("running_mean", "running_var"))
        return torch.cat(means).numpy(), torch.cat(variances).numpy()

    def optimiser(self) -> torch.optim.AdamW:
        weights = [linear.weight for linear in self.linear]
        others = [p for p in self.parameters() if all(p is not w for w in weights)]
        groups = [
            {"params": weights, "weight_decay": self.run.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.run.learning_rate)


@dataclasses.dataclass
class DropoutMasks:
    """The random bytes of the trainer: xoshiro128++ in 16 lanes, a generator for each hidden layer."""

    run: RunSpec
    state: np.ndarray  # uint32 [hidden layers, 4, 16], as MlpTrainer takes it

    def __post_init__(self) -> None:
        self.state = self.state.copy()

    def next_batch(self) -> list[np.ndarray]:
        """Masks ``[batch, width]`` of every hidden layer; whole rounds of 64 bytes for every 64 rows."""
        threshold = round(256 * self.run.dropout)
        masks = []
        for i, width in enumerate(self.run.spec.widths[1:-1]):
            columns = -(-width // 16) * 16
            blocks = []
            for first in range(0, self.run.batch_size, 64):
                rows = min(64, self.run.batch_size - first)
                drawn = self._bytes(i, -(-rows * columns // 64)) if threshold else np.zeros(64 * rows * columns)
                blocks.append(drawn[: rows * columns].reshape(rows, columns)[:, :width])
            masks.append((np.concatenate(blocks) >= threshold) * 256 / (256 - threshold))
        return masks

    def _bytes(self, layer: int, rounds: int) -> np.ndarray:
        words = np.stack([_next(self.state[layer]) for _ in range(rounds)])
        shifts = np.array([0, 8, 16, 24], np.uint32)
        return ((words[:, None, :] >> shifts[None, :, None]) & 255).ravel()


def _next(s: np.ndarray) -> np.ndarray:
    result = _rotated(s[0] + s[3], 7) + s[0]
    shifted = s[1] << np.uint32(9)
    s[2] ^= s[0]
    s[3] ^= s[1]
    s[1] ^= s[2]
    s[0] ^= s[3]
    s[2] ^= shifted
    s[3] = _rotated(s[3], 11)
    return result


def _rotated(x: np.ndarray, by: int) -> np.ndarray:
    return (x << np.uint32(by)) | (x >> np.uint32(32 - by))


def rows_for(run: RunSpec) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(run.run)
    x = rng.normal(size=(N_ROWS, run.spec.n_inputs)).astype(np.float32)
    return x, rng.integers(0, run.spec.n_outputs, N_ROWS)


def start_of(run: RunSpec) -> np.ndarray:
    """Norms at their initial 1 and 0 would hide mistakes."""
    theta = initial_parameters(run)
    return theta + np.random.default_rng(1).normal(0, 0.1, theta.shape).astype(np.float32)


def dropout_state(run: RunSpec) -> np.ndarray:
    return stream(run, "dropout").integers(0, 2**32, (len(run.spec.layers) - 1, 4, 16), np.uint32)


def distance(found: np.ndarray, exact: np.ndarray) -> float:
    assert np.isfinite(found).all()
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def compare(run: RunSpec, isa: str, *, steps: int, dtype: torch.dtype = torch.float64) -> dict[str, float]:
    """Relative distances of gradient, way from the start, and running statistics after ``steps`` steps."""
    x, y = rows_for(run)
    theta = start_of(run)
    trainer = new_trainer(run, theta, isa=isa)
    network, masks = Network(run, theta, dtype), DropoutMasks(run, dropout_state(run))
    optimiser = network.optimiser()
    order = np.random.default_rng(2).integers(0, N_ROWS, steps * run.batch_size + 1)  # what is too much is left out
    trainer.train(_core.TrainingRows(x, y), order)
    for step in range(steps):
        batch = order[step * run.batch_size : (step + 1) * run.batch_size]
        given = [torch.from_numpy(m).to(dtype) for m in masks.next_batch()]
        loss = torch.nn.functional.cross_entropy(
            network(torch.from_numpy(x[batch]).to(dtype), given), torch.from_numpy(y[batch])
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    found = {
        "gradient": distance(trainer.gradient(), network.flat(gradient=True)),
        "way": distance(trainer.parameters() - theta, network.flat() - theta),
    }
    if run.norm == "batch":
        means, variances = zip(trainer.statistics(), network.statistics(), strict=True)
        found |= {"mean": distance(*means), "variance": distance(*variances)}
    return found


def expect_close(found: dict[str, float], *, gradient: float, way: float) -> None:
    assert found["gradient"] < gradient
    assert found["way"] < way
    assert found.get("mean", 0.0) < 1e-5
    assert found.get("variance", 0.0) < 1e-5


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("skips", [(), DENSE_SKIPS], ids=["plain", "skips"])
@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("activation", sorted(MODULES))
def test_steps_are_torchs(activation: str, norm: str, skips: tuple[tuple[int, int], ...], dropout: float, isa: str):
    run = a_run(WIDTHS, activation=activation, norm=norm, skips=skips, dropout=dropout)
    expect_close(compare(run, isa, steps=1), gradient=1e-5, way=1e-3)
    expect_close(compare(run, isa, steps=10), gradient=1e-4, way=1e-3)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("batch_size", [2, 40, 64, 130, 512])
def test_any_batch_size_and_width(batch_size: int, norm: str, isa: str) -> None:
    run = a_run(RAGGED, norm=norm, skips=DENSE_SKIPS, dropout=0.3, batch_size=batch_size, activation="sigmoid")
    # One neuron between batch norms is badly conditioned: torch's own float32 gradient is 1.1e-5 off for 40 rows. And
    # with two rows many gradients are all but zero, of which the first step of Adam takes the sign.
    expect_close(compare(run, isa, steps=1), gradient=2e-5, way=2e-2)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("widths", [(14, 2), (14, 512, 2), (3, 1, 2), (14, 64, 10)])
def test_other_shapes(widths: tuple[int, ...], isa: str) -> None:
    expect_close(compare(a_run(widths, batch_size=96), isa, steps=3), gradient=1e-5, way=1e-3)


def test_float32_torch_is_no_closer() -> None:
    """The limits above are those of the precision: torch's own float32 steps are about as far from float64.

    Not with batch norm: there torch's biases follow rounding noise, and ours stay, as in float64.
    """
    run = a_run(WIDTHS, norm="layer", skips=DENSE_SKIPS, dropout=0.2, activation="gelu")
    ours = compare(run, ISAS[-1], steps=10)
    beside = compare(run, ISAS[-1], steps=10, dtype=torch.float32)
    assert ours["way"] < 4 * beside["way"]


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_a_stored_model_is_the_network_in_evaluation(norm: str) -> None:
    """Batch norm, with its running statistics, is folded into the linear layers."""
    run = a_run(RAGGED, norm=norm, skips=DENSE_SKIPS, dropout=0.2)
    x, y = rows_for(run)
    trainer = new_trainer(run, start_of(run))
    trainer.train(_core.TrainingRows(x, y), np.arange(640))
    theta, statistics = trainer.parameters(), trainer.statistics()
    network = Network(run, theta, torch.float64).eval()
    if norm == "batch":
        ends = np.cumsum(run.spec.widths[1:-1])[:-1]
        for module, *values in zip(network.norm, *(np.split(s, ends) for s in statistics), strict=True):
            module.running_mean[:], module.running_var[:] = map(torch.from_numpy, values)
    ones = [torch.ones(1)] * len(network.norm)
    with torch.no_grad():
        logits = network(torch.from_numpy(x).double(), ones).numpy()
    stored = MLP(run.spec, folded(run, theta, *statistics))
    assert distance(stored.logits(x, np.float64), logits) < 1e-6


def test_the_levels_draw_the_same_masks() -> None:
    run = a_run((5, 33, 2), dropout=0.3, batch_size=512)
    x, y = rows_for(run)
    found = []
    for isa in ISAS:
        trainer = new_trainer(run, start_of(run), isa=isa)
        trainer.train(_core.TrainingRows(x, y), np.arange(512))
        found.append(trainer.gradient())
    for other in found[1:]:
        assert distance(other, found[0]) < 1e-5


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.3])
def test_dropout_keeps_the_mean_and_the_rate(rate: float) -> None:
    run = a_run((5, 64, 64, 2), dropout=rate, batch_size=512)
    masks = DropoutMasks(run, dropout_state(run)).next_batch()
    drawn = np.concatenate([m.ravel() for m in masks])
    assert (drawn == 0).mean() == pytest.approx(rate, abs=0.01)
    assert drawn.mean() == pytest.approx(1.0, abs=0.01)
    assert not np.array_equal(masks[0], masks[1])


def test_denormal_numbers_stay_outside() -> None:
    run = a_run((5, 16, 2))
    new_trainer(run, start_of(run)).train(_core.TrainingRows(*rows_for(run)), np.arange(640))
    assert np.array([1e-30], np.float32) * np.float32(1e-10) > 0


class TestArguments:
    run = a_run((5, 16, 2))

    def test_a_batch_of_one_has_no_variance(self) -> None:
        run = dataclasses.replace(a_run((5, 16, 2), norm="batch"), batch_size=1)
        with pytest.raises(ValueError, match="batch_size: expected 2 to 2\\^20, got 1"):
            new_trainer(run, initial_parameters(run))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"learning_rate": float("nan")}, "learning_rate: expected a finite number from 0 on, got nan"),
            ({"weight_decay": -1.0}, "weight_decay: expected a finite number from 0 on, got -1"),
            ({"dropout": 1.0}, "dropped_bytes: expected 0 to 255, got 256"),
            ({"spec": a_run((5, 16, 1)).spec}, "shape: expected at least two outputs, got 1"),
        ],
    )
    def test_numbers_out_of_range(self, change: dict[str, object], message: str) -> None:
        run = dataclasses.replace(self.run, **change)
        with pytest.raises(ValueError, match=message):
            new_trainer(run, initial_parameters(run))

    def test_arrays(self) -> None:
        x, y = rows_for(self.run)
        trainer = new_trainer(self.run, initial_parameters(self.run))
        rows = _core.TrainingRows(x, y)
        with pytest.raises(ValueError, match="order: expected numbers of rows, 0 to 699, got 700"):
            trainer.train(rows, np.arange(701))
        with pytest.raises(TypeError, match="order: expected a int64 array"):
            trainer.train(rows, np.arange(64, dtype=np.int32))
        with pytest.raises(ValueError, match="rows: expected 5 columns, got 4"):
            trainer.train(_core.TrainingRows(np.ascontiguousarray(x[:, :4]), y), np.arange(64))
        with pytest.raises(ValueError, match="rows: expected labels below 2, got 2"):
            trainer.train(_core.TrainingRows(x, y + 1), np.arange(64))
        with pytest.raises(ValueError, match="labels: expected 0 to"):
            _core.TrainingRows(x, y - 1)
        with pytest.raises(ValueError, match="theta: expected a float32 array of shape"):
            new_trainer(self.run, initial_parameters(self.run)[1:])
        before = trainer.parameters()
        trainer.train(rows, np.arange(63))  # less than a batch
        assert np.array_equal(trainer.parameters(), before)
