"""The package as users get it: light to import, complete, self-contained, free of what it does not need."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import metaedit_fast
from metaedit_fast import _core, versions

IMPORT_SECONDS = 0.3
HEAVY = ("torch", "sklearn", "scipy", "pandas", "onnx", "onnxruntime", "pyarrow")
CORE = Path(_core.__file__)
X86_64 = platform.machine().lower() in ("x86_64", "amd64")


def python(code: str, *options: str) -> str:
    """The standard output of a fresh interpreter that runs ``code`` away from the source tree."""
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=CORE.anchor,
        env={k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "COV"))},
    ).stdout


def tool(name: str, *arguments: str) -> str:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not on this machine")
    return subprocess.run([name, *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def wheel_files() -> list[str]:
    """What the wheel put into place, from the record that pip keeps of it."""
    try:
        files = importlib.metadata.files("metaedit_fast")
    except importlib.metadata.PackageNotFoundError:
        files = None
    if files is None:
        pytest.skip("metaedit_fast runs from its source tree; 'make test' installs it")
    return [str(file) for file in files if "__pycache__" not in str(file)]


@pytest.mark.skipif("METAEDIT_TEST_INSTALLED" not in os.environ, reason="only 'make test' promises an installation")
def test_the_tests_meet_the_installed_package() -> None:
    repository = Path(__file__).parents[1]
    for found in (Path(metaedit_fast.__file__), CORE):
        assert repository / "metaedit_fast" not in found.parents
        assert "site-packages" in found.parts


def test_import_loads_nothing_heavy() -> None:
    loaded = python("import sys, metaedit_fast; print(*(m.partition('.')[0] for m in sys.modules))").split()
    assert "metaedit_fast" in loaded
    assert not set(HEAVY) & set(loaded)


def test_import_is_quick() -> None:
    code = "import time; start = time.perf_counter(); import metaedit_fast; print('took', time.perf_counter() - start)"
    assert min(float(python(code).split()[-1]) for _ in range(5)) < IMPORT_SECONDS


def test_import_prints_and_warns_nothing() -> None:
    assert python("import metaedit_fast", "-W", "error") == ""


def test_the_core_loads_no_python_but_numpy() -> None:
    loaded = python("import sys, metaedit_fast._core; print(*(m.partition('.')[0] for m in sys.modules))").split()
    assert not set(HEAVY) & set(loaded)


def test_show_versions(capsys: pytest.CaptureFixture[str]) -> None:
    versions.show_versions()
    printed = capsys.readouterr().out
    found = dict(line.split(maxsplit=1) for line in printed.splitlines())
    assert found["python"] == platform.python_version()
    assert found["numpy"] == importlib.metadata.version("numpy")
    assert found["core"].startswith(_core.__version__)
    assert {"platform", "processor", "onnx", "onnxruntime", "pyarrow", "typer", "rich"} <= set(found)


def test_show_versions_imports_nothing_heavy() -> None:
    code = "from metaedit_fast import versions; versions.versions(); import sys; print(*sys.modules)"
    assert not set(HEAVY) & set(python(code).split())


def test_one_version_everywhere(wheel_files: list[str]) -> None:
    assert importlib.metadata.version("metaedit_fast") == _core.__version__ == _core.build_info()["version"]


def test_wheel_holds_the_package_and_nothing_else(wheel_files: list[str]) -> None:
    package = [file for file in wheel_files if file.startswith("metaedit_fast/")]
    others = {file.split("/")[0] for file in wheel_files if file not in package and not file.startswith("..")}
    assert len(others) == 1, others
    assert re.fullmatch(r"metaedit_fast-[0-9.]+\.dist-info", others.pop())
    assert {"metaedit_fast/py.typed", "metaedit_fast/_core.pyi", "metaedit_fast/__init__.py"} <= set(package)
    assert sum(file.startswith("metaedit_fast/_core.") and not file.endswith(".pyi") for file in package) == 1
    assert not [file for file in package if file.endswith((".cpp", ".hpp", ".o", ".a"))]
    assert [file for file in wheel_files if file.endswith("licenses/LICENSE")]
    assert [file for file in wheel_files if file.endswith("licenses/NOTICE")]


def test_wheel_holds_every_file_of_the_source_package(wheel_files: list[str]) -> None:
    repository = Path(__file__).parents[1]
    listed = subprocess.run(
        ["git", "ls-files", "metaedit_fast"], cwd=repository, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    assert not set(listed.stdout.split()) - set(wheel_files)


@pytest.mark.skipif(sys.platform != "linux", reason="ldd and ELF are Linux's")
def test_core_needs_the_system_alone() -> None:
    needed = tool("ldd", str(CORE))
    assert "not found" not in needed
    for library in ("libtorch", "libc10", "libgomp", "libomp", "libiomp", "libpython"):
        assert library not in needed


@pytest.fixture(scope="module")
def code_of_section() -> dict[str, str]:
    """The disassembled core, a listing for each section of code."""
    if not X86_64 or sys.platform != "linux":
        pytest.skip("about x86-64 on Linux")
    listing = tool("objdump", "--disassemble", "--no-show-raw-insn", str(CORE))
    _, *parts = re.split(r"^Disassembly of section (\S+):$", listing, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def instructions(code: str) -> set[str]:
    return set(re.findall(r"^\s*[0-9a-f]+:\s+(?:\{evex\} )?(\w+)", code, re.MULTILINE))


def test_core_runs_on_machines_without_avx(code_of_section: dict[str, str]) -> None:
    """Kernels of stronger machines stand in sections of their own; the rest is for the oldest x86-64 of numpy."""
    baseline = {name: code for name, code in code_of_section.items() if not name.startswith("metaedit_")}
    assert set(code_of_section) - set(baseline) == {
        "metaedit_avx2",
        "metaedit_avx512",
        "metaedit_avx512_bf16",
        "metaedit_amx",
    }
    for name, code in baseline.items():
        # Every AVX, AVX2, FMA and AVX-512 instruction is named v...; of the baseline's, only verr and verw are.
        assert not {i for i in instructions(code) if i.startswith("v")} - {"verr", "verw"}, name
        assert not re.search("[yz]mm", code), name
    assert "mulps" in instructions(baseline[".text"]), "the listing shows no arithmetic at all"


def test_avx2_kernels_need_no_more_than_they_say(code_of_section: dict[str, str]) -> None:
    code = code_of_section["metaedit_avx2"]
    assert "vfmadd231ps" in instructions(code)
    # Registers from 16 on, masks, zmm and broadcasting operands are AVX-512's.
    assert not re.search(r"zmm|[xy]mm(1[6-9]|2\d|3[01])|%k[0-7]|\{1to", code)


def test_avx512_kernels_use_its_registers(code_of_section: dict[str, str]) -> None:
    code = code_of_section["metaedit_avx512"]
    assert re.search(r"vfmadd\d+ps.*%zmm", code)
    # The level promises F, BW, DQ and VL; these are the names of later extensions.
    later = ("bf16", "vpdp", "vpopcnt", "vpermb", "vpermi2b", "vpcompressb", "vpcompressw", "vgf2p8", "ph")
    assert not [i for i in instructions(code) if any(i.endswith(x) or i.startswith(x) for x in later)]


@pytest.mark.parametrize(
    ("section", "product", "lacks"),
    [("metaedit_avx512_bf16", "vdpbf16ps", ("tile", "tdp")), ("metaedit_amx", "tdpbf16ps", ("vdp",))],
)
def test_bf16_kernels_multiply_bf16(
    code_of_section: dict[str, str], section: str, product: str, lacks: tuple[str, ...]
) -> None:
    found = instructions(code_of_section[section])
    assert {product, "vcvtneps2bf16"} <= found
    # AVX512_BF16 and what avx512 promises.
    later = ("vpdp", "vpopcnt", "vpermb", "vpermi2b", "vpcompressb", "vpcompressw", "vgf2p8", "ph", *lacks)
    assert not [i for i in found if any(i.endswith(x) or i.startswith(x) for x in later)]


@pytest.mark.skipif(sys.platform != "linux", reason="nm -D reads ELF")
def test_core_exports_its_entry_points_alone() -> None:
    exported = [line.split()[1:] for line in tool("nm", "-D", "--defined-only", str(CORE)).splitlines()]
    assert {symbol for kind, symbol in exported if kind not in "VuWw"} == {
        "PyInit__core",
        "RegisterCustomOps",
    }
    assert not [symbol for _, symbol in exported if "metaedit" in symbol]
