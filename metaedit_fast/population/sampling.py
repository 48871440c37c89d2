"""What one training run of a population is: its architecture and its hyper-parameters, drawn at random.

The order of the draws follows the paper (depth, then non-decreasing widths, then dropout, activation and norm,
then skips); the ranges are ours.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from metaedit_fast.models.spec import LayerSpec, MLPSpec

TRAINED_NORMS = ("none", "batch", "layer")
SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """One training run.

    ``spec`` is the architecture as it is stored, ``norm`` the one it is trained with: batch norm is folded
    into the linear layers of a stored model, so there ``spec`` has no norm. ``split`` holds for all
    checkpoints of the run. ``seed`` is that of the population; the run's own random streams come from
    ``(seed, run)``.
    """

    run: int
    seed: int
    spec: MLPSpec
    norm: str
    dropout: float
    batch_size: int
    learning_rate: float
    weight_decay: float
    split: str


@dataclasses.dataclass(frozen=True)
class Ranges:
    """What the sampler draws from; learning rate and weight decay log-uniformly, the rest uniformly.

    ``split_of_20`` is how many of every 20 consecutive runs go to each of ``SPLITS``, so any prefix of a
    population is divided alike. ``runs_per_shape``: that many consecutive runs share widths and batch size
    (ours) and make one shard; every run draws the rest alone, and the distribution of a single run stays that
    of the paper.
    """

    depths: tuple[int, ...] = (1, 2, 3, 4)
    widths: tuple[int, ...] = (16, 32, 64, 128)
    dropouts: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3)
    norms: tuple[str, ...] = TRAINED_NORMS
    skips: tuple[int, ...] = (0, 1, 2)
    activations: tuple[str, ...] = ("relu", "gelu", "silu", "tanh", "leaky_relu", "sigmoid")
    batch_sizes: tuple[int, ...] = (64, 128, 256, 512)
    learning_rate: tuple[float, float] = (1e-4, 1e-2)
    weight_decay: tuple[float, float] = (1e-6, 1e-2)
    split_of_20: tuple[int, int, int] = (15, 2, 3)
    runs_per_shape: int = 8

    def __post_init__(self) -> None:
        if sum(self.split_of_20) != 20 or min(self.split_of_20) < 0:
            raise ValueError(f"split_of_20: expected three counts that add to 20, got {self.split_of_20}")
        if self.runs_per_shape < 1:
            raise ValueError(f"runs_per_shape: expected a positive int, got {self.runs_per_shape}")
        unknown = set(self.norms) - set(TRAINED_NORMS)
        if unknown:
            raise ValueError(f"norms: expected some of {TRAINED_NORMS}, got {sorted(unknown)}")


DEFAULT_RANGES = Ranges()


def sample_run(run: int, *, seed: int, n_inputs: int, n_outputs: int = 2, ranges: Ranges = DEFAULT_RANGES) -> RunSpec:
    """Draw run number ``run`` of the population ``seed``; it does not depend on how many others are drawn."""
    shape = _generator(seed, "shape", run // ranges.runs_per_shape)
    depth = _choice(shape, ranges.depths)
    widths = sorted(_choice(shape, ranges.widths) for _ in range(depth))
    batch_size = _choice(shape, ranges.batch_sizes)

    own = _generator(seed, "run", run)
    dropout = _choice(own, ranges.dropouts)
    activation = _choice(own, ranges.activations)
    norm = _choice(own, ranges.norms)
    skips: list[tuple[int, int]] = []
    for target in range(2, depth + 1):
        # Ours: only hidden layers are sources; how many a layer gets is cut to how many there are.
        count = min(_choice(own, ranges.skips), target - 1)
        skips += [(int(s) + 1, target) for s in own.choice(target - 1, size=count, replace=False)]
    learning_rate = _log_uniform(own, ranges.learning_rate)
    weight_decay = _log_uniform(own, ranges.weight_decay)

    hidden = tuple(LayerSpec(w, activation, norm="layer" if norm == "layer" else "none") for w in widths)
    spec = MLPSpec(n_inputs, (*hidden, LayerSpec(n_outputs)), tuple(skips))
    split = split_of(run, seed, ranges.split_of_20)
    return RunSpec(run, seed, spec, norm, dropout, batch_size, learning_rate, weight_decay, split)


def sample_runs(
    n_runs: int, *, seed: int, n_inputs: int, n_outputs: int = 2, ranges: Ranges = DEFAULT_RANGES
) -> list[RunSpec]:
    """Runs 0 to ``n_runs - 1`` of the population ``seed``."""
    return [sample_run(i, seed=seed, n_inputs=n_inputs, n_outputs=n_outputs, ranges=ranges) for i in range(n_runs)]


def stream(run: RunSpec, purpose: str) -> np.random.Generator:
    """The run's random stream for one purpose (``"init"``, ``"order"``, ``"dropout"``): no run shares another's."""
    return _generator(run.seed, purpose, run.run)


def checkpoint_epochs(epochs: int) -> tuple[int, ...]:
    """Early, middle and last epoch of a run of ``epochs`` (60 gives 8, 24, 60); fewer where they coincide."""
    return tuple(sorted({max(1, round(epochs * 2 / 15)), max(1, round(epochs * 2 / 5)), epochs}))


def _generator(seed: int, purpose: str, index: int) -> np.random.Generator:
    # SFC64 is the quickest of numpy's generators, and dropout needs a byte for every neuron and row.
    entropy = [seed, index, int.from_bytes(purpose.encode(), "little")]
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(entropy)))


def _choice(rng: np.random.Generator, options: tuple[Any, ...]) -> Any:
    return options[int(rng.integers(len(options)))]


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    return float(math.exp(rng.uniform(math.log(bounds[0]), math.log(bounds[1]))))


def split_of(run: int, seed: int, counts: tuple[int, int, int] = DEFAULT_RANGES.split_of_20) -> str:
    """The split of a run: ``counts`` of every 20 consecutive runs go to each of ``SPLITS``, in random order."""
    block, place = divmod(run, 20)
    order = _generator(seed, "split", block).permutation(20)
    labels = [name for name, count in zip(SPLITS, counts, strict=True) for _ in range(count)]
    return labels[int(order[place])]
