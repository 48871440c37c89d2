"""How many threads to use."""

from __future__ import annotations

import numbers
import os

THREADS_VARIABLE = "METAEDIT_NUM_THREADS"


def thread_count(num_threads: int | None = None) -> int:
    """``num_threads``, else ``METAEDIT_NUM_THREADS``, else the processors that this process may use.

    Raises ``ValueError`` unless it is a positive integer.
    """
    if num_threads is not None:
        if not isinstance(num_threads, numbers.Integral) or isinstance(num_threads, bool) or num_threads < 1:
            raise ValueError(f"num_threads: expected an integer of at least 1, got {num_threads!r}")
        return int(num_threads)
    text = os.environ.get(THREADS_VARIABLE)
    if text:
        if not text.strip().isdecimal() or int(text) < 1:
            raise ValueError(f"{THREADS_VARIABLE}: expected a positive integer, got {text!r}")
        return int(text)
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
