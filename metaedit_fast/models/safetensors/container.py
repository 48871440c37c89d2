"""The safetensors format: named tensors in one file, read and written without running anything.

A file is 8 bytes with the length N of the header (little-endian), N bytes of JSON, and the tensors' bytes. The JSON
gives each tensor's ``dtype``, ``shape`` and ``data_offsets`` behind the header; ``__metadata__`` maps texts to texts.
Nothing in a file is believed: lengths are checked before memory is taken for them, and tensors must lie side by side
and fill the file, as the format demands.

Numpy alone reads it, because an edited file must keep its header and all untouched bytes, which a library that
writes files anew does not promise, and because the library has no bfloat16 for numpy.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from metaedit_fast.errors import UnsupportedModelError

MAX_FILE_BYTES = 2**31 - 1
MAX_HEADER_BYTES = 8 << 20  # an MLP's is some kB
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
_FLOATS = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor of the header; its bytes are ``data[start:stop]``."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class Container:
    """The content of a safetensors file: ``header`` as it stands in the file, and the bytes behind it.

    Raises ``UnsupportedModelError``, naming the tensor, where the content does not follow the format.
    """

    def __init__(self, content: bytes) -> None:
        if len(content) > MAX_FILE_BYTES:
            _refuse(f"at most {MAX_FILE_BYTES} bytes", len(content))
        if len(content) < 8:
            _refuse("8 bytes with the length of the header", f"a file of {len(content)} bytes")
        length = int.from_bytes(content[:8], "little")
        if length > min(MAX_HEADER_BYTES, len(content) - 8):
            most = min(MAX_HEADER_BYTES, len(content) - 8)
            _refuse(f"a header of at most {most} bytes", f"a length of {length}")
        self.header = content[8 : 8 + length]
        self.data = content[8 + length :]
        raw = _parsed(self.header)
        metadata = raw.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            _refuse("__metadata__ to map texts to texts", metadata)
        self.metadata: dict[str, str] = metadata
        self.entries = {name: _entry(name, fields) for name, fields in raw.items()}
        self._require_filled()

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[np.float32]], metadata: Mapping[str, str]) -> Container:
        """Make a content of float32 tensors, in the order of their names."""
        header: dict[str, Any] = {"__metadata__": dict(metadata)}
        parts, start = [], 0
        for name in sorted(arrays):
            part = np.ascontiguousarray(arrays[name], "<f4").tobytes()
            header[name] = {"dtype": "F32", "shape": arrays[name].shape, "data_offsets": [start, start + len(part)]}
            parts.append(part)
            start += len(part)
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # so that the tensors stand at addresses that are multiples of 8
        return cls(len(text).to_bytes(8, "little") + text + b"".join(parts))

    def array(self, name: str) -> NDArray[Any]:
        """Give a tensor of real numbers, read-only; bfloat16, which numpy lacks, as float32.

        Raises ``UnsupportedModelError`` for another dtype.
        """
        entry = self.entries[name]
        part = memoryview(self.data)[entry.start : entry.stop]
        if entry.dtype == "BF16":
            bits = np.frombuffer(part, "<u2").astype(np.uint32) << 16
            return bits.view(np.float32).reshape(entry.shape)
        if entry.dtype not in _FLOATS:
            _refuse(f"tensor {name!r} to be one of {', '.join((*_FLOATS, 'BF16'))}", entry.dtype)
        return np.frombuffer(part, _FLOATS[entry.dtype]).reshape(entry.shape)

    def replaced(self, arrays: Mapping[str, NDArray[Any]]) -> Container:
        """Give the same content with other numbers in some tensors; header and all other bytes stay as they are."""
        data = bytearray(self.data)
        for name, array in arrays.items():
            entry = self.entries[name]
            part = _bfloat16(array) if entry.dtype == "BF16" else array.astype(_FLOATS[entry.dtype])
            if array.shape != entry.shape:
                raise ValueError(f"{name}: expected shape {entry.shape}, got {array.shape}")
            data[entry.start : entry.stop] = part.tobytes()
        changed = object.__new__(Container)
        changed.header, changed.metadata, changed.entries = self.header, self.metadata, self.entries
        changed.data = bytes(data)
        return changed

    def to_bytes(self) -> bytes:
        """The file."""
        return len(self.header).to_bytes(8, "little") + self.header + self.data

    def _require_filled(self) -> None:
        reached = 0
        for name, entry in sorted(self.entries.items(), key=lambda item: (item[1].start, item[1].stop)):
            if entry.start != reached:
                _refuse(f"tensor {name!r} to begin at byte {reached}, where the one before it ends", entry.start)
            reached = entry.stop
        if reached != len(self.data):
            _refuse(f"{reached} bytes of tensors behind the header", len(self.data))


def _refuse(expected: str, got: object) -> NoReturn:
    raise UnsupportedModelError(f"safetensors: expected {expected}, got {got!r:.200}")


def _parsed(header: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key that stands there twice")
        return found

    try:
        raw = json.loads(header.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise UnsupportedModelError(f"safetensors: expected a header of JSON, got {error}") from error
    if not isinstance(raw, dict):
        _refuse("a header that is a JSON object", type(raw).__name__)
    return raw


def _entry(name: str, fields: Any) -> Entry:
    if not isinstance(fields, dict) or set(fields) != {"dtype", "shape", "data_offsets"}:
        _refuse(f"tensor {name!r} to have dtype, shape and data_offsets", fields)
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        _refuse(f"tensor {name!r} to have a dtype of the format", dtype)
    if not _are_sizes(shape) or len(shape) > 64:
        _refuse(f"tensor {name!r} to have a shape of whole numbers", shape)
    if not _are_sizes(offsets) or len(offsets) != 2:
        _refuse(f"tensor {name!r} to have two data_offsets", offsets)
    n_bits = math.prod(shape) * _BITS[dtype]  # Python's integers do not overflow
    if n_bits % 8 or offsets[1] - offsets[0] != n_bits // 8:
        _refuse(f"tensor {name!r} to have as many bytes as {shape} of {dtype} take", offsets)
    return Entry(dtype, tuple(shape), *offsets)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**48 for item in value)


def _bfloat16(array: NDArray[Any]) -> NDArray[np.uint16]:
    """The upper halves of float32 numbers, rounded to the nearest, ties to even; NaN stays NaN."""
    values = array.astype("<f4")
    bits = values.view("<u4")
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    if (np.isfinite(values) & (rounded & 0x7FFF == 0x7F80)).any():
        _refuse("numbers that fit bfloat16", float(np.abs(values).max()))
    return np.where(np.isnan(values), (bits >> 16) | 0x40, rounded).astype("<u2")
