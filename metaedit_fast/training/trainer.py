"""The trainer of editors: a thin loop with progress, checkpoints, resume and early stopping."""

from __future__ import annotations

import dataclasses
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

from metaedit_fast._core import PanelRows
from metaedit_fast.atomic import atomic_file
from metaedit_fast.errors import InvalidCheckpointError
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.metanet.metanetwork import Metanetwork
from metaedit_fast.metanet.native import pack
from metaedit_fast.models.evaluation import predictions_of
from metaedit_fast.models.mlp import MLP
from metaedit_fast.requirements import Requirement
from metaedit_fast.threads import thread_count
from metaedit_fast.training.examples import ExampleBatch, models_hash
from metaedit_fast.training.optimizer import FlatAdamW
from metaedit_fast.training.soft_odds import TEMPERATURE
from metaedit_fast.training.tasks import Measured, TrainingRows, make_task
from metaedit_fast.training.threads import one_torch_thread

STATE = "trainer.pt"
STATE_FORMAT = 3


@dataclasses.dataclass(frozen=True)
class TrainerConfig:
    """How to train (docs/method.md, "Training"); the defaults are ours.

    ``steps`` of ``models_per_step`` models on ``rows_per_step`` data rows (by default 256, and 2048 where labels and
    groups count); AdamW with ``learning_rate``,
    linear warm-up, cosine decay to 2 %; gradients clipped at norm ``clip``. Every ``evaluate_every`` steps
    the editor is measured on population-val at ``budgets`` (by default the requirement's own); the best one is kept,
    and training stops after ``patience`` evaluations without a better one. Models are drawn with a probability
    proportional to ``n_weights ** -size_exponent`` (ours): at a given sparsity small models are the harder ones, and
    large ones would take most of the time. ``single_output_share`` of the two-class models enter in their
    single-output form. ``trained_budgets`` are those to train for, each as often as the others, and to measure at; by
    default they are drawn as the requirement says. ``scalarisation`` is how equalised odds and preservation become one
    loss (``scalarisation.SCALARISATIONS``), ``temperature`` that of the soft decisions whose rates are compared
    (``soft_odds``); the other requirements are met exactly and have one loss. ``seed`` fixes everything: two runs on
    one machine give the same bits, whatever the number of threads.
    """

    steps: int = 1500
    models_per_step: int = 20
    rows_per_step: int | None = None
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
    budgets: tuple[float, ...] = ()
    trained_budgets: tuple[float, ...] = ()
    temperature: float = TEMPERATURE
    scalarisation: str = "linear"
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What population-val showed: ``score``, what the task wants lowest; by budget the mean JSD, and the mean of the
    requirement's own measurement.
    """

    step: int
    score: float
    jsd: dict[str, float]
    requirement: dict[str, float]
    seconds: float


class Trainer:
    """Trains one editor on ``train`` models and ``rows``, whose probe is required exactly where ``config.probe``.

    With ``folder`` the
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
        rows: TrainingRows,
        *,
        folder: Path | None = None,
        num_threads: int | None = None,
    ) -> None:
        if not train or not validation:
            raise ValueError(
                f"population: expected models to train and validate on, got {len(train)}, {len(validation)}"
            )
        self.settings = settings
        self.num_threads = thread_count(num_threads)
        self.task = make_task(
            requirement,
            config,
            rows,
            rows_per_step=settings.rows_per_step,
            num_threads=self.num_threads,
            scalarisation=settings.scalarisation,
            temperature=settings.temperature,
        )
        self.trained_budgets = [requirement.check_budget(budget) for budget in settings.trained_budgets]
        self.budgets = settings.budgets or settings.trained_budgets or requirement.validation_budgets
        self.train = self.task.source(train, learns=True, folder=folder)
        self.validation = self.task.source(_spread(validation, settings.validation_models), learns=False, folder=folder)
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
                "training models": models_hash(train),
                "validation models": models_hash(validation),
                **self.task.fingerprint(),
            }
            self._resume(folder)

    def run(self, report: Callable[[Trainer, float], None] | None = None) -> Metanetwork:
        """Train to the end and return the best network. ``report(trainer, loss)`` is called after each step."""
        with one_torch_thread():
            while self.step < self.settings.steps and not self._out_of_patience():
                started = time.perf_counter()
                loss = self.train_step()
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
        measured = {}
        for budget in self.budgets:
            found = [self.task.measure(packed, batch, budget, known) for batch, known in self._validation_batches]
            measured[budget] = Measured.joined(found)
        return Evaluation(
            self.step,
            self.task.score(measured),
            {f"{budget:g}": float(found.jsd.mean()) for budget, found in measured.items()},
            {f"{budget:g}": float(found.requirement.mean()) for budget, found in measured.items()},
            self.seconds,
        )

    @cached_property
    def _validation_batches(self) -> list[tuple[ExampleBatch, list[PanelRows]]]:
        """With what the models predict unedited."""
        examples = [self.validation.get(i) for i in range(len(self.validation.mlps))]
        count = self.settings.models_per_step
        batches = [ExampleBatch.join(examples[start : start + count]) for start in range(0, len(examples), count)]
        x = self.task.rows.validation.X
        return [(b, predictions_of(b.mlps, x, num_threads=self.num_threads)) for b in batches]

    def train_step(self) -> float:
        """One step of the optimiser; gives the loss before it."""
        batch = self._sample_batch()
        budgets = self._draw_budgets(len(batch.examples))
        loss = self.task.loss(self.net, batch, budgets, self.rng)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step(self.settings.learning_rate * self._schedule())
        return float(loss.detach())

    def _draw_budgets(self, count: int) -> list[float]:
        if self.trained_budgets:
            return [float(budget) for budget in self.rng.choice(self.trained_budgets, count)]
        return [float(budget) for budget in self.task.requirement.sample_budgets(self.rng, count)]

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
            # A setting that came after the state was written has the default that training had before.
            there["settings"] = {**_as_json(dataclasses.asdict(TrainerConfig())), **there["settings"]}
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


def _as_json(value: dict[str, Any]) -> dict[str, Any]:
    """``value`` as it is after JSON: tuples are lists."""
    found: dict[str, Any] = json.loads(json.dumps(value))
    return found


def _spread(mlps: Sequence[MLP], count: int) -> list[MLP]:
    """At most ``count`` models, evenly spread over the sequence."""
    if len(mlps) <= count:
        return list(mlps)
    return [mlps[int(i)] for i in np.linspace(0, len(mlps) - 1, count).round()]
