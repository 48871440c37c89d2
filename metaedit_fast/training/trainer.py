"""The trainer of editors: a thin loop with progress, checkpoints, resume and early stopping."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
import zipfile
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from metaedit_fast._core import PanelRows
from metaedit_fast.atomic import atomic_file
from metaedit_fast.errors import InvalidCheckpointError
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.metanet.metanetwork import Metanetwork
from metaedit_fast.metanet.native import pack
from metaedit_fast.models.evaluation import evaluate, predictions_of
from metaedit_fast.models.mlp import MLP
from metaedit_fast.requirements import Requirement
from metaedit_fast.threads import thread_count
from metaedit_fast.training.examples import ExampleBatch, ExampleSource
from metaedit_fast.training.objective import conditions, heads_of, loss_of, native_heads, preservation, relaxed_edit
from metaedit_fast.training.optimizer import FlatAdamW
from metaedit_fast.training.threads import one_torch_thread

STATE = "trainer.pt"
STATE_FORMAT = 2


@dataclasses.dataclass(frozen=True)
class TrainerConfig:
    """How to train (docs/method.md, "Training"); the defaults are ours.

    ``steps`` of ``models_per_step`` models on ``rows_per_step`` data rows; AdamW with ``learning_rate``,
    linear warm-up, cosine decay to 2 %; gradients clipped at norm ``clip``. Every ``evaluate_every`` steps
    the editor is measured on population-val at ``budgets``; the best one is kept, and training stops
    after ``patience`` evaluations without a better one. Models are drawn with a probability proportional to
    ``n_weights ** -size_exponent`` (ours): at a given sparsity small models are the harder ones, and large
    ones would take most of the time. ``single_output_share`` of the two-class models enter in their
    single-output form. ``seed`` fixes everything: two runs on one machine give the same bits,
    whatever the number of threads.
    """

    steps: int = 1500
    models_per_step: int = 20
    rows_per_step: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: int = 100
    clip: float = 1.0
    size_exponent: float = 0.5
    single_output_share: float = 0.2
    evaluate_every: int = 150
    patience: int = 6
    validation_models: int = 48
    budgets: tuple[float, ...] = (0.5, 0.8, 0.9, 0.95, 0.98)
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Mean JSD on population-val by budget, and ``score``, the mean of its logarithm (lower is better)."""

    step: int
    score: float
    jsd: dict[str, float]
    seconds: float


class Trainer:
    """Trains one editor on ``train`` models and rows ``x [rows, n_inputs]``; no labels are needed.

    ``probe`` (rows, for probe features) is required exactly where ``config.probe``. With ``folder`` the
    state is written there after every evaluation, and a second trainer with the same arguments goes on
    where the first one stopped. ``num_threads`` (default: ``METAEDIT_NUM_THREADS``, else all processors) changes
    nothing but the time. Raises ``ValueError`` on empty populations, ``InvalidCheckpointError`` where
    the folder belongs to a training with other arguments or its state is damaged.
    """

    def __init__(
        self,
        config: MetanetConfig,
        settings: TrainerConfig,
        requirement: Requirement,
        train: Sequence[MLP],
        validation: Sequence[MLP],
        x: NDArray[np.float32],
        x_validation: NDArray[np.float32],
        *,
        probe: NDArray[np.float32] | None = None,
        folder: Path | None = None,
        num_threads: int | None = None,
    ) -> None:
        if not train or not validation:
            raise ValueError(
                f"population: expected models to train and validate on, got {len(train)}, {len(validation)}"
            )
        self.settings = settings
        self.requirement = requirement
        self.num_threads = thread_count(num_threads)
        self.x = torch.from_numpy(np.ascontiguousarray(x, np.float32))
        self.x_validation = np.ascontiguousarray(x_validation, np.float32)
        self.train = ExampleSource(train, config, probe)
        self.validation = ExampleSource(_spread(validation, settings.validation_models), config, probe)
        sizes = np.array([mlp.spec.n_weights for mlp in train], np.float64)
        self.probability = sizes**-settings.size_exponent / (sizes**-settings.size_exponent).sum()
        self.rng = np.random.default_rng(settings.seed)
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            self.net = Metanetwork(config)
        self.optimizer = FlatAdamW(
            self.net,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            clip=settings.clip,
            undecayed=["node_type.weight"],  # an embedding
        )
        self.step = 0
        self.seconds = 0.0
        self.history: list[Evaluation] = []
        self.best_state = _copied(self.net)
        self.folder = folder
        if folder is not None:
            self._fingerprint = {
                "format": STATE_FORMAT,
                "config": dataclasses.asdict(config),
                "settings": dataclasses.asdict(settings),
                "requirement": requirement.name,
                "training models": _models_hash(train),
                "validation models": _models_hash(validation),
                "rows": _rows_hash(x),
                "validation rows": _rows_hash(x_validation),
                "probe": None if probe is None else _rows_hash(probe),
            }
            self._resume(folder)

    def run(self, report: Callable[[Trainer, float], None] | None = None) -> Metanetwork:
        """Train to the end and return the best network. ``report(trainer, loss)`` is called after each step."""
        with one_torch_thread():
            while self.step < self.settings.steps and not self._out_of_patience():
                started = time.perf_counter()
                loss = self._train_step()
                self.step += 1
                if self.step % self.settings.evaluate_every == 0 or self.step == self.settings.steps:
                    self._keep_best(self.evaluate())
                    self.seconds += time.perf_counter() - started
                    self._save()
                else:
                    self.seconds += time.perf_counter() - started
                if report is not None:
                    report(self, loss)
        self.net.load_state_dict(self.best_state)
        return self.net

    @property
    def best(self) -> Evaluation | None:
        return min(self.history, key=lambda evaluation: evaluation.score, default=None)

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """Measure the present network on population-val."""
        packed = pack(self.net.config, {name: value.numpy() for name, value in self.net.state_dict().items()})
        jsd = {}
        for budget in self.settings.budgets:
            found = []
            for batch, originals in self._validation_batches:
                budgets = [budget] * len(batch.examples)
                condition = conditions(self.requirement, budgets)
                heads = native_heads(packed, batch, condition, num_threads=self.num_threads)
                edited = batch.split(relaxed_edit(self.requirement, self.net.config.gamma, batch, heads, budgets))
                measured = evaluate(edited, self.x_validation, originals=originals, num_threads=self.num_threads)
                assert measured.jsd is not None
                found += measured.jsd.tolist()
            jsd[f"{budget:g}"] = float(np.mean(found))
        score = sum(math.log(value + 1e-12) for value in jsd.values()) / len(jsd)
        return Evaluation(self.step, score, jsd, self.seconds)

    @cached_property
    def _validation_batches(self) -> list[tuple[ExampleBatch, list[PanelRows]]]:
        """With what the models predict unedited."""
        examples = [self.validation.get(i) for i in range(len(self.validation.mlps))]
        count = self.settings.models_per_step
        batches = [ExampleBatch.join(examples[start : start + count]) for start in range(0, len(examples), count)]
        return [(b, predictions_of(b.mlps, self.x_validation, num_threads=self.num_threads)) for b in batches]

    def _train_step(self) -> float:
        settings = self.settings
        batch = self._sample_batch()
        budgets = self.requirement.sample_budgets(self.rng, len(batch.examples)).tolist()
        rows = self.x[torch.from_numpy(self.rng.integers(0, len(self.x), settings.rows_per_step))]
        condition = conditions(self.requirement, budgets)
        heads = heads_of(self.net, batch, condition, num_threads=self.num_threads)
        edited = relaxed_edit(self.requirement, self.net.config.gamma, batch, heads, budgets)
        loss = loss_of(preservation(batch, edited, rows, num_threads=self.num_threads))
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step(settings.learning_rate * self._schedule())
        return float(loss.detach())

    def _sample_batch(self) -> ExampleBatch:
        count = min(self.settings.models_per_step, len(self.train.mlps))
        chosen = self.rng.choice(len(self.train.mlps), count, replace=False, p=self.probability)
        single = self.rng.random(count) < self.settings.single_output_share
        return ExampleBatch.join(
            [
                self.train.get(int(i), single_output=bool(s) and self.train.mlps[i].spec.n_outputs == 2)
                for i, s in zip(chosen, single, strict=True)
            ]
        )

    def _schedule(self) -> float:
        warm = min(1.0, (self.step + 1) / self.settings.warmup)
        return warm * (0.49 * (1 + math.cos(math.pi * self.step / self.settings.steps)) + 0.02)

    def _keep_best(self, evaluation: Evaluation) -> None:
        if self.best is None or evaluation.score < self.best.score:
            self.best_state = _copied(self.net)
        self.history.append(evaluation)

    def _out_of_patience(self) -> bool:
        if self.best is None:
            return False
        return self.history[-1].step - self.best.step >= self.settings.patience * self.settings.evaluate_every

    def _save(self) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "fingerprint": json.dumps(self._fingerprint),
            "step": self.step,
            "seconds": self.seconds,
            "rng": json.dumps(self.rng.bit_generator.state),
            "network": self.net.state_dict(),
            "best": self.best_state,
            "optimizer": self.optimizer.state_dict(),
            "history": json.dumps([dataclasses.asdict(evaluation) for evaluation in self.history]),
        }
        with atomic_file(self.folder / STATE) as file:
            torch.save(state, file)

    def _resume(self, folder: Path) -> None:
        path = folder / STATE
        if not path.exists():
            return
        try:
            with zipfile.ZipFile(path) as archive:  # torch compares no checksums
                if archive.testzip() is not None:
                    raise ValueError("checksum")
            state = torch.load(path, weights_only=True)
            there = json.loads(state["fingerprint"])
            differ = [name for name, value in _as_json(self._fingerprint).items() if there.get(name) != value]
            if not differ:
                self._restore(state)
        except OSError:
            raise
        except Exception as error:  # torch.load, and what it gives of a damaged file, may raise almost anything
            raise InvalidCheckpointError(
                f"{path}: not the state of a training, or damaged ({type(error).__name__}); without it, training "
                "begins anew"
            ) from error
        if differ:
            raise InvalidCheckpointError(
                f"{path}: it belongs to another training, with other {', '.join(differ)}; choose another folder"
            )

    def _restore(self, state: dict[str, Any]) -> None:
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self.rng.bit_generator.state = json.loads(state["rng"])
        # The best network first, through the module, which checks names and shapes; then the present one.
        self.net.load_state_dict(state["best"])
        self.best_state = _copied(self.net)
        self.net.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = [Evaluation(**evaluation) for evaluation in json.loads(state["history"])]


def _copied(net: Metanetwork) -> dict[str, Any]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def _models_hash(mlps: Sequence[MLP]) -> str:
    """sha256 over the models in their order, in hex."""
    return hashlib.sha256("".join(mlp.content_hash() for mlp in mlps).encode()).hexdigest()


def _rows_hash(rows: NDArray[np.float32]) -> str:
    """sha256 over shape and values, in hex."""
    values = np.ascontiguousarray(rows, "<f4")
    return hashlib.sha256(f"{values.shape}".encode() + values.tobytes()).hexdigest()


def _as_json(value: dict[str, Any]) -> dict[str, Any]:
    """``value`` as it is after JSON: tuples are lists."""
    found: dict[str, Any] = json.loads(json.dumps(value))
    return found


def _spread(mlps: Sequence[MLP], count: int) -> list[MLP]:
    """At most ``count`` models, evenly spread over the sequence."""
    if len(mlps) <= count:
        return list(mlps)
    return [mlps[int(i)] for i in np.linspace(0, len(mlps) - 1, count).round()]
