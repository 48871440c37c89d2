"""Files of tensors with an architecture beside them: ``open_safetensors``, ``mlp_to_safetensors``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.atomic import write_atomically
from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.opened import Arrays, Opened
from metaedit_fast.models.safetensors.config import Architecture, parse_architecture
from metaedit_fast.models.safetensors.container import MAX_FILE_BYTES, Container
from metaedit_fast.models.safetensors.reading import read_tensors

SUFFIX = ".safetensors"
TENSORS, CONFIG = "model.safetensors", "config.json"
SPEC_KEY = "metaedit_fast.spec"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclasses.dataclass
class SafetensorsModel:
    """A model of tensors and a description of its architecture, as it is edited and written back.

    ``description`` is the text beside the tensors: that of ``config.json`` where ``is_folder``, else that of a
    sidecar ``NAME.json``; None where the header of the tensors has it.
    """

    container: Container
    description: bytes | None = None
    is_folder: bool = False

    @property
    def architecture(self) -> Architecture:
        """What the description says. Raises ``UnsupportedModelError``."""
        if self.description is not None:
            return parse_architecture(self.description, CONFIG if self.is_folder else "the JSON beside the tensors")
        return parse_architecture(self.container.metadata[SPEC_KEY], f"{SPEC_KEY} in the header")

    def files(self) -> dict[str, bytes]:
        """The content of each file, by what stands behind the model's name: a suffix, or ``/`` and a file's name."""
        tensors = self.container.to_bytes()
        if self.description is None:
            return {SUFFIX: tensors}
        if self.is_folder:
            return {f"/{TENSORS}": tensors, f"/{CONFIG}": self.description}
        return {SUFFIX: tensors, ".json": self.description}

    def save(self, path: str | Path) -> None:
        """Write a folder, made where it is missing, or a ``.safetensors`` file and what stands beside it.

        Each file is replaced in one step. Raises ``UnsupportedModelError`` for a name that does not fit.
        """
        target = Path(path).absolute()
        if self.is_folder != (target.suffix.lower() != SUFFIX):
            what = "a folder" if self.is_folder else f"a name that ends in {SUFFIX}"
            raise UnsupportedModelError(f"{target}: expected {what}")
        if self.is_folder:
            target.mkdir(parents=True, exist_ok=True)
        name = target.name if self.is_folder else target.stem
        for end, content in self.files().items():
            write_atomically(target.parent / f"{name}{end}", content)


class OpenedSafetensors(Opened[SafetensorsModel]):
    """A file or folder of tensors that was read as an MLP; keys of slots are names of tensors.

    ``path`` is where it was read from, None for a model in memory. ``write_into`` then replaces the file of tensors.
    """

    kind = "safetensors"

    def __init__(self, model: SafetensorsModel, path: Path | None = None) -> None:
        mlp, slots, notes = read_tensors(model.container, model.architecture)
        super().__init__(model, mlp, slots, tuple(notes))
        self.path = path

    def _arrays(self) -> Arrays:
        return {slot.key: self.model.container.array(slot.key) for slot in self.slots}

    def _copy(self) -> SafetensorsModel:
        return dataclasses.replace(self.model)  # what it holds is never changed in place

    def _assign(self, model: SafetensorsModel, arrays: Arrays) -> None:
        before = {key: model.container.array(key) for key in arrays}
        changed = {key: array for key, array in arrays.items() if array.tobytes() != before[key].tobytes()}
        model.container = model.container.replaced(changed)

    def write_into(self, mlp: MLP) -> None:
        """Replace the file of tensors by one with the parameters of ``mlp``; see ``Opened.write_into``."""
        super().write_into(mlp)
        if self.path is not None:
            target = self.path / TENSORS if self.model.is_folder else self.path
            write_atomically(target, self.model.container.to_bytes())


def open_safetensors(model: SafetensorsModel | str | Path) -> OpenedSafetensors:
    """Read a ``.safetensors`` file, a folder with ``config.json`` and ``model.safetensors``, or such a model.

    The architecture of a file stands in its header under ``metaedit_fast.spec``, else in the file of the same name
    that ends in ``.json``; docs/models.md lists the keys. ``write`` gives a ``SafetensorsModel`` with the same names,
    dtypes and metadata, in which only the bytes of tensors that changed are others.

    Raises ``UnsupportedModelError`` for damaged files, unknown architectures and tensors that do not fit, and
    ``OSError`` where a file cannot be read.
    """
    if isinstance(model, SafetensorsModel):
        return OpenedSafetensors(model)
    path = Path(model)
    try:
        return OpenedSafetensors(_read_folder(path) if path.is_dir() else _read_file(path), path)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{path}: {error}") from error


def mlp_to_safetensors(mlp: MLP, *, folder: bool = False) -> SafetensorsModel:
    """Make float32 tensors of an MLP: ``layers.0.weight [n_out, n_in]``, ``layers.0.bias``, ``layers.0.norm.weight``
    and so on, ``input.scale`` and ``input.shift``.

    The architecture stands in the header, or in ``config.json`` of a ``folder``. Read back, it is the same bit for
    bit.
    """
    arrays: dict[str, NDArray[np.float32]] = {}
    for kind, index, value in mlp.parameters():
        layer = mlp.spec.layers[index]
        match kind:
            case "weight":
                arrays[f"layers.{index}.weight"] = value.T
            case "bias" if layer.bias or value.any():
                arrays[f"layers.{index}.bias"] = value
            case "norm_scale":
                arrays[f"layers.{index}.norm.weight"] = value
            case "norm_shift":
                arrays[f"layers.{index}.norm.bias"] = value
    for name, vector in (("scale", mlp.input_scale), ("shift", mlp.input_shift)):
        if vector is not None:
            arrays[f"input.{name}"] = vector
    metadata = {"format": "pt"}  # as the format's other readers expect of tensors laid out like torch's
    if not folder:
        return SafetensorsModel(Container.of(arrays, {**metadata, SPEC_KEY: mlp.spec.to_json()}))
    description = json.dumps({"model_type": "mlp", **json.loads(mlp.spec.to_json())}, indent=2) + "\n"
    return SafetensorsModel(Container.of(arrays, metadata), description.encode(), is_folder=True)


def _read_file(path: Path) -> SafetensorsModel:
    container = Container(_bytes_of(path))
    if SPEC_KEY in container.metadata:
        return SafetensorsModel(container)
    sidecar = path.with_suffix(".json")
    if sidecar.is_file():
        return SafetensorsModel(container, _bytes_of(sidecar))
    hint = "; pass the folder" if (path.parent / CONFIG).is_file() else ""
    _refuse(f"the architecture in {sidecar.name} or under {SPEC_KEY!r} in the header", f"tensors alone{hint}")


def _read_folder(path: Path) -> SafetensorsModel:
    if (path / "population.json").exists():
        _refuse("one model", "a population; load it with Population.load")
    if not (path / TENSORS).is_file():
        if (path / f"{TENSORS}.index.json").exists():
            _refuse(f"all tensors in {TENSORS}", "a model in several files")
        pickles = sorted(found.name for pattern in _PICKLES for found in path.glob(pattern))
        advice = "a pickle runs any code that is inside; where you trust it, load it and save it as safetensors"
        _refuse(f"a file {TENSORS}", f"{pickles[0]}: {advice}" if pickles else "none")
    if not (path / CONFIG).is_file():
        _refuse(f"the architecture in {CONFIG}", "tensors alone")
    return SafetensorsModel(Container(_bytes_of(path / TENSORS)), _bytes_of(path / CONFIG), is_folder=True)


def _bytes_of(path: Path) -> bytes:
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        _refuse(f"{path.name} to have at most {MAX_FILE_BYTES} bytes", size)
    return path.read_bytes()


def _refuse(expected: str, got: object) -> NoReturn:
    raise UnsupportedModelError(f"expected {expected}, got {got}")
