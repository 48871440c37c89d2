"""Editor files: one ``.onnx`` with the weights as initializers and the editor's description as metadata.

A reader takes the description and the weights and nothing else. The graph in the file is for other
ONNX runtimes; this package builds its own from the same two, so a file cannot make it run a graph of
somebody else's choice, and old files profit from new graphs.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.errors import InvalidEditorError
from metaedit_fast.export.weights import Weights
from metaedit_fast.metanet.config import MetanetConfig

Floats32 = NDArray[np.float32]

METADATA_KEY = "metaedit"
HASH_KEY = "metaedit_weights_sha256"
PROBE_KEY = "metaedit_probe"
PROBE_HASH_KEY = "metaedit_probe_sha256"
MAX_BYTES = 64 * 1024 * 1024  # a hundred times the size of a usual editor


def weights_hash(weights: Weights) -> str:
    """sha256 over names, shapes and values in the order of their names, in hex."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.asarray(weights[name], "<f4")
        digest.update(f"{name}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def probe_hash(probe: Floats32) -> str:
    """sha256 over the values of probe rows, in hex."""
    return hashlib.sha256(probe.astype("<f4").tobytes()).hexdigest()


def editor_bytes(
    config: MetanetConfig, requirement: str, weights: Weights, description: str, probe: Floats32 | None = None
) -> bytes:
    """The content of an editor file for the requirement of this name; equal arguments give equal bytes.

    ``probe`` is ``[rows, n_inputs]``.
    """
    from onnx import helper

    from metaedit_fast.export.onnx import build_editor

    model = build_editor(config, requirement, weights)
    metadata = {METADATA_KEY: description, HASH_KEY: weights_hash(weights)}
    if probe is not None:
        metadata[PROBE_KEY] = base64.b64encode(probe.astype("<f4").tobytes()).decode()
        metadata[PROBE_HASH_KEY] = probe_hash(probe)
    helper.set_model_props(model, metadata)
    return bytes(model.SerializeToString(deterministic=True))


def parse_editor(data: bytes, where: str) -> tuple[str, dict[str, Floats32], Floats32 | None]:
    """The description, the float initializers and the flat probe rows of an editor file; ``where`` names it in errors.

    Raises ``InvalidEditorError`` where ``data`` is no ONNX model, or lacks the description, or its
    weights are damaged. It does not tell whether the weights suffice for the described network.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import ModelProto

    if len(data) > MAX_BYTES:
        raise InvalidEditorError(f"{where}: expected at most {MAX_BYTES} bytes, got more")
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise InvalidEditorError(f"{where}: not an ONNX file, or a damaged one ({error})") from error
    # Of text that is no UTF-8 protobuf gives the bytes.
    texts = [text for entry in model.metadata_props for text in (entry.key, entry.value)]
    if not all(isinstance(text, str) for text in (*texts, *(tensor.name for tensor in model.graph.initializer))):
        raise InvalidEditorError(f"{where}: a damaged file: its names and metadata are not all text")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    for key in (METADATA_KEY, HASH_KEY):
        if key not in metadata:
            raise InvalidEditorError(
                f"{where}: expected an ONNX file with metadata {key!r}, as metaedit_fast writes it; got none"
            )
    weights = {tensor.name: _values(tensor, where) for tensor in model.graph.initializer if tensor.data_type == 1}
    learned = {name: array for name, array in weights.items() if not name.startswith("constant_")}
    if weights_hash(learned) != metadata[HASH_KEY]:
        raise InvalidEditorError(
            f"{where}: the weights are not those that were written (sha256 differs); it is damaged"
        )
    return metadata[METADATA_KEY], learned, _probe(metadata, where)


def _probe(metadata: dict[str, str], where: str) -> Floats32 | None:
    if PROBE_KEY not in metadata:
        return None
    try:
        probe = np.frombuffer(base64.b64decode(metadata[PROBE_KEY], validate=True), "<f4").astype(np.float32)
    except (binascii.Error, ValueError) as error:
        raise InvalidEditorError(f"{where}: its probe rows are damaged ({error})") from error
    if metadata.get(PROBE_HASH_KEY) != probe_hash(probe):
        raise InvalidEditorError(f"{where}: the probe rows are not those that were written (sha256 differs)")
    return probe


def _values(tensor: Any, where: str) -> Floats32:
    """A float32 tensor as an array, only from bytes inside the file."""
    size = len(tensor.raw_data) // 4
    if tensor.data_location or tensor.external_data:
        raise InvalidEditorError(f"{where}: weight {tensor.name!r} lies in another file, which editors never do")
    shape = tuple(tensor.dims)
    count = 1
    for n in shape:
        count *= n
    if any(n < 0 for n in shape) or 4 * count != len(tensor.raw_data):
        raise InvalidEditorError(f"{where}: weight {tensor.name!r} of shape {shape} has {size} values")
    return np.frombuffer(tensor.raw_data, "<f4").astype(np.float32).reshape(shape)


def read_bytes(path: Path) -> bytes:
    """The bytes of an editor file. Raises ``InvalidEditorError`` where it is no regular file or cannot be read."""
    try:
        if not path.is_file():
            raise InvalidEditorError(f"{path}: expected a regular file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidEditorError(f"{path}: cannot be read ({error.strerror or error})") from error
    return data
