"""The wheel that ``make wheel`` builds, alone in a new environment: ``make wheel-test``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WHEELS = os.environ.get("METAEDIT_WHEELS")
MAX_BYTES = 2_000_000
# What every Linux has: libc and its parts, and the runtime of C++.
SYSTEM = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libstdc++.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2"}
BASE = {"numpy", "onnx", "onnxruntime", "pyarrow", "rich", "threadpoolctl", "typer"}
# An edit of real models, measured on real rows, and what was loaded for it.
EDIT = """
import json, sys
import numpy as np
import metaedit_fast as mf
from metaedit_fast.editing.bundled import bundled_editors

demo = sys.argv[1]
rows = np.load(f"{demo}/rows.npz", allow_pickle=False)
models = mf.Population.load(f"{demo}/population")
data = mf.Table(rows["x_test"], rows["y_test"])
result = mf.edit(models, "adult-pruning", target={"sparsity": 0.9}, data=data, refine=5)
try:
    mf.load_editor("bank-pruning")
    absent = None
except mf.errors.InvalidEditorError as error:
    absent = str(error)
print(json.dumps({
    "place": mf.__file__,
    "editors": bundled_editors(),
    "absent": absent,
    "counts": result.status_counts,
    "after": [record.metrics["after"] for record in result],
    "torch": "torch" in sys.modules,
}))
"""

pytestmark = pytest.mark.skipif(WHEELS is None, reason="'make wheel-test' names the folder of the wheels")


def wheel_of(name: str) -> Path:
    (found,) = Path(str(WHEELS)).glob(f"{name}-*.whl")
    return found


def run(python: Path, *arguments: str) -> str:
    """The output of an interpreter of the new environment, away from the checkout."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST", "COV", "METAEDIT"))}
    done = subprocess.run(
        [python, *arguments], capture_output=True, text=True, check=False, env=clean, cwd=python.parents[1]
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel and what it asks for, and nothing else."""
    place = tmp_path_factory.mktemp("clean") / "venv"
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    run(place / "bin" / "python", "-m", "pip", "install", "--quiet", str(wheel_of("metaedit_fast")))
    return place / "bin" / "python"


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with zipfile.ZipFile(wheel_of("metaedit_fast")) as wheel:
        (name,) = [name for name in wheel.namelist() if re.fullmatch(r"metaedit_fast/_core\..*\.so", name)]
        return Path(wheel.extract(name, tmp_path_factory.mktemp("core")))


def test_it_is_small_and_for_any_linux() -> None:
    wheel = wheel_of("metaedit_fast")
    assert wheel.stat().st_size < MAX_BYTES
    assert re.search(r"-manylinux_2_\d+_\w+", wheel.name)
    with zipfile.ZipFile(wheel) as files:
        assert not [name for name in files.namelist() if ".libs/" in name], "it carries libraries of the build machine"


def test_the_editors_are_data_for_any_machine() -> None:
    with zipfile.ZipFile(wheel_of("metaedit_fast_editors")) as wheel:
        files = wheel.namelist()
    assert wheel_of("metaedit_fast_editors").name.endswith("-py3-none-any.whl")
    assert sum(name.endswith(".onnx") for name in files) == 5
    assert [name for name in files if name.endswith(".py")] == ["metaedit_fast_editors/__init__.py"]
    assert {Path(name).name for name in files} >= {"LICENSE", "NOTICE"}


def test_the_core_needs_the_system_alone(core: Path) -> None:
    listing = subprocess.run(["readelf", "--dynamic", core], check=True, capture_output=True, text=True).stdout
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", listing))
    assert needed
    assert needed <= SYSTEM
    assert not re.search(r"R(UN)?PATH", listing)


def test_no_path_of_the_build_machine_is_inside() -> None:
    with zipfile.ZipFile(wheel_of("metaedit_fast")) as wheel:
        contents = {name: wheel.read(name) for name in wheel.namelist()}
    for place in (ROOT, Path.home(), Path(sys.prefix)):
        found = [name for name, content in contents.items() if str(place).encode() + b"/" in content]
        assert not found, place


def test_the_environment_has_the_base_alone(python: Path) -> None:
    installed = {p["name"].lower() for p in json.loads(run(python, "-m", "pip", "list", "--format=json"))}
    assert installed >= {"metaedit_fast", *BASE}
    assert not installed & {"torch", "scikit-learn", "scipy", "pandas", "metaedit_fast_editors"}


def test_it_edits_the_demonstrations_models(python: Path) -> None:
    found = json.loads(run(python, "-W", "error", "-c", EDIT, str(ROOT / "examples" / "demo")))
    assert Path(found["place"]).is_relative_to(python.parents[1])
    assert found["editors"] == ["adult-pruning"]
    assert "pip install 'metaedit_fast[editors]'" in found["absent"]
    assert found["counts"] == {"edited": 64, "unchanged": 0, "refused": 0}
    assert all(abs(after["sparsity"] - 0.9) < 0.01 for after in found["after"])
    assert sum(after["accuracy"] for after in found["after"]) / 64 > 0.8
    assert not found["torch"]


def test_the_editors_are_found_once_they_are_installed(python: Path) -> None:
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel_of("metaedit_fast_editors")))
    code = "import metaedit_fast as mf; print(mf.load_editor('bank-pruning').info.name)"
    assert run(python, "-c", code).strip() == "bank-pruning"
    assert "bank-pruning" in run(python, "-m", "metaedit_fast", "info")
