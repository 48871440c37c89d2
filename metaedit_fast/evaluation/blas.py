"""One BLAS thread while methods are timed, so that each is measured on one."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any


class _OneBlasThread:
    """Limits numpy's BLAS to one thread inside ``with``; calls may overlap, the last one out restores it.

    Threads of a pool that each start threads of BLAS wait for one another, and are many times slower than
    the pool alone. It also makes the sums of a product of matrices independent of how many processors
    there are. The limit holds for the whole process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                import threadpoolctl

                self._limit = threadpoolctl.threadpool_limits(limits=1, user_api="blas")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._limit is not None:
                self._limit.restore_original_limits()
                self._limit = None


one_blas_thread = _OneBlasThread()
