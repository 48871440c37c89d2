"""Pack a wheel again as densely as its format can be: the same files, some percent smaller.

python packages/pack.py dist/metaedit_fast-*.whl
"""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import zopfli.zlib


class Dense:
    """What ``zipfile`` takes for a compressor: zopfli's deflate, which every installer reads."""

    def __init__(self) -> None:
        self._data = bytearray()

    def compress(self, data: bytes) -> bytes:
        self._data += data
        return b""

    def flush(self) -> bytes:
        return zopfli.zlib.compress(bytes(self._data))[2:-4]  # without zlib's header and checksum


def pack(wheel: Path) -> None:
    """Replace the wheel by a smaller one with the same content."""
    packed = wheel.with_suffix(".packed")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(packed, "w") as new:
        for info in old.infolist():
            new.writestr(info, old.read(info), zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(packed) as new:
        if new.testzip() is not None:
            raise RuntimeError(f"{packed}: a damaged archive; this Python's zipfile takes compressors otherwise")
    os.replace(packed, wheel)


if __name__ == "__main__":
    zipfile._get_compressor = lambda *_: Dense()
    for name in sys.argv[1:]:
        pack(Path(name))
