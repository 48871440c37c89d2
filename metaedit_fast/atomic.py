"""Files that are there either completely or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write to, which takes the name ``path`` once the block has ended without an error.

    It is written under another name in the same folder, flushed to the disk and renamed, so a reader meets
    what was at ``path`` before or the whole new file. After an error nothing is left of it.

    Raises ``OSError`` that names ``path``: ``FileNotFoundError`` where its folder is missing.
    """
    if not path.parent.exists():
        raise FileNotFoundError(f"{path}: cannot be written, there is no folder {str(path.parent)!r}")
    # Not all of the name, which may be as long as a file system takes.
    temporary = path.with_name(f".{path.name[:40]}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # of the subclass that the number tells
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` as the file ``path``; see ``atomic_file``."""
    with atomic_file(path) as file:
        file.write(data)
