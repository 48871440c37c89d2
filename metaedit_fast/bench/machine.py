"""What the machine is and what its cores can do, measured in the same run as everything else."""

from __future__ import annotations

import dataclasses
import os
import platform
from typing import Any

from metaedit_fast import _core
from metaedit_fast.versions import versions

_PEAKS = ("multiply_add", "addition", "silu", "bf16_product", "bf16_silu", "copy")


@dataclasses.dataclass(frozen=True)
class Peaks:
    """Seconds for one value (for ``copy`` one byte) on each of ``threads`` threads that all do the same.

    ``addition`` is what one costs more beside multiply-adds, which can be nothing. None where the instruction set has
    no such instruction.
    """

    threads: int
    isa: str
    multiply_add: float | None
    addition: float | None
    silu: float | None
    bf16_product: float | None
    bf16_silu: float | None
    copy: float | None

    @classmethod
    def measure(cls, *, threads: int, isa: str | None = None, seconds: float = 0.2) -> Peaks:
        """``seconds`` a peak; ``isa`` is an instruction set instead of the active one."""
        isa = _core.isa() if isa is None else isa
        found = {
            name: _core.measure_peak(name, seconds=seconds, num_threads=threads, isa=isa) or None for name in _PEAKS
        }
        if found["multiply_add"] is not None and found["addition"] is None:
            found["addition"] = 0.0  # hidden behind the multiply-adds altogether
        return cls(threads, isa, **found)

    def to_json(self) -> dict[str, float | int | str | None]:
        """The same in the usual units, per thread."""
        rate = {
            "multiply_add_gflops": _giga(self.multiply_add, 2),
            "bf16_product_gflops": _giga(self.bf16_product, 2),
            "silu_gigavalues": _giga(self.silu),
            "bf16_silu_gigavalues": _giga(self.bf16_silu),
            "copy_gigabytes": _giga(self.copy),
        }
        addition = None if self.addition is None else 1e9 * self.addition
        return {"threads": self.threads, "isa": self.isa, **rate, "addition_beside_multiply_add_ns": addition}


def describe() -> dict[str, Any]:
    """Processor, system and versions, as JSON takes them."""
    found = versions()
    return {
        "processor": found["processor"],
        "platform": found["platform"],
        "logical_cores": os.cpu_count(),
        "memory_gb": _memory_gb(),
        "isa": _core.isa(),
        "available_isas": _core.available_isas(),
        "core": found["core"],
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": {"python": platform.python_version(), **_of_libraries()},
    }


def _of_libraries() -> dict[str, str]:
    import importlib.metadata

    found = {}
    for name in ("metaedit_fast", "numpy", "onnxruntime", "torch", "torch_geometric"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _giga(seconds: float | None, operations: int = 1) -> float | None:
    return None if seconds is None else operations / seconds / 1e9


def _memory_gb() -> float | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):
        return None
