"""``edit``: every kind of model comes back edited, inputs stay as they are, bad models are refused alone."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

import metaedit_fast as mf
from metaedit_fast.editing import pipeline
from metaedit_fast.editing.plan import split_rows
from metaedit_fast.models.onnx import mlp_to_onnx
from metaedit_fast.requirements.masks import kept_count

SPARSITY = {"sparsity": 0.75}


def torch_module(n_inputs=5):
    torch = pytest.importorskip("torch")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        nn = torch.nn
        return nn.Sequential(
            nn.Linear(n_inputs, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 2)
        ).eval()


def sklearn_model(n_inputs=5):
    neural_network = pytest.importorskip("sklearn.neural_network")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, n_inputs))
    model = neural_network.MLPClassifier((6,), max_iter=300, tol=1e-1, random_state=0)
    return model.fit(x, x[:, 0] > 0)


def file_of(folder, mlp, name="net.onnx"):
    path = folder / name
    mf.write_model(mlp, path)
    return path


def fingerprint(model):
    """A hash of everything that an edit could change in a model."""
    if isinstance(model, mf.MLP):
        parts = [model.content_hash().encode()]
    elif hasattr(model, "state_dict"):
        parts = [part for name, t in model.state_dict().items() for part in (name.encode(), t.numpy().tobytes())]
    elif hasattr(model, "coefs_"):
        parts = [a.tobytes() for a in [*model.coefs_, *model.intercepts_]]
    elif hasattr(model, "SerializeToString"):
        parts = [model.SerializeToString(deterministic=True)]
    else:
        parts = [model.read_bytes()]
    return hashlib.sha256(b"|".join(parts)).hexdigest()


@pytest.fixture
def one_of_each(tmp_path, small_mlps):
    return {
        "mlp": small_mlps[1],
        "torch": torch_module(),
        "sklearn": sklearn_model(),
        "onnx": mlp_to_onnx(small_mlps[0]),
        "file": file_of(tmp_path, small_mlps[2]),
    }


@pytest.mark.parametrize("kind", ["mlp", "torch", "sklearn", "onnx", "file"])
@pytest.mark.parametrize("sparsity", [0.0, 0.6])
def test_each_kind_comes_back_and_the_input_stays(one_of_each, tiny_editor, kind, sparsity):
    model = one_of_each[kind]
    before = fingerprint(model)
    result = mf.edit(model, tiny_editor, target={"sparsity": sparsity})
    assert fingerprint(model) == before
    assert len(result) == 1
    record = result[0]
    assert record.model is result.model is not model
    assert record.status == ("unchanged" if sparsity == 0 else "edited")
    assert record.reason is None
    assert type(result.model) is type(one_of_each["onnx"] if kind == "file" else model)
    was, now = mf.read_model(model), mf.read_model(result.model)
    if sparsity == 0:
        assert now.theta.tobytes() == was.theta.tobytes()
        assert kind == "file" or fingerprint(result.model) == before
    else:
        assert np.count_nonzero(now.theta[: now.spec.n_weights]) <= kept_count(now.spec.n_weights, sparsity)
        assert record.metrics["after"]["sparsity"] == pytest.approx(now.sparsity)
        assert not np.array_equal(now.theta, was.theta)


def test_the_container_does_not_matter(tmp_path, tiny_editor, small_mlps):
    torch = pytest.importorskip("torch")
    mlp = mf.MLP(mf.MLPSpec.simple((5, 8, 2)), small_mlps[0].theta)
    module = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    with torch.no_grad():
        for layer, linear in enumerate((module[0], module[2])):
            linear.weight.copy_(torch.from_numpy(mlp.parameter("weight", layer).T.copy()))
            linear.bias.copy_(torch.from_numpy(mlp.parameter("bias", layer).copy()))
    models = [mlp, mlp_to_onnx(mlp), file_of(tmp_path, mlp), module]
    edited = [mf.read_model(model).theta.tobytes() for model in mf.edit(models, tiny_editor, target=SPARSITY).models]
    assert edited[1:] == edited[:1] * 3


def test_unchanged_models_are_copies(tiny_editor, small_mlps):
    result = mf.edit(small_mlps[0], tiny_editor, strength=0)
    result.model.theta[:] = 0
    assert small_mlps[0].theta.any()


def test_negative_zeros_survive_strength_zero(tiny_editor, small_mlps):
    mlp = small_mlps[0].replace(small_mlps[0].theta.copy())
    mlp.theta[:4] = -0.0
    assert mf.edit(mlp, tiny_editor, strength=0.0).model.theta.tobytes() == mlp.theta.tobytes()


def test_strength_is_the_sparsity(tiny_editor, small_mlps):
    by_strength = mf.edit(small_mlps, tiny_editor, strength=0.75)
    by_target = mf.edit(small_mlps, tiny_editor, target=SPARSITY)
    for a, b in zip(by_strength.models, by_target.models, strict=True):
        assert a.theta.tobytes() == b.theta.tobytes()


def test_mixed_lists_keep_their_order(one_of_each, tiny_editor):
    models = list(one_of_each.values())
    result = mf.edit(models, tiny_editor, target=SPARSITY)
    assert [record.kind for record in result] == ["mlp", "torch", "sklearn", "onnx", "onnx"]
    assert [record.index for record in result] == list(range(5))
    assert result[4].name == "net"
    for model, edited in zip(models, result.models, strict=True):
        assert mf.read_model(edited).spec == mf.read_model(model).spec
    assert any("batch norm" in note for note in result[1].notes)


def test_iterators_tuples_and_the_empty_list(tiny_editor, small_mlps):
    assert len(mf.edit(iter(small_mlps), tiny_editor, target=SPARSITY)) == 5
    assert len(mf.edit(tuple(small_mlps[:2]), tiny_editor, target=SPARSITY)) == 2
    empty = mf.edit([], tiny_editor, target=SPARSITY)
    assert len(empty) == 0
    assert "0 models" in empty.report()


def test_a_bad_model_is_refused_alone(tmp_path, tiny_editor, small_mlps):
    torch = pytest.importorskip("torch")
    broken = small_mlps[0].replace(small_mlps[0].theta.copy())
    broken.theta[3] = math.nan
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(b"\xff" * 100)
    bad = {
        "NaN or infinite": broken,
        "expected 5": mf.MLP(mf.MLPSpec.simple((7, 3, 2)), np.ones(32)),
        "ONNX": garbage,
        "missing.onnx": tmp_path / "missing.onnx",
        "a pickle": tmp_path / "model.pt",
        "Conv1d": torch.nn.Sequential(torch.nn.Conv1d(5, 2, 1)),
        "builtins.int": 7,
    }
    models = [small_mlps[0], *bad.values(), small_mlps[1]]
    result = mf.edit(models, tiny_editor, target=SPARSITY)
    assert result.status_counts == {"edited": 2, "unchanged": 0, "refused": len(bad)}
    assert result[0].status == result[-1].status == "edited"
    for record, (words, model) in zip(result[1:-1], bad.items(), strict=True):
        assert record.status == "refused"
        assert record.model is model
        assert words in record.reason
        assert record.metrics == {}
        assert isinstance(record.error, Exception)
        assert record.reason in result.report()


def test_strength_zero_refuses_bad_models_too(tiny_editor, small_mlps):
    broken = small_mlps[0].replace(np.full(small_mlps[0].spec.n_parameters, np.inf))
    assert mf.edit(broken, tiny_editor, strength=0)[0].status == "refused"


@pytest.mark.parametrize("num_threads", [1, 3])
def test_raise_names_the_first_bad_model(tiny_editor, small_mlps, num_threads):
    models = [*small_mlps[:2], 7, "no.onnx", *small_mlps[2:]]
    with pytest.raises(mf.UnsupportedModelError, match=r"models\[2\].*builtins\.int"):
        mf.edit(models, tiny_editor, target=SPARSITY, on_error="raise", num_threads=num_threads)


def test_an_unexpected_error_is_a_refusal_that_says_so(monkeypatch, tiny_editor, small_mlps):
    def fails(*args, **kwargs):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(pipeline, "edit_models", fails)
    record = mf.edit(small_mlps[0], tiny_editor, target=SPARSITY)[0]
    assert record.reason == "unexpected RuntimeError: out of luck"
    assert record.model is small_mlps[0]


def test_an_edit_that_is_not_finite_is_refused(monkeypatch, tiny_editor, small_mlps):
    edit_models = pipeline.edit_models

    def spoiled(*args, **kwargs):
        found = edit_models(*args, **kwargs)
        found.thetas[1][:3] = np.nan
        return found

    monkeypatch.setattr(pipeline, "edit_models", spoiled)
    result = mf.edit(small_mlps, tiny_editor, target=SPARSITY)
    assert [record.status for record in result] == ["edited", "refused", "edited", "edited", "edited"]
    assert result[1].model is small_mlps[1]
    assert "the edit gave parameters that are not finite" in result[1].reason


def test_no_result_depends_on_the_chunks(monkeypatch, tiny_probe_editor, small_mlps):
    x = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    models = [small_mlps[0], "missing.onnx", *small_mlps[1:]]
    options = {"target": SPARSITY, "data": mf.Table(x, np.arange(40) % 2), "refine": 3, "probe_rows": 10}
    together = mf.edit(models, tiny_probe_editor, num_threads=1, **options)
    monkeypatch.setattr(pipeline, "_CHUNK_PARAMETERS", 100)
    apart = mf.edit(models, tiny_probe_editor, num_threads=1, **options)
    assert together.status_counts == apart.status_counts == {"edited": 5, "unchanged": 0, "refused": 1}
    for a, b in zip(together, apart, strict=True):
        assert (a.status, a.metrics, a.notes) == (b.status, b.metrics, b.notes)
        assert a.status == "refused" or a.model.theta.tobytes() == b.model.theta.tobytes()


def test_times_are_those_of_each_model(tiny_editor, small_mlps):
    large = mf.MLP(spec := mf.MLPSpec.simple((5, 256, 256, 2)), np.ones(spec.n_parameters))
    result = mf.edit([small_mlps[0], large], tiny_editor, target=SPARSITY, num_threads=1)
    assert 0 < result[0].ms < result[1].ms


def test_metrics_with_and_without_labels(tiny_editor, small_mlps):
    x = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
    y = small_mlps[0].predict(x)
    bare = mf.edit(small_mlps[0], tiny_editor, target=SPARSITY)
    assert set(bare[0].metrics["after"]) == {"sparsity"}
    rows = mf.edit(small_mlps[0], tiny_editor, target=SPARSITY, data=x)
    assert set(rows[0].metrics["after"]) == {"sparsity", "jsd"}
    assert rows[0].metrics["before"] == {"sparsity": 0.0, "jsd": 0.0}
    labelled = mf.edit(small_mlps[0], tiny_editor, target=SPARSITY, data=mf.Table(x, y))
    assert labelled[0].metrics["before"]["accuracy"] == 1.0
    edited = labelled.model
    assert labelled[0].metrics["after"]["accuracy"] == pytest.approx(np.mean(edited.predict(x) == y))
    assert 0 < labelled[0].metrics["after"]["jsd"] < math.log(2)
    assert labelled.settings["metric_rows"] == 50
    assert labelled.settings["metric_rows_held_out"] is True
    assert labelled[0].ms > 0


def test_refinement_helps_and_keeps_the_sparsity(tiny_editor, small_mlps):
    x = np.random.default_rng(0).normal(size=(400, 5)).astype(np.float32)
    plain = mf.edit(small_mlps, tiny_editor, strength=0.5, data=x, probe_rows=100)
    better = mf.edit(small_mlps, tiny_editor, strength=0.5, data=x, refine=20, probe_rows=100)
    assert better.settings["probe_rows"] == 100
    assert better.settings["metric_rows"] == 300
    for a, b in zip(plain, better, strict=True):
        assert b.metrics["after"]["sparsity"] >= a.metrics["after"]["sparsity"]
        assert b.metrics["after"]["jsd"] < a.metrics["after"]["jsd"]


@pytest.mark.parametrize("scale", [1e6, 1e10, 1e30])
def test_saturated_models_do_no_harm(tiny_editor, tiny_probe_editor, small_mlps, scale):
    x = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    for editor in (tiny_editor, tiny_probe_editor):
        for mlp in small_mlps:
            huge = mlp.replace(mlp.theta * np.float32(scale))
            record = mf.edit(huge, editor, target=SPARSITY, data=x, refine=3, probe_rows=10)[0]
            assert record.status == "edited" or "so large" in record.reason or "not finite" in record.reason


def test_the_probe_reaches_editors_that_need_one(tiny_probe_editor, small_mlps):
    x = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    result = mf.edit(small_mlps, tiny_probe_editor, target=SPARSITY, data=x, probe_rows=10)
    assert result.status_counts["edited"] == 5
    assert result.settings["probe_rows"] == 10
    other = mf.edit(small_mlps, tiny_probe_editor, target=SPARSITY, data=x, probe_rows=10, seed=1)
    assert any(not np.array_equal(a.theta, b.theta) for a, b in zip(result.models, other.models, strict=True))


def test_an_editors_own_rows_serve_without_data(tiny_probe_editor, small_mlps):
    rows = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    carrying = mf.Editor(tiny_probe_editor.info, tiny_probe_editor.weights, rows)
    alone = mf.edit(small_mlps, carrying, target=SPARSITY, refine=3)
    given = mf.edit(small_mlps, tiny_probe_editor, target=SPARSITY, refine=3, data=rows)
    assert [m.theta.tobytes() for m in alone.models] == [m.theta.tobytes() for m in given.models]
    assert (alone.settings["probe_from"], given.settings["probe_from"]) == ("editor", "data")
    assert alone.settings["probe_rows"] == 12
    # What was measured on these rows is told, and that refinement saw them too.
    assert alone[0].metrics["after"]["jsd"] > 0
    assert alone.settings["metric_rows_held_out"] is False
    other = mf.edit(small_mlps, carrying, target=SPARSITY, data=rows + 1)
    assert other.settings["probe_from"] == "data"


def test_metric_rows_are_held_out_where_there_are_enough():
    table = mf.Table(np.arange(30.0).reshape(10, 3), np.arange(10))
    probe, measured, held_out = split_rows(table, 5, seed=0)
    assert held_out
    assert sorted([*probe.X[:, 0], *measured.X[:, 0]]) == list(table.X[:, 0])
    assert (measured.X[:, 0] == 3 * measured.y).all()
    probe, measured, held_out = split_rows(table, 6, seed=0)
    assert (len(probe), measured is table, held_out) == (6, True, False)
    assert len(split_rows(table, 99, seed=0)[0]) == 10


def test_a_population_comes_back_as_one(tiny_editor, small_mlps):
    broken = small_mlps[0].replace(np.full(small_mlps[0].spec.n_parameters, np.nan))
    population = mf.Population.from_mlps([*small_mlps, broken], dataset="abc")
    hash_before = population.content_hash()
    result = mf.edit(population, tiny_editor, target=SPARSITY)
    assert population.content_hash() == hash_before
    edited = result.population
    assert len(edited) == 6
    assert edited.dataset == "abc"
    assert edited[5].mlp is broken
    assert [record.run for record in edited] == list(range(6))
    assert edited[0].mlp.sparsity >= 0.7
    assert result[1].name == "run-00001-0"
    with pytest.raises(ValueError, match="list of models"):
        _ = mf.edit(small_mlps, tiny_editor, target=SPARSITY).population


def test_progress_goes_to_stderr(capsys, tiny_editor, small_mlps):
    mf.edit(small_mlps, tiny_editor, strength=0.5, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "5/5" in err


def test_the_editors_own_rows_bypass_a_models_normalisation(tiny_probe_editor, small_mlps):
    """They are standardised already: a second time would edit and measure on rows that no model ever sees."""
    rows = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    carrying = mf.Editor(tiny_probe_editor.info, tiny_probe_editor.weights, rows)
    bare = small_mlps[1]
    scaled = mf.MLP(bare.spec, bare.theta, np.full(5, 0.01), np.full(5, -3.0))
    plain = mf.edit(bare, carrying, target=SPARSITY, refine=3)[0]
    own = mf.edit(scaled, carrying, target=SPARSITY, refine=3)[0]
    assert own.model.theta.tobytes() == plain.model.theta.tobytes()
    assert own.metrics == plain.metrics
    assert own.model.input_scale is not None
    assert any("behind the normalisation" in note for note in own.notes)
    np.testing.assert_array_equal(carrying.edit_theta(scaled, 0.5), carrying.edit_theta(bare, 0.5))
    # Rows that the user gives are what the model takes.
    raw = (rows + 3.0) / 0.01
    given = mf.edit(scaled, carrying, target=SPARSITY, data=raw, probe_rows=40)[0]
    same = mf.edit(bare, carrying, target=SPARSITY, data=scaled.normalised(raw), probe_rows=40)[0]
    np.testing.assert_allclose(given.model.theta, same.model.theta, rtol=1e-4, atol=1e-5)
