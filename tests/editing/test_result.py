"""``EditResult``: what it tells, and the folder it saves."""

from __future__ import annotations

import json

import numpy as np
import pytest

import metaedit_fast as mf
from metaedit_fast.editing import saving
from metaedit_fast.models.onnx import mlp_to_onnx

SPARSITY = {"sparsity": 0.75}


@pytest.fixture
def rows(small_mlps):
    x = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    return mf.Table(x, small_mlps[0].predict(x))


@pytest.fixture
def result(tiny_editor, small_mlps, rows):
    return mf.edit([*small_mlps, "gone.onnx"], tiny_editor, target=SPARSITY, data=rows)


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_it_is_a_sequence(result):
    assert len(result) == 6
    assert [record.index for record in result] == list(range(6))
    assert result[-1].name == "gone"
    assert [record.index for record in result[1:3]] == [1, 2]
    assert result.models[5] == "gone.onnx"
    assert result.status_counts == {"edited": 5, "unchanged": 0, "refused": 1}
    assert repr(result) == "EditResult(5 edited, 1 refused)"
    with pytest.raises(ValueError, match="this result has 6 models"):
        _ = result.model


def test_report(result):
    lines = result.report().splitlines()
    assert lines[0].split()[:3] == ["model", "status", "weights"]
    assert lines[1].split()[:3] == ["model-00000", "edited", "56"]
    assert "0.000 -> 0.750" in lines[1]
    assert lines[6].split()[:3] == ["gone", "refused", "-"]
    assert "6 models: 5 edited, 0 unchanged, 1 refused" in lines
    assert any(line.startswith("mean JSD x 1000: ") for line in lines)
    assert lines[-1].startswith("refused: gone: ")
    assert "\x1b" not in result.report()
    short = result.report(max_rows=2).splitlines()
    assert short[3] == "... and 4 more"


@pytest.mark.parametrize(
    ("probe", "embedded", "labelled", "options", "line"),
    [
        (False, False, False, {}, None),
        (True, True, False, {}, "JSD on the editor's own 30 rows, which the editor also saw"),
        (True, True, False, {"refine": 1}, "JSD on the editor's own 30 rows, which the editor and refinement also saw"),
        (False, True, False, {"refine": 1}, "JSD on the editor's own 30 rows, which refinement also saw"),
        (False, True, False, {}, "JSD on the editor's own 30 rows"),
        (True, True, False, {"strength": 0, "refine": 1}, "JSD on the editor's own 30 rows"),
        (False, False, True, {}, "JSD and accuracy on 30 rows"),
        (
            False,
            False,
            True,
            {"refine": 1, "probe_rows": 10},
            "JSD and accuracy on 20 rows that refinement did not see",
        ),
        (True, False, True, {"probe_rows": 10}, "JSD and accuracy on 20 rows that the editor did not see"),
        (True, False, True, {"probe_rows": 20}, "JSD and accuracy on 30 rows, 20 of which the editor also saw"),
        (True, False, True, {}, "JSD and accuracy on 30 rows, which the editor also saw"),
    ],
)
def test_report_tells_the_rows(
    tiny_editor, tiny_probe_editor, small_mlps, rows, probe, embedded, labelled, options, line
):
    editor = tiny_probe_editor if probe else tiny_editor
    if embedded:
        editor = mf.Editor(editor.info, editor.weights, rows.X)
    options = {"strength": 0.75, "data": rows if labelled else None, **options}
    said = mf.edit(small_mlps[:2], editor, **options).report().splitlines()
    assert [text for text in said if text.startswith("JSD")] == ([line] if line else [])


def test_a_folder_inside_a_population_is_refused(tmp_path, result, small_mlps):
    mf.Population.from_mlps(small_mlps).save(tmp_path / "population")
    with pytest.raises(FileExistsError, match="outside of the population"):
        result.save(tmp_path / "population" / "out")
    assert len(mf.Population.load(tmp_path / "population")) == 5


def test_to_dict_is_json(result, tiny_editor):
    data = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert data["settings"]["budget"] == 0.75
    assert data["settings"]["seed"] == 0
    assert data["settings"]["requirement"] == "pruning"
    assert data["versions"] == result.versions
    assert result.versions["numpy"] == np.__version__
    assert data["editor"] == json.loads(json.dumps(tiny_editor.describe()))
    assert set(data["records"][0]["metrics"]) == {"before", "after"}
    assert data["records"][5]["reason"]


def test_save_and_read_again(tmp_path, result):
    folder = tmp_path / "a" / "out"
    assert result.save(folder) == folder
    data = json.loads((folder / "result.json").read_text())
    assert [record["file"] for record in data["records"]] == [*(f"model-{i:05d}.onnx" for i in range(5)), None]
    assert sorted(data["files"]) == sorted(contents(folder))
    for record, file in zip(result[:5], data["records"], strict=False):
        assert mf.read_model(folder / file["file"]).theta.tobytes() == record.model.theta.tobytes()
    assert [p.name for p in folder.parent.iterdir()] == ["out"]
    assert data["status_counts"] == result.status_counts


def test_each_kind_is_saved_as_onnx(tmp_path, tiny_editor, small_mlps):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    proto = mlp_to_onnx(small_mlps[1])
    proto.producer_name = "somebody else"
    mf.write_model(small_mlps[2], tmp_path / "net.onnx")
    result = mf.edit([module, proto, tmp_path / "net.onnx"], tiny_editor, target=SPARSITY)
    result.save(tmp_path / "out")
    names = ["model-00000.onnx", "model-00001.onnx", "net.onnx"]
    for record, name in zip(result, names, strict=True):
        saved, edited = mf.read_model(tmp_path / "out" / name), mf.read_model(record.model)
        assert saved.theta.tobytes() == edited.theta.tobytes()
    assert (tmp_path / "out" / names[1]).read_bytes() == result[1].model.SerializeToString()


def test_alike_names_are_told_apart(tmp_path, tiny_editor, small_mlps):
    paths = [tmp_path / "a" / "net.onnx", tmp_path / "b" / "net.onnx", tmp_path / "b" / "NET.onnx"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        mf.write_model(small_mlps[0], path)
    mf.edit(paths, tiny_editor, target=SPARSITY).save(tmp_path / "out")
    assert set(contents(tmp_path / "out")) == {"net.onnx", "net-2.onnx", "NET-3.onnx", "result.json"}


def test_a_population_is_saved_as_one(tmp_path, tiny_editor, small_mlps):
    population = mf.Population.from_mlps(small_mlps, split="test", dataset="abc")
    result = mf.edit(population, tiny_editor, target=SPARSITY)
    result.save(tmp_path / "out")
    loaded = mf.Population.load(tmp_path / "out" / "population")
    assert loaded.content_hash() == result.population.content_hash()
    assert loaded.info["edit"]["settings"]["budget"] == 0.75
    assert json.loads((tmp_path / "out" / "result.json").read_text())["records"][0]["file"] == "population"
    again = mf.edit(loaded, tiny_editor, strength=0)
    again.save(tmp_path / "out", overwrite=True)


def test_an_empty_folder_is_taken(tmp_path, result):
    (tmp_path / "out").mkdir()
    result.save(tmp_path / "out")
    assert (tmp_path / "out" / "result.json").is_file()


def test_overwriting_needs_the_flag_and_a_former_result(tmp_path, result, tiny_editor, small_mlps):
    folder = tmp_path / "out"
    result.save(folder)
    before = contents(folder)
    with pytest.raises(FileExistsError, match="expected a new or empty folder"):
        result.save(folder)
    assert contents(folder) == before
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"files of no former result, such as 'notes\.txt'"):
        result.save(folder, overwrite=True)
    assert contents(folder) == {**before, "notes.txt": b"mine"}
    (folder / "notes.txt").unlink()
    mf.edit(small_mlps[:1], tiny_editor, strength=0).save(folder, overwrite=True)
    assert set(contents(folder)) == {"model-00000.onnx", "result.json"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("text", ["no json", "[]", '{"format": "other", "files": ["a.onnx"]}', '{"files": 3}'])
def test_a_folder_with_somebody_elses_files_is_not_replaced(tmp_path, result, text):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "result.json").write_text(text)
    (folder / "a.onnx").write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="files of no former result"):
        result.save(folder, overwrite=True)
    assert (folder / "a.onnx").read_bytes() == b"precious"


def test_a_file_in_the_way(tmp_path, result):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(FileExistsError, match="got a file"):
        result.save(tmp_path / "out", overwrite=True)


def test_overwriting_does_not_lose_a_refused_source(tmp_path, result, tiny_editor):
    folder = tmp_path / "out"
    result.save(folder)
    (folder / "model-00000.onnx").write_bytes(b"\xff\xff")
    again = mf.edit(sorted(folder.glob("*.onnx")), tiny_editor, target=SPARSITY)
    with pytest.raises(FileExistsError, match="it holds the refused"):
        again.save(folder, overwrite=True)


def test_a_failed_save_leaves_what_was_there(monkeypatch, tmp_path, result):
    folder = tmp_path / "out"
    result.save(folder)
    before = contents(folder)

    def fails(record):
        raise OSError("disk full")

    monkeypatch.setattr(saving, "_files", fails)
    for place in (folder, tmp_path / "new"):
        with pytest.raises(OSError, match="disk full"):
            result.save(place, overwrite=True)
    assert contents(folder) == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_failed_rename_puts_the_old_result_back(monkeypatch, tmp_path, result):
    folder = tmp_path / "out"
    result.save(folder)
    before = contents(folder)
    rename = saving.Path.rename

    def fails(self, target):
        if self.name == "new":
            raise OSError("busy")
        return rename(self, target)

    monkeypatch.setattr(saving.Path, "rename", fails)
    with pytest.raises(OSError, match="busy"):
        result.save(folder, overwrite=True)
    assert contents(folder) == before


def test_figures_that_are_not_finite_become_null(small_mlps, tiny_editor):
    from metaedit_fast.editing.result import EditRecord

    record = EditRecord(0, "a", None, "edited", metrics={"before": {}, "after": {"jsd": float("nan")}})
    assert record.to_dict()["metrics"]["after"] == {"jsd": None}
