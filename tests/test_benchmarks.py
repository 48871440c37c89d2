"""The benchmarks are no part of the tests' time, but they must load."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_every_benchmark_is_collected() -> None:
    pytest.importorskip("pytest_benchmark")
    command = [sys.executable, "-m", "pytest", "benchmarks", "--collect-only", "-q"]
    apart = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    found = subprocess.run(command, cwd=ROOT, env=apart, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    for path in (ROOT / "benchmarks").glob("test_*.py"):
        assert f"benchmarks/{path.name}" in found.stdout
