"""Peak memory of a forward pass: what a fresh process grows by at its highest, over the interpreter with the package
(and the engine's libraries) imported. The population and its features are part of the growth.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

MB = 1e6


def peak_growth_mb(form: str, engine: str, precision: str, threads: int, n_models: int, seed: int) -> float | None:
    """Growth of the highest resident size by one forward call; None where the system does not tell it."""
    code = "from metaedit_fast.bench.memory import main; main()"
    arguments = [form, engine, precision, str(threads), str(n_models), str(seed)]
    found = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        # The package that this process runs, not what the working folder may hold.
        env={**os.environ, "PYTHONSAFEPATH": "1"},
    )
    value: float | None = json.loads(found.stdout)
    return value


def main() -> None:
    """Measure the task that the command line names, in this process."""
    form, engine, precision, threads, n_models, seed = sys.argv[1:]
    sys.stdout.write(json.dumps(_measure(form, engine, precision, int(threads), int(n_models), int(seed))))


def _measure(form: str, engine: str, precision: str, threads: int, n_models: int, seed: int) -> float | None:
    from metaedit_fast.bench.network import NetworkCase
    from metaedit_fast.bench.population import mixed_population
    from metaedit_fast.bench.tasks.forward import CONFIGS, ENGINES

    small = NetworkCase.of(CONFIGS[form](), mixed_population(1, seed))
    ENGINES[engine](small, threads, precision)()  # loads what the engine needs
    reset_peak()
    before = resident_mb("VmRSS")
    ENGINES[engine](NetworkCase.of(CONFIGS[form](), mixed_population(n_models, seed)), threads, precision)()
    after = resident_mb("VmHWM")
    return None if before is None or after is None else after - before


def resident_mb(field: str) -> float | None:
    """``VmRSS`` (now) or ``VmHWM`` (the highest so far) of this process, from Linux's /proc."""
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / MB
    return None


def reset_peak() -> None:
    """Let ``VmHWM`` begin anew from the present size, where the kernel allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return
