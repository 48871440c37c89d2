"""A fleet pinned to one instruction set gets the same bits, also where numpy and the C library choose other code."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from metaedit_fast import _core

DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo"
# The bits of three kinds of edits, refined and not.
CODE = """
import hashlib, sys
import numpy as np
import metaedit_fast as mf
from metaedit_fast import _core

mlps = mf.Population.load(f"{sys.argv[1]}/population").mlps[:4]
rows = np.load(f"{sys.argv[1]}/rows.npz", allow_pickle=False)
x, y = rows["x_test"][:600], rows["y_test"][:600]
data = mf.Table(x, y, sensitive=np.where(x[:, 9] > 0, "a", "b"))
digest = hashlib.sha256()
for name, options in (
    ("adult-pruning", {"target": {"sparsity": 0.9}, "refine": 5}),
    ("adult-data-minimisation", {"target": {"features": 6}}),
    ("adult-equalized-odds", {"strength": 0.5}),
):
    result = mf.edit(mlps, name, data=data, num_threads=int(sys.argv[2]), **options)
    assert result.status_counts["edited"] > 1
    for record in result:
        digest.update(repr((record.reason, record.metrics)).encode() + record.model.theta.tobytes())
print(_core.isa(), digest.hexdigest())
"""
# numpy and glibc without what most machines have: they then run the code of older ones.
OLDER = {
    "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX2 FMA3",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX512F",
}


def edits(threads: int, **variables: str) -> list[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("METAEDIT_", "NPY_"))}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, DEMO, str(threads)],
        capture_output=True, text=True, check=False, env={**environment, **variables},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


X86_LINUX = platform.machine() == "x86_64" and sys.platform == "linux"


@pytest.mark.skipif(not X86_LINUX, reason="the variables are those of x86-64 Linux")
def test_a_level_gives_the_same_bits_whatever_the_libraries_choose() -> None:
    found = {}
    for isa in {"serial", "avx2", "avx512"} & set(_core.available_isas()):
        found[isa] = edits(1, METAEDIT_ISA=isa)
        assert found[isa][0] == isa
        assert edits(3, METAEDIT_ISA=isa, **OLDER) == found[isa]
    assert len({bits for _, bits in found.values()}) == len(found), "levels round differently, or nothing was compared"
