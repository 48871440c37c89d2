"""Opening an ONNX model, and a file of one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.onnx.assemble import Assembler, Home
from metaedit_fast.models.onnx.export import OUTPUT_KEY
from metaedit_fast.models.onnx.graph import Graph
from metaedit_fast.models.onnx.walk import read_graph
from metaedit_fast.models.onnx.write import present_constant, put, tied_notes
from metaedit_fast.models.opened import Arrays, Opened

MAX_FILE_BYTES = 2**31 - 1  # protobuf holds no more, and no MLP here needs it


class OpenedOnnx(Opened[onnx.ModelProto]):
    """An ONNX model that was read as an MLP."""

    kind = "onnx"

    def __init__(self, model: onnx.ModelProto, mlp: MLP, homes: list[Home], notes: tuple[str, ...]) -> None:
        super().__init__(model, mlp, [home.slot for home in homes], notes)
        self._homes = homes

    def _arrays(self) -> Arrays:
        graph = Graph(self.model)
        return {home.slot.key: home.array(present_constant(graph, home).value) for home in self._homes}

    def _copy(self) -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        return model

    def _assign(self, model: onnx.ModelProto, arrays: Arrays) -> None:
        put(model, self._homes, arrays)


def open_onnx(model: onnx.ModelProto) -> OpenedOnnx:
    """Read an ONNX graph that is an MLP; the functions registered by ``reads`` list the operators.

    ``mlp.forward`` gives what the model's first output gives that is no label; where the model makes
    something else of the network's result, such as log-probabilities or dictionaries, ``notes`` say so.
    Rows of inputs with more axes are flattened. Opsets from 7, IR from 3, weights in float16, float32 or
    float64.

    Raises ``UnsupportedModelError``, naming the node, for any other graph.
    """
    if not isinstance(model, onnx.ModelProto):
        raise TypeError(f"model: expected an onnx.ModelProto, got {type(model).__name__}")
    graph = Graph(model)
    reading = read_graph(graph)
    hints = {entry.key: entry.value for entry in model.metadata_props}
    with np.errstate(all="ignore"):  # a non-finite model is told apart later, by its θ
        mlp, homes = Assembler(reading.output).build(regressor=hints.get(OUTPUT_KEY) == "identity")
    return OpenedOnnx(model, mlp, homes, tuple(dict.fromkeys([*reading.notes, *tied_notes(graph, homes)])))


def read_onnx_file(path: str | Path, *, max_bytes: int = MAX_FILE_BYTES) -> onnx.ModelProto:
    """Load an ``.onnx`` file, with external data from its own folder, up to ``max_bytes`` in all.

    Raises ``UnsupportedModelError`` where it is larger, damaged, or points outside its folder, and
    ``OSError`` where it cannot be read.
    """
    path = Path(path)
    size = path.stat().st_size
    _check_size(path, size, max_bytes)
    try:
        model = onnx.load(str(path), load_external_data=False)
    except OSError:
        raise
    except Exception as error:  # protobuf's own error type differs between its implementations
        raise UnsupportedModelError(f"{path}: expected an ONNX model, found {error!r}") from error
    folder = path.parent.resolve()
    outside = set()
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            location = next((e.value for e in tensor.external_data if e.key == "location"), "")
            file = (folder / location).resolve()
            if not location or folder not in file.parents or not file.is_file():
                raise UnsupportedModelError(
                    f"{path}: initializer {tensor.name!r}: expected its data in a file beside the model, "
                    f"found {location!r}"
                )
            outside.add(file)
    if outside:
        _check_size(path, size + sum(file.stat().st_size for file in outside), max_bytes)
        try:
            onnx.load_external_data_for_model(model, str(folder))
        except Exception as error:  # onnx raises whatever comes up on damaged offsets
            raise UnsupportedModelError(f"{path}: expected readable external data, found {error!r}") from error
    return model


def _check_size(path: Path, size: int, most: int) -> None:
    if size > most:
        raise UnsupportedModelError(f"{path}: expected at most {most} bytes, found {size}")
