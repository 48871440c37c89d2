"""The public names: complete, documented, imported only when they are used."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import metaedit_fast as mf

NAMES = {
    "MLP", "CompactResult", "EditResult", "Editor", "MLPSpec", "Population", "Table", "UnsupportedModelError",
    "__version__", "compact", "edit", "edit_", "edit_stream", "errors", "fit_editor", "load_dataset", "load_editor",
    "ort_library_path", "read_model", "show_versions", "write_model",
}  # fmt: skip


def fresh(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_names():
    assert set(mf.__all__) == set(dir(mf)) == NAMES
    assert len(mf.__all__) == len(NAMES)


@pytest.mark.parametrize("name", sorted(NAMES - {"__version__"}))
def test_each_name_is_there_and_documented(name):
    if name == "fit_editor":
        pytest.importorskip("torch")
    found = getattr(mf, name)
    assert inspect.getdoc(found)
    if inspect.isfunction(found) or inspect.isclass(found):
        assert found.__name__ == name
        assert found.__module__.startswith("metaedit_fast.")


def test_import_star():
    pytest.importorskip("torch")
    names = fresh("from metaedit_fast import *; print(*sorted(set(dir()) - set(dir(__builtins__))))").split()
    assert set(names) - {"__annotations__"} >= NAMES - {"__version__"}


def test_unknown_names():
    with pytest.raises(AttributeError, match="module 'metaedit_fast' has no attribute 'prune'"):
        _ = mf.prune


def test_version():
    assert mf.__version__[0].isdigit()


def test_the_errors_have_one_base():
    for name in ("UnsupportedModelError", "InvalidEditorError", "InvalidPopulationError", "MissingDependencyError"):
        assert issubclass(getattr(mf.errors, name), mf.errors.MetaeditError)


BASE_ONLY = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchjd", "sklearn", "scipy", "pandas"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import numpy as np
import metaedit_fast as mf
from pathlib import Path
"""


def test_editing_needs_no_torch(tmp_path, tiny_probe_editor, small_mlps):
    tiny_probe_editor.save(tmp_path / "editor.onnx")
    mf.write_model(small_mlps[1], tmp_path / "net.onnx")
    code = f"""
folder = Path({str(tmp_path)!r})
rows = np.random.default_rng(0).normal(size=(50, 5))
models = [folder / "net.onnx", mf.read_model(folder / "net.onnx")]
result = mf.edit(models, folder / "editor.onnx", strength=0.5, data=mf.Table(rows, rows[:, 0] > 0), refine=3)
result.save(folder / "out")
mf.edit(mf.Population.from_mlps([models[1]]), folder / "editor.onnx", strength=0.5, data=rows).save(folder / "out2")
mf.show_versions()
print(result.status_counts["edited"], "torch" in sys.modules, "sklearn" in sys.modules)
"""
    assert fresh(BASE_ONLY + code).splitlines()[-1] == "2 False False"
    assert mf.read_model(tmp_path / "out" / "net.onnx").sparsity >= 0.5


def test_training_without_torch_names_the_extra():
    code = """
try:
    mf.fit_editor
except mf.errors.MissingDependencyError as error:
    print(error)
"""
    assert fresh(BASE_ONLY + code).strip() == (
        "fit_editor needs the package 'torch': pip install 'metaedit_fast[train]'"
    )


def command_without_extras(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = ["metaedit", *map(str, arguments)]
    code = f"import sys; sys.argv = {words}\nfrom metaedit_fast.cli import main; main()"
    return subprocess.run([sys.executable, "-c", BASE_ONLY + code], capture_output=True, text=True, check=False)


def test_the_command_that_trains_an_editor_names_the_extra_too(tmp_path):
    done = command_without_extras("train", tmp_path, "--dataset", "bank", "--out", "x.onnx")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "metaedit_fast[train]" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_population_is_trained_without_torch(tmp_path, shared_data):
    options = ("--dataset", "bank", "--data-folder", shared_data, "--runs", 2, "--epochs", 1)
    done = command_without_extras("population", *options, "--out", tmp_path / "new")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 models of 2 runs on bank, 2 finite")
