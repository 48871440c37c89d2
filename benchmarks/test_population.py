"""An epoch of one run of a population: the compiled trainer on every instruction set beside torch's modules.

All on one thread, on as many rows as Adult has for training. A figure is printed only where ten steps agree with
torch in float64. ``gflops`` counts the products alone; ``sgemm_gflops`` is torch's largest product in the same run.
"""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from metaedit_fast import _core
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import LayerSpec, MLPSpec
from metaedit_fast.population.sampling import RunSpec
from metaedit_fast.population.training import initial_parameters, new_trainer, trained_spec

N_INPUTS, N_ROWS, STEPS = 14, 26049, 10
LIMIT = 1e-3  # of the way that ten steps of Adam go, which divides by small gradients


def a_run(hidden: tuple[int, ...], batch_size: int) -> RunSpec:
    layers = tuple(LayerSpec(width, "silu") for width in hidden)
    spec = MLPSpec(N_INPUTS, (*layers, LayerSpec(2)))
    return RunSpec(0, 0, spec, "batch", 0.0, batch_size, learning_rate=1e-3, weight_decay=1e-3, split="train")


@pytest.fixture(scope="module")
def table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, labels and an order."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N_ROWS, N_INPUTS)).astype(np.float32)
    return x, (x[:, 0] * x[:, 1] > 0).astype(np.int64), rng.permutation(N_ROWS)


class TorchTrainer:
    """The same network and steps in torch's modules."""

    def __init__(self, run: RunSpec, theta: np.ndarray, dtype: str) -> None:
        torch = pytest.importorskip("torch")
        torch.set_num_threads(1)
        self.torch, self.run, self.dtype = torch, run, getattr(torch, dtype)
        mlp = MLP(trained_spec(run), theta)
        modules = []
        for i, (n_in, n_out) in enumerate(itertools.pairwise(run.spec.widths)):
            linear = torch.nn.Linear(n_in, n_out)
            linear.weight.data = torch.from_numpy(mlp.weight(i).T.copy())
            linear.bias.data = torch.from_numpy(mlp.bias(i).copy())
            is_last = i + 1 == len(run.spec.layers)
            modules += [linear] if is_last else [linear, torch.nn.BatchNorm1d(n_out), torch.nn.SiLU()]
        self.network = torch.nn.Sequential(*modules).to(self.dtype)
        self.weights = [m.weight for m in self.network if isinstance(m, torch.nn.Linear)]
        others = [p for p in self.network.parameters() if all(p is not w for w in self.weights)]
        groups = [{"params": self.weights}, {"params": others, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=run.learning_rate, weight_decay=run.weight_decay)

    def train(self, rows: tuple[np.ndarray, np.ndarray], order: np.ndarray) -> None:
        x, y = (self.torch.from_numpy(part[order]) for part in rows)
        for start in range(0, len(order) // self.run.batch_size * self.run.batch_size, self.run.batch_size):
            batch = slice(start, start + self.run.batch_size)
            loss = self.torch.nn.functional.cross_entropy(self.network(x[batch].to(self.dtype)), y[batch])
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()

    def parameters(self) -> np.ndarray:
        """The weights, which come first in θ."""
        return np.concatenate([w.detach().numpy().T.ravel() for w in self.weights])


@pytest.fixture(scope="module")
def sgemm_gflops() -> float:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    n, times = 768, []
    a = torch.ones(n, n)
    for _ in range(20):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2e-9 * n**3 / min(times)


@pytest.mark.parametrize("engine", ["torch", *_core.available_isas()])
@pytest.mark.parametrize("batch_size", [64, 512])
@pytest.mark.parametrize("hidden", [(16,), (32, 64), (64, 128), (64, 128, 128, 128)], ids=str)
def test_epoch(benchmark, table, sgemm_gflops, hidden: tuple[int, ...], batch_size: int, engine: str) -> None:
    x, y, order = table
    run = a_run(hidden, batch_size)
    start = initial_parameters(run)

    def trainer_and_rows(dtype: str = "float32"):
        if engine == "torch" or dtype == "float64":
            return TorchTrainer(run, start, dtype), (x, y)
        return new_trainer(run, start, isa=engine), _core.TrainingRows(x, y)

    (exact, exact_rows), (trainer, rows) = trainer_and_rows("float64"), trainer_and_rows()
    few, n = order[: STEPS * batch_size], run.spec.n_weights
    exact.train(exact_rows, few)
    trainer.train(rows, few)
    way = exact.parameters() - start[:n]
    assert np.linalg.norm(trainer.parameters()[:n] - start[:n] - way) < LIMIT * np.linalg.norm(way)

    benchmark.pedantic(trainer.train, (rows, order), rounds=5 if engine == "torch" else 20)
    products = 3 * n - N_INPUTS * hidden[0]  # the inputs' gradient is not wanted
    flops = 2 * products * (N_ROWS // batch_size * batch_size)
    benchmark.extra_info["gflops"] = 1e-9 * flops / benchmark.stats.stats.min
    benchmark.extra_info["sgemm_gflops"] = sgemm_gflops
    benchmark.extra_info["weights"] = n
