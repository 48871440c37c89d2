"""The editor: a trained metanetwork with what it was trained for, in one ``.onnx`` file."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metaedit_fast.atomic import write_atomically
from metaedit_fast.data import Table
from metaedit_fast.editing.batch import edit_models
from metaedit_fast.editing.bundled import SUFFIX, bundled_files, is_missing
from metaedit_fast.editing.engines import check_engine, start_engine
from metaedit_fast.editing.info import EditorInfo, Envelope
from metaedit_fast.editing.job import Engine
from metaedit_fast.errors import InvalidEditorError, UnsupportedModelError
from metaedit_fast.export import files
from metaedit_fast.export.weights import Weights, checked_weights, network_weights
from metaedit_fast.graph import WeightGraphBatch
from metaedit_fast.models.inputs import require_removable_inputs
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec

if TYPE_CHECKING:
    from metaedit_fast.metanet.metanetwork import Metanetwork

__all__ = ["Check", "Editor", "EditorInfo", "Envelope", "load_editor"]


@dataclasses.dataclass(frozen=True)
class Check:
    """Whether an editor may edit a model: ``reasons`` to refuse it, and ``notes`` on one it was not trained for."""

    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.reasons


class Editor:
    """Edits MLPs with a trained metanetwork, without torch. Immutable; threads may share one.

    ``weights`` are the parameters of the metanetwork by the names of its torch ``state_dict``. ``probe``,
    ``[rows, n_inputs]`` or None, are unlabelled rows that travel in the file, so that an editor which reads
    activations needs no data at the user's. ``engine`` is ``"native"``, the compiled kernels, ``"onnxruntime"`` or
    ``"torch"``, which are slower; they agree to float32 rounding. ``precision`` is what the native
    kernels of the metanetwork may round to: ``"float32"``, ``"bf16x3"`` or ``"bf16"`` (docs/method.md);
    features, ranking and what is written to models stay float32. Raises ``ValueError`` where weights or rows do
    not fit ``info.config``, and for a precision that the engine lacks; ``MissingDependencyError`` without torch.
    """

    def __init__(
        self,
        info: EditorInfo,
        weights: Weights,
        probe: ArrayLike | None = None,
        *,
        engine: str = "native",
        precision: str = "float32",
    ) -> None:
        self.info = info
        self.weights: Mapping[str, NDArray[np.float32]] = checked_weights(info.config, weights)
        self.probe = None if probe is None else self.probe_rows(probe)
        self._lock = threading.Lock()
        # Many models have the same architecture, or come again.
        self._checks = functools.lru_cache(maxsize=4096)(functools.partial(_check_spec, info))
        check_engine(engine, precision)
        self.engine = engine
        self.precision = precision
        self._running: Engine | None = None

    @classmethod
    def load(cls, source: str | Path, *, engine: str = "native", precision: str = "float32") -> Editor:
        """A bundled editor by name, or an editor file by path, to run on ``engine`` in ``precision``.

        Raises ``InvalidEditorError`` where there is none such, or the file is damaged, or of a newer
        format, or not an editor; the message names the file. Raises ``ValueError`` for an unknown engine, and
        for a precision that it lacks.
        """
        check_engine(engine, precision)
        bundled = bundled_files()
        if isinstance(source, str) and source in bundled:
            return cls._from_bytes(bundled[source].read_bytes(), f"bundled editor {source!r}", engine, precision)
        path = Path(source)
        if not path.exists():
            raise InvalidEditorError(is_missing(str(source)))
        return cls._from_bytes(files.read_bytes(path), str(path), engine, precision)

    @classmethod
    def _from_bytes(cls, data: bytes, where: str, engine: str, precision: str) -> Editor:
        description, weights, probe = files.parse_editor(data, where)
        try:
            info = EditorInfo.from_json(description)
            rows = None if probe is None else probe.reshape(-1, info.config.n_inputs)
            return cls(info, weights, rows, engine=engine, precision=precision)
        except (ValueError, OverflowError) as error:
            raise InvalidEditorError(f"{where}: {error}") from error

    @classmethod
    def from_network(cls, net: Metanetwork, info: EditorInfo, *, probe: ArrayLike | None = None) -> Editor:
        """An editor with a copy of the parameters of ``net``, whose config must be that of ``info``."""
        if net.config != info.config:
            raise ValueError(f"info: its config is {info.config}, the network's is {net.config}")
        return cls(info, network_weights(net), probe)

    def to_network(self) -> Metanetwork:
        """The torch module with a copy of these weights, for instance to train it further."""
        import torch

        from metaedit_fast.metanet.metanetwork import Metanetwork

        net = Metanetwork(self.info.config)
        net.load_state_dict({name: torch.tensor(value) for name, value in self.weights.items()})
        return net

    def save(self, path: str | Path) -> None:
        """Write one ``.onnx`` file, atomically; equal editors give equal bytes."""
        path = Path(path)
        if path.suffix != SUFFIX:
            raise ValueError(f"path: expected a name that ends in {SUFFIX}, got {str(path)!r}")
        info = self.info
        data = files.editor_bytes(info.config, info.requirement, self.weights, info.to_json(), self.probe)
        write_atomically(path, data)

    @property
    def needs_probe(self) -> bool:
        """Whether ``edit_theta`` needs a probe of unlabelled rows: it reads activations and carries no rows."""
        return self.info.config.probe and self.probe is None

    def describe(self) -> dict[str, Any]:
        """``info`` as JSON values, and hashes of the weights and the own probe: tells editors apart in reports."""
        return {
            **self.info.to_dict(),
            "weights_sha256": files.weights_hash(self.weights),
            "probe_sha256": None if self.probe is None else files.probe_hash(self.probe),
        }

    def check(self, mlp: MLP) -> Check:
        """Reasons not to edit ``mlp``, and notes on where it lies outside the models of the training.

        Another depth, width or number of skips is a note: the metanetwork is local, so it applies, with
        less evidence. An activation or norm that was never seen is a reason: what the metanetwork
        knows of it is its random start.
        """
        found = self.check_spec(mlp.spec)
        if mlp.is_finite:
            return found
        return Check((*found.reasons, "parameters: expected finite values, got NaN or infinity"), found.notes)

    def check_spec(self, spec: MLPSpec) -> Check:
        """What ``check`` says of a model with this architecture and finite parameters."""
        return self._checks(spec)

    def probe_rows(self, probe: ArrayLike) -> NDArray[np.float32]:
        """``probe`` as float32 rows ``[rows, n_inputs]``, a copy.

        Raises ``ValueError`` unless it has at least one row, this many columns and finite values.
        """
        n_inputs = self.info.config.n_inputs
        rows = np.array(probe, np.float32)
        if rows.ndim != 2 or rows.shape[1] != n_inputs or len(rows) == 0:
            raise ValueError(f"probe: expected shape [rows, {n_inputs}], got {rows.shape}")
        if not np.isfinite(rows).all():
            raise ValueError("probe: expected finite values, got NaN or infinity")
        return rows

    def edit_theta(self, mlp: MLP, budget: float, *, probe: Table | ArrayLike | None = None) -> NDArray[np.float32]:
        """θ' of ``mlp`` at ``budget``, float32 ``[n_parameters]``, a new array; ``mlp`` stays as it is.

        For pruning the budget is the sparsity, ``0 <= budget < 1``, and exactly
        ``masks.kept_count(n_weights, budget)`` weights are kept; weights that are zero already count as
        removed and stay zero. For data minimisation it is the share of the inputs that is removed, for equalised
        odds the strength λ. 0 asks for nothing and gives a copy of θ,
        bit for bit. ``probe`` is ``[rows, n_inputs]`` unlabelled rows, needed where ``needs_probe``
        and taken instead of the editor's own where given; an editor for equalised odds needs a ``Table`` with
        labels and groups. The editor's own are in the form that the first layer
        receives, so they bypass the model's normalisation. The result depends on these arguments alone.

        Raises ``ValueError`` for a budget out of range or a probe that is missing or unfit, and
        ``UnsupportedModelError`` where ``check`` has reasons to refuse or float32 cannot hold what is computed.
        """
        found = edit_models(self, [mlp], budget, probe=probe, num_threads=1)
        if found.failures:
            raise found.failures[0]
        return found.thetas[0]

    def edit_batch(
        self,
        models: WeightGraphBatch | Sequence[MLP],
        budget: float | Sequence[float],
        *,
        probe: Table | ArrayLike | None = None,
        num_threads: int | None = None,
    ) -> list[NDArray[np.float32]]:
        """θ' of many models, each as ``edit_theta`` gives it to the bit, in one native call.

        ``models`` is a ``WeightGraphBatch``, which saves building one, or M models; ``budget`` is one number
        for all or M of them. Gives M float32 arrays ``[n_parameters]``, views of one new array. A model is
        edited by one of ``num_threads`` threads (default: ``METAEDIT_NUM_THREADS``, else as many as this
        process may use), the largest first, or a large one by all, where there are at most half as many models;
        beside the result, only what the threads' present models need is held in memory. Of that, what up to four
        threads need for small models, some ten MB each at most, stays with the editor for later calls. ``probe`` is
        as for ``edit_theta``, but a batch knows no normalisation of inputs: for one, it is rows as the first layers
        receive them.

        Raises ``ValueError`` as ``edit_theta`` and for a number of budgets that is not M;
        ``UnsupportedModelError``, which names the first such model, where one cannot be edited.
        """
        found = edit_models(self, models, budget, probe=probe, num_threads=num_threads)
        for m in sorted(found.failures):
            raise UnsupportedModelError(f"models[{m}]: {found.failures[m]}") from found.failures[m]
        return found.thetas

    def prepare(self) -> Engine:
        """Start the engine, once; the first edit does it otherwise, and takes that much longer."""
        with self._lock:
            if self._running is None:
                info = self.info
                self._running = start_engine(self.engine, info.config, info.requirement, self.weights, self.precision)
            return self._running

    @property
    def arithmetic(self) -> str:
        """The precision that runs: ``precision``, or ``"float32"`` where the machine has nothing faster for it."""
        return self.prepare().arithmetic

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or another process needs; it starts an engine of its own."""
        names = ("info", "weights", "probe", "engine", "precision")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __repr__(self) -> str:
        config = self.info.config
        size = sum(value.size for value in self.weights.values())
        return (
            f"Editor({self.info.name!r}, {self.info.requirement}, {config.n_inputs} inputs, "
            f"{config.n_classes} classes, {size} parameters{', needs a probe' if self.needs_probe else ''})"
        )


def _check_spec(info: EditorInfo, spec: MLPSpec) -> Check:
    envelope, hidden = info.envelope, spec.layers[:-1]
    reasons, notes = [], []
    if spec.output == "identity":
        reasons.append("expected a classifier, got a regressor (output 'identity')")
    try:
        info.config.node_types(spec)
        if info.config.context == "inputs":
            require_removable_inputs(spec)
    except ValueError as error:
        reasons.append(str(error))
    for name, seen, found in (
        ("activations", envelope.activations, {layer.activation for layer in hidden}),
        ("norms", envelope.norms, {layer.norm for layer in hidden}),
    ):
        if new := found - set(seen):
            reasons.append(f"{name}: the editor was trained on {', '.join(seen)}; got {', '.join(sorted(new))}")
    widths = [layer.width for layer in hidden]
    for name, (low, high), numbers in (
        ("hidden layers", envelope.depth, [len(hidden)]),
        ("neurons in a layer", envelope.width, widths),
        ("skip connections", (0, envelope.max_skips), [len(spec.skips)]),
    ):
        if outside := sorted({n for n in numbers if not low <= n <= high}):
            notes.append(f"{name}: the editor was trained on {low} to {high}; got {', '.join(map(str, outside))}")
    return Check(tuple(reasons), tuple(notes))


def load_editor(source: str | Path, *, engine: str = "native", precision: str = "float32") -> Editor:
    """The same as ``Editor.load``."""
    return Editor.load(source, engine=engine, precision=precision)
