"""The choice of the instruction set and of the number of threads: by the machine, by the environment, by the call."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

from metaedit_fast import _core

# Prints the instruction set in force and the bytes of a layer's result in every precision.
SCRIPT = """
import sys
import numpy as np
from metaedit_fast import _core

rng = np.random.default_rng(0)
shapes = {
    "edge.weight": (16, 16), "edge.bias": (16,), "source.weight": (16, 64), "target.weight": (16, 64),
    "update.weight": (16, 16), "update.bias": (16,), "norm.weight": (64,), "norm.bias": (64,),
    "node_in.weight": (128, 128), "node_in.bias": (128,), "node_out.weight": (64, 128), "node_out.bias": (64,),
}
parameters = {name: rng.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}
blocks = np.array([[0, 20, 20, 30, 0, 0]])
h, e = rng.normal(size=(50, 64)).astype(np.float32), rng.normal(size=(600, 16)).astype(np.float32)
for isa in (None, *sys.argv[1:]):
    line = [_core.isa()]
    for precision in ("float32", "bf16x3", "bf16"):
        found = _core.shipped_forward(blocks, h, e, parameters, isa=isa, precision=precision)
        line.append(b"".join(x.tobytes() for x in found).hex())
    print(*line)
"""


LEVELS = ("serial", "avx2", "avx512", "avx512_bf16", "amx")


def run(code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("METAEDIT_")}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**environment, **variables},
    )


def test_serial_is_everywhere_and_the_best_is_the_default() -> None:
    available = _core.available_isas()
    assert available[0] == "serial"
    assert available == [isa for isa in LEVELS if isa in available]
    found = run("from metaedit_fast import _core; print(_core.isa())")
    assert found.stdout.split() == [available[-1]], found.stderr


def test_the_levels_round_differently() -> None:
    """So that equal bits prove, below, which level ran: each has kernels of its own in one of the precisions."""
    levels = _core.available_isas()
    found = run(SCRIPT, *levels)
    assert found.returncode == 0, found.stderr
    _, *bits = [line.split()[1:] for line in found.stdout.splitlines()]
    for one, other in itertools.combinations(bits, 2):
        assert one != other
    by_level = dict(zip(levels, bits, strict=True))
    for level, (float32, split, rounded) in by_level.items():
        if level in ("avx512_bf16", "amx"):
            assert float32 == by_level["avx512"][0]
        assert (rounded == float32) == (level not in ("avx512_bf16", "amx"))
        assert (split == float32) == (level != "amx")


def test_the_forced_level_runs(isa: str) -> None:
    found = run(SCRIPT, isa, METAEDIT_ISA=isa)
    assert found.returncode == 0, found.stderr
    (name, *by_default), (_, *by_argument) = [line.split() for line in found.stdout.splitlines()]
    assert name == isa
    assert by_default == by_argument


@pytest.mark.parametrize("precision", ["bf16x3", "bf16"])
def test_amx_has_both_precisions(precision: str) -> None:
    """What they compute is tested where every arithmetic is; here a machine without AMX tells that it did not."""
    if "amx" not in _core.available_isas():
        pytest.skip("no AMX here: `make emulate` runs the tests of its kernels on emulated tiles")
    float32, rounded = (run(SCRIPT, METAEDIT_ISA=isa).stdout.split() for isa in ("avx512", "amx"))
    assert float32[0] == "avx512"
    assert rounded[0] == "amx"
    place = ("float32", "bf16x3", "bf16").index(precision) + 1
    assert rounded[place] not in (rounded[1], float32[place])


def test_an_empty_variable_forces_nothing() -> None:
    assert run("from metaedit_fast import _core; print(_core.isa())", METAEDIT_ISA="").stdout.split() == [
        _core.available_isas()[-1]
    ]


@pytest.mark.parametrize("name", ["avx10", "AVX2", "avx512 ", "sse"])
def test_a_level_that_is_missing_or_unknown_raises(name: str) -> None:
    found = run(SCRIPT, METAEDIT_ISA=name)
    assert found.returncode == 1
    message = f"METAEDIT_ISA: expected an instruction set that this machine and build have (serial{{}}), got '{name}'"
    others = "".join(f", {isa}" for isa in _core.available_isas()[1:])
    assert f"ValueError: {message.format(others)}" in found.stderr


def test_erf_and_import_do_not_read_the_variable() -> None:
    """Whoever forces a wrong level is told where kernels are used, not by an import."""
    code = "import numpy as np; from metaedit_fast import _core; print(_core.erf(np.zeros(1, np.float32))[0])"
    assert run(code, METAEDIT_ISA="none").stdout.split() == [str(np.float32(0))]
