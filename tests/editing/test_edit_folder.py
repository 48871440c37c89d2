"""``edit_into``: the folder that ``edit(...).save(...)`` writes, with few models in memory."""

from __future__ import annotations

import json
import weakref
from pathlib import Path

import numpy as np
import pytest

import metaedit_fast as mf
from metaedit_fast.editing import edit_folder, pipeline
from metaedit_fast.editing.edit_folder import edit_into
from metaedit_fast.population import store
from metaedit_fast.population.store import PopulationWriter, StoredPopulation

SPARSITY = {"sparsity": 0.75}


def contents(folder: Path) -> dict[str, object]:
    """Every file; of the report, all but times."""
    found: dict[str, object] = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}
    report = json.loads(found["result.json"])
    for record in report["records"]:
        del record["ms"]
    return {**found, "result.json": report}


@pytest.fixture
def files(tmp_path, small_mlps):
    for i, mlp in enumerate(small_mlps):
        mf.write_model(mlp, tmp_path / f"m{i}.onnx")
    (tmp_path / "other").mkdir()
    mf.write_model(small_mlps[0], tmp_path / "other" / "M1.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"\xff\xff")
    return [*sorted(tmp_path.glob("*.onnx")), tmp_path / "other" / "M1.onnx"]


def test_files(tmp_path, monkeypatch, tiny_editor, files):
    monkeypatch.setattr(pipeline, "_CHUNK_PARAMETERS", 100)
    data = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    options = {"target": SPARSITY, "data": data, "refine": 2, "probe_rows": 10}
    whole = mf.edit(files, tiny_editor, **options)
    whole.save(tmp_path / "whole")
    result = edit_into(tmp_path / "streamed", files, tiny_editor, **options)
    assert contents(tmp_path / "streamed") == contents(tmp_path / "whole")
    assert (tmp_path / "streamed" / "M1-2.onnx").exists()
    assert result.status_counts == whole.status_counts == {"edited": 6, "unchanged": 0, "refused": 1}
    assert [record.model for record in result] == [None] * 7
    without_times = [[line.split()[:-1] for line in r.report().splitlines()[1:8]] for r in (result, whole)]
    assert without_times[0] == without_times[1]


def test_a_population(tmp_path, monkeypatch, tiny_editor, small_mlps):
    broken = small_mlps[0].replace(np.full_like(small_mlps[0].theta, np.nan))
    population = mf.Population.from_mlps([*small_mlps, broken], dataset="abc", split="test")
    population.save(tmp_path / "population", rows_per_shard=2)
    mf.edit(population, tiny_editor, target=SPARSITY).save(tmp_path / "whole")
    edit_into(tmp_path / "streamed", StoredPopulation(tmp_path / "population"), tiny_editor, target=SPARSITY)
    assert contents(tmp_path / "streamed") == contents(tmp_path / "whole")
    edited = mf.Population.load(tmp_path / "streamed" / "population")
    assert (edited.dataset, edited[0].split, edited[4].run) == ("abc", "test", 4)
    assert np.isnan(edited[5].mlp.theta).all()


def test_it_lets_go_of_what_is_written(tmp_path, monkeypatch, tiny_editor, small_mlps):
    """As many models and shards as are in use at a time, of many more."""
    monkeypatch.setattr(pipeline, "_CHUNK_PARAMETERS", 4 * small_mlps[0].spec.n_parameters)
    monkeypatch.setattr(store.PopulationWriter.__init__, "__kwdefaults__", {"rows_per_shard": 5})
    mf.Population.from_mlps([small_mlps[0]] * 100).save(tmp_path / "population", rows_per_shard=5)
    alive, most = 0, 0
    replace = mf.MLP.replace

    def gone():
        nonlocal alive
        alive -= 1

    def counted(mlp, theta):
        nonlocal alive, most
        found = replace(mlp, theta)
        weakref.finalize(found.theta, gone)
        alive += 1
        most = max(most, alive)
        return found

    monkeypatch.setattr(mf.MLP, "replace", counted)
    result = edit_into(
        tmp_path / "out", StoredPopulation(tmp_path / "population"), tiny_editor, target=SPARSITY, num_threads=1
    )
    assert result.status_counts["edited"] == 100, result[0].reason
    assert 8 <= most <= 40
    assert len(list((tmp_path / "out" / "population").glob("*.parquet"))) == 20


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch, tiny_editor, files):
    def fails(record):
        raise OSError("no space left")

    monkeypatch.setattr(edit_folder, "_without_model", fails)
    with pytest.raises(OSError, match="no space left"):
        edit_into(tmp_path / "new" / "out", files, tiny_editor, target=SPARSITY)
    assert list((tmp_path / "new").iterdir()) == []


def test_the_folder_is_looked_at_before_the_work(tmp_path, tiny_editor, files):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(FileExistsError, match="expected a new or empty folder"):
        edit_into(tmp_path / "mine", [object()], tiny_editor, target=SPARSITY)


def test_the_progress_of_a_population_has_no_total(tmp_path, capsys, tiny_editor, small_mlps):
    mf.Population.from_mlps(small_mlps).save(tmp_path / "population")
    stored = StoredPopulation(tmp_path / "population")
    edit_into(tmp_path / "out", stored, tiny_editor, target=SPARSITY, progress=True)
    assert "5/?" in capsys.readouterr().err


def test_a_writer_refuses_a_folder_that_holds_something(tmp_path, small_mlps):
    (tmp_path / "something").touch()
    with pytest.raises(FileExistsError, match="expected a new or empty folder"):
        PopulationWriter(tmp_path, dataset="")
    writer = PopulationWriter(tmp_path / "new", dataset="", rows_per_shard=2)
    for record in mf.Population.from_mlps(small_mlps[:4]):
        writer.add(record)
    with pytest.raises(FileNotFoundError, match="no population here"):
        mf.Population.load(tmp_path / "new")
    writer.close({"by": "hand"})
    assert len(list((tmp_path / "new").glob("*.parquet"))) == 2
    assert mf.Population.load(tmp_path / "new").info == {"by": "hand"}
