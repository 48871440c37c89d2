"""The command ``metaedit``: outputs, exit codes, and one clear line per error."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import metaedit_fast as mf
from metaedit_fast.cli import app
from metaedit_fast.editing.plan import split_rows
from metaedit_fast.evaluation.baselines.pruning import prune
from metaedit_fast.evaluation.figures import source_hash
from metaedit_fast.evaluation.record import read_record
from metaedit_fast.evaluation.tables import budget_table
from metaedit_fast.models.divergence import mean_jsd
from metaedit_fast.population.record import PopulationRecord
from metaedit_fast.requirements.masks import kept_count


@pytest.fixture
def place(tmp_path, monkeypatch, tiny_editor, small_mlps):
    """A folder with three models, an editor and rows, as the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for i, mlp in enumerate(small_mlps[:3]):
        mf.write_model(mlp, tmp_path / "models" / f"m{i}.onnx")
    tiny_editor.save(tmp_path / "editor.onnx")
    x = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    y = small_mlps[0].predict(x)
    np.savez(tmp_path / "rows.npz", X=x, y=y)
    header = ",".join([*"abcde", "label"])
    np.savetxt(tmp_path / "rows.csv", np.c_[x, y], delimiter=",", header=header, comments="")
    return tmp_path


def metaedit(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def error_of(*arguments):
    """The single line that a failing command prints on stderr."""
    result = metaedit(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


EDIT = ("--editor", "editor.onnx", "--out", "out")


def test_edit(place):
    result = metaedit("edit", "models/m0.onnx", "models/m1.onnx", *EDIT, "--sparsity", 0.75)
    assert result.exit_code == 0, result.output
    assert "2 models: 2 edited" in result.stdout
    assert "written to out" in result.stdout
    assert "JSD" not in result.stdout.split("2 models")[1]
    assert result.stderr == ""
    assert mf.read_model(place / "out" / "m1.onnx").sparsity == pytest.approx(0.75, abs=0.01)
    assert mf.read_model(place / "models" / "m1.onnx").sparsity == 0


def test_edit_as_json_with_pattern_data_and_refinement(place):
    result = metaedit(
        "edit", "models/*.onnx", *EDIT, "--strength", 0.75, "--data", "rows.csv", "--label", "label", "--refine", 2,
        "--probe-rows", 10, "--threads", 2, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    printed = json.loads(result.stdout)
    assert printed["out"] == "out"
    assert [record["name"] for record in printed["records"]] == ["m0", "m1", "m2"]
    assert printed["records"][0]["metrics"]["before"]["accuracy"] == 1.0
    assert printed["settings"]["metric_rows"] == 30
    saved = json.loads((place / "out" / "result.json").read_text())
    assert saved["settings"] == printed["settings"]


def test_labels_from_an_archive(place):
    result = metaedit("edit", "models/m0.onnx", *EDIT, "--sparsity", 0.5, "--data", "rows.npz", "--json")
    assert "accuracy" in json.loads(result.stdout)["records"][0]["metrics"]["after"]


def test_edit_a_population(place, small_mlps):
    mf.Population.from_mlps(small_mlps).save(place / "population")
    result = metaedit("edit", "population", *EDIT, "--sparsity", 0.75)
    assert result.exit_code == 0, result.output
    assert all(r.mlp.sparsity >= 0.7 for r in mf.Population.load(place / "out" / "population"))


def test_a_refusal_is_exit_code_one(place):
    (place / "models" / "bad.onnx").write_bytes(b"\xff\xff")
    result = metaedit("edit", "models/*.onnx", *EDIT, "--sparsity", 0.75, "--json")
    assert result.exit_code == 1
    printed = json.loads(result.stdout)
    assert printed["status_counts"] == {"edited": 3, "unchanged": 0, "refused": 1}
    assert printed["records"][0]["reason"]
    assert (place / "out" / "m0.onnx").exists()
    assert not (place / "out" / "bad.onnx").exists()


def test_overwrite(place):
    command = ("edit", "models/m0.onnx", *EDIT, "--sparsity", 0.75)
    assert metaedit(*command).exit_code == 0
    assert "expected a new or empty folder" in error_of(*command)
    assert metaedit(*command, "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("edit", "gone.onnx", *EDIT, "--sparsity", 0.5), "models: there is no file 'gone.onnx'"),
        (("edit", "models/*.pt", *EDIT, "--sparsity", 0.5), "models: no file matches 'models/*.pt'"),
        (("edit", "models", *EDIT, "--sparsity", 0.5), "no population here"),
        (("edit", "models", "models/m0.onnx", *EDIT, "--sparsity", 0.5), "a population folder is given alone"),
        (("edit", "models/m0.onnx", *EDIT), "error: exactly one of --sparsity, --features, --odds and"),
        (("edit", "models/m0.onnx", *EDIT, "--sparsity", 0.5, "--strength", 0.5), "exactly one of"),
        (("edit", "models/m0.onnx", *EDIT, "--sparsity", 1.5), "0 <= sparsity < 1"),
        (("edit", "models/m0.onnx", *EDIT, "--sparsity", 0.5, "--refine", 3), "data: refine reads a probe"),
        (("edit", "models/m0.onnx", *EDIT, "--sparsity", 0.5, "--label", "y"), "--label: it names a column"),
        (("edit", "models/m0.onnx", *EDIT, "--sparsity", 0.5, "--data", "gone.csv"), "there is no file 'gone.csv'"),
        (("edit", "models/m0.onnx", *EDIT, "--sparsity", 0.5, "--data", "rows.csv"), "5 features, got rows of 6"),
        (("edit", "models/m0.onnx", "--editor", "none", "--out", "out", "--sparsity", 0.5), "none: no such file"),
        (("edit", "models/m0.onnx", "--editor", "models/m0.onnx", "--out", "out", "--sparsity", 0.5), "m0.onnx"),
        (("info", "gone.onnx"), "gone.onnx: no such file, nor one of the bundled editors"),
        (("info", "models"), "no population here"),
        (("info", "rows.csv"), "neither an editor"),
        (("train", "models", "--dataset", "adult", "--out", "new.onnx"), "no population here"),
        (("train", "models", "--dataset", "adult", "--out", "new.pt"), "--out: expected a name that ends in .onnx"),
        (("train", "models", "--dataset", "adult", "--out", "editor.onnx"), "--overwrite replaces it"),
        (("train", "models", "--dataset", "adult", "--out", "x.onnx", "--embed-probe"), "belongs to --probe"),
        (("population", "--dataset", "iris", "--out", "new"), "expected one of ('adult', 'bank', 'bank-full')"),
    ],
)
def test_errors_are_one_line(place, arguments, message):
    if arguments[0] == "train":
        pytest.importorskip("torch")
    assert message in error_of(*arguments)
    assert not (place / "out").exists()


def test_a_result_inside_the_population_is_refused(place, small_mlps):
    mf.Population.from_mlps(small_mlps).save(place / "population")
    before = sorted(place.joinpath("population").iterdir())
    for out in ("population/inside", "population/a/b"):
        said = error_of("edit", "population", "--editor", "editor.onnx", "--out", out, "--sparsity", 0.5)
        assert said.endswith(f"expected a folder outside of the population {place.resolve() / 'population'}")
    assert sorted(place.joinpath("population").iterdir()) == before


def test_a_damaged_state_of_a_training_is_one_line(place, small_mlps):
    pytest.importorskip("torch")
    spec = small_mlps[0].spec
    models = [mf.MLP(spec, np.full(spec.n_parameters, 0.1 * i)) for i in range(20)]
    mf.Population.from_mlps(models).save(place / "population")
    np.savez(place / "many.npz", X=np.random.default_rng(0).normal(size=(600, 5)).astype(np.float32))
    command = ("train", "population", "--data", "many.npz", "--steps", 1, "--checkpoints", "state")
    assert metaedit(*command, "--out", "a.onnx").exit_code == 0
    np.savez(place / "others.npz", X=np.random.default_rng(1).normal(size=(600, 5)).astype(np.float32))
    others = [word.replace("many", "others") if isinstance(word, str) else word for word in command]
    assert "with other rows, validation rows; choose another folder" in error_of(*others, "--out", "b.onnx")
    (place / "state" / "trainer.pt").write_bytes(b"nonsense")
    assert "trainer.pt: not the state of a training, or damaged" in error_of(*command, "--out", "b.onnx")


def test_version(place):
    result = metaedit("--version")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"metaedit_fast {mf.__version__}\n", "")


def test_the_summary_of_a_population_stands_alone_on_stdout(place, shared_data, monkeypatch):
    """With a terminal for stderr, where the bar is drawn, and stdout in a file."""
    pytest.importorskip("torch")
    monkeypatch.setattr(sys.modules["metaedit_fast.cli.population"], "shows_progress", lambda **_: True)
    result = metaedit(
        "population", "--dataset", "bank", "--runs", 1, "--epochs", 1, "--out", "p", "--data-folder", shared_data
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("1 models of 1 runs on bank")
    assert len(result.stdout.splitlines()) == 1
    assert "training groups" in result.stderr


@pytest.mark.parametrize(
    "arguments", [("edit",), ("edit", "a.onnx"), ("unknown",), ("edit", "a", *EDIT, "--refine", "-1"), ("train",)]
)
def test_usage_errors(place, arguments):
    result = metaedit(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage" in result.stderr


def test_info_on_the_installation(place):
    printed = json.loads(metaedit("info", "--json").stdout)
    assert printed["versions"]["numpy"] == np.__version__
    assert isinstance(printed["editors"], list)
    assert f"numpy: {np.__version__}" in metaedit("info").stdout


def test_info_on_files(place, small_mlps, tiny_editor):
    editor = json.loads(metaedit("info", "editor.onnx", "--json").stdout)
    assert editor["kind"] == "editor"
    assert editor["weights_sha256"] == tiny_editor.describe()["weights_sha256"]
    model = json.loads(metaedit("info", "models/m1.onnx", "--json").stdout)
    assert (model["kind"], model["widths"], model["sparsity"]) == ("model", [5, 12, 6, 2], 0.0)
    assert "widths: [5, 12, 6, 2]" in metaedit("info", "models/m1.onnx").stdout
    mf.Population.from_mlps(small_mlps, split="test").save(place / "population")
    population = json.loads(metaedit("info", "population", "--json").stdout)
    assert (population["kind"], population["models"], population["splits"]) == ("population", 5, {"test": 5})
    assert population["architectures"] == 5


def test_population_and_train(place, shared_data):
    pytest.importorskip("torch")
    built = metaedit(
        "population", "--dataset", "bank", "--runs", 20, "--epochs", 1, "--out", "population", "--data-folder",
        shared_data, "--json",
    )  # fmt: skip
    assert built.exit_code == 0, built.output
    summary = json.loads(built.stdout)
    assert summary["models"] == len(mf.Population.load("population"))
    trained = metaedit(
        "train", "population", "--dataset", "bank", "--data-folder", shared_data, "--steps", 2, "--out", "new.onnx",
        "--json",
    )  # fmt: skip
    assert trained.exit_code == 0, trained.output
    assert json.loads(trained.stdout)["name"] == "bank-pruning"
    edited = metaedit("edit", "population", "--editor", "new.onnx", "--out", "out", "--sparsity", 0.5)
    assert edited.exit_code == 0, edited.output


EVALUATE = ("--editor", "editor.onnx", "--data", "rows.npz", "--probe-rows", 10, "--out", "found")


@pytest.fixture
def measured(place, small_mlps):
    """The same with a population of two runs, the second for testing."""
    pytest.importorskip("moocore")
    pytest.importorskip("matplotlib")
    records = [
        PopulationRecord(mlp, run=i // 3, split=("train", "test")[i // 3], checkpoint=i % 3)
        for i, mlp in enumerate(small_mlps)
    ]
    mf.Population(records).save("population")
    return place


def test_evaluate(measured, small_mlps):
    result = metaedit("evaluate", "population", *EVALUATE, "--budgets", "0.5,0.75", "--refine", 2, "--baselines")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert "2 models, 30 rows of rows.npz" in result.stdout
    assert "written to found" in result.stdout
    record = read_record("found/result.json")
    assert (record.models, record.rows, record.requirement) == (2, 30, "pruning")
    assert list(record.curves)[:3] == ["editor", "editor+refine", "snip"]
    assert {"magnitude", "fisher", "random"} < set(record.curves)
    assert [point.budget for point in record.curves["random"]] == [0.5, 0.75]
    sizes = [mlp.spec.n_weights for mlp in small_mlps[3:]]
    expected = np.mean([1 - kept_count(n, 0.75) / n for n in sizes])
    assert record.curves["editor"][1].requirement_mean == pytest.approx(expected)
    assert record.details["probe_rows"] == 10
    assert (measured / "found" / "table.md").read_text() == budget_table(record).markdown() + "\n"
    assert source_hash(record) in (measured / "found" / "front.svg").read_text()
    # What the table holds is what the methods do.
    chosen = mf.Population.load("population").select(split="test").mlps
    jsd = read_record("found/result.json").curves["magnitude"][0].jsd_mean
    rows = np.load("rows.npz")["X"]
    _, held_out, _ = split_rows(mf.Table(rows), 10, 0)
    assert jsd == pytest.approx(
        np.mean([mean_jsd(m, prune("magnitude", m, 0.5), held_out.X) for m in chosen]), rel=1e-5
    )


def test_evaluate_as_json_files_of_which_one_is_refused(measured, small_mlps):
    broken = small_mlps[0].replace(np.full_like(small_mlps[0].theta, np.nan))
    mf.write_model(broken, "models/zz.onnx")
    result = metaedit("evaluate", "models/*.onnx", *EVALUATE, "--json")
    assert result.exit_code == 1, result.output
    printed = json.loads(result.stdout)
    assert printed["out"] == "found"
    assert printed["models"] == 3
    assert list(printed["refused"]) == ["zz"]
    assert [point["budget"] for point in printed["curves"]["editor"]] == [0.5, 0.8, 0.9, 0.95, 0.98]
    assert "refused: zz: parameters: expected finite values" in result.stderr


def test_evaluate_overwrites_only_what_it_is_told_to(measured):
    command = ("evaluate", "population", *EVALUATE, "--budgets", "0.5", "--split", "all")
    assert metaedit(*command).exit_code == 0
    assert "--overwrite replaces it" in error_of(*command)
    assert metaedit(*command, "--overwrite").exit_code == 0
    (measured / "found" / "result.json").write_text("{}")
    assert "is no evaluation and is not replaced" in error_of(*command, "--overwrite")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("population", "--split", "new"), "--split: expected one of"),
        (("population", "--split", "val"), "this population has no models of 'val'"),
        (("population", "--budgets", "half"), "--budgets: expected numbers with commas between them, got 'half'"),
        (("population", "--budgets", "0.5,2"), "sparsity: expected 0 <= sparsity < 1, got 2.0"),
        (("population", "--dataset", "adult"), "--dataset, --data: expected exactly one of them"),
        (("gone.onnx",), "there is no file 'gone.onnx'"),
    ],
)
def test_evaluate_errors_are_one_line_each(measured, arguments, message):
    assert message in error_of("evaluate", *arguments, *EVALUATE)


def test_evaluate_names_the_extra_that_is_missing(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "moocore", None)
    pytest.importorskip("matplotlib")
    assert "metaedit_fast[report]" in error_of("evaluate", "models/m0.onnx", *EVALUATE)


def test_help_tells_the_exit_codes():
    assert "Exit codes: 0" in " ".join(metaedit("--help").stdout.split())
    assert "Exit codes: 0" in " ".join(metaedit("edit", "--help").stdout.split())


def test_in_a_process_of_its_own(place):
    command = [sys.executable, "-W", "error", "-m", "metaedit_fast", "edit", "models/m0.onnx", *EDIT, "--json"]
    done = subprocess.run([*command, "--sparsity", "0.5"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout)["status_counts"]["edited"] == 1
    failed = subprocess.run([*command, "--sparsity", "2"], capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert failed.stdout == ""
    assert "Traceback" not in failed.stderr
    assert failed.stderr.startswith("error: ")
