"""One thread for torch's own operations, while the kernels use theirs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """One thread inside ``with``, for the whole process.

    What is left to torch is small, its idle threads spin for a while and take processors from the kernels, and its
    sums depend on how many there are.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
