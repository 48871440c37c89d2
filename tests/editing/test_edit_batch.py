"""``Editor.edit_batch``: what ``edit_theta`` gives for each model, to the bit, for many in one call."""

from __future__ import annotations

import numpy as np
import pytest

import metaedit_fast as mf
from metaedit_fast.editing import batch as batches
from metaedit_fast.graph import WeightGraphBatch
from metaedit_fast.requirements import Pruning

PROBE = np.random.default_rng(1).normal(size=(30, 5)).astype(np.float32)


@pytest.fixture(params=["weights", "probe", "own probe"])
def editor(request, tiny_editor, tiny_probe_editor):
    own = mf.Editor(tiny_probe_editor.info, tiny_probe_editor.weights, PROBE)
    return {"weights": tiny_editor, "probe": tiny_probe_editor, "own probe": own}[request.param]


def probe_for(editor):
    return PROBE if editor.needs_probe else None


@pytest.mark.parametrize("engine", ["native", "onnxruntime"])
@pytest.mark.parametrize("num_threads", [1, 3, None])
def test_each_is_what_it_is_alone(editor, small_mlps, engine, num_threads):
    editor = mf.Editor(editor.info, editor.weights, editor.probe, engine=engine)
    budgets = [0.5, 0.0, 0.9, 0.3, 0.75]
    found = editor.edit_batch(small_mlps, budgets, probe=probe_for(editor), num_threads=num_threads)
    assert found[1].tobytes() == small_mlps[1].theta.tobytes()
    for mlp, budget, theta in zip(small_mlps, budgets, found, strict=True):
        assert theta.tobytes() == editor.edit_theta(mlp, budget, probe=probe_for(editor)).tobytes()
        assert not np.shares_memory(theta, mlp.theta)


def test_a_built_batch_of_any_order_gives_the_same(editor, small_mlps):
    expected = editor.edit_batch(small_mlps, 0.6, probe=probe_for(editor))
    for order in ("model", "shape"):
        batch = WeightGraphBatch.from_mlps(small_mlps, order=order)
        before = batch.theta.copy()
        found = editor.edit_batch(batch, 0.6, probe=probe_for(editor))
        assert [a.tobytes() for a in found] == [b.tobytes() for b in expected]
        np.testing.assert_array_equal(batch.theta, before)
    mixed = editor.edit_batch(batch, [0.6, 0.0, 0.6, 0.6, 0.6], probe=probe_for(editor))
    assert [mixed[m].tobytes() for m in (0, 2)] == [expected[m].tobytes() for m in (0, 2)]
    assert mixed[1].tobytes() == small_mlps[1].theta.tobytes()


def test_empty_and_all_zero(editor, small_mlps):
    assert editor.edit_batch([], 0.5) == []
    assert editor.edit_batch(WeightGraphBatch.from_mlps([]), []) == []
    found = editor.edit_batch(small_mlps, 0)
    assert [theta.tobytes() for theta in found] == [mlp.theta.tobytes() for mlp in small_mlps]
    assert not any(np.shares_memory(theta, mlp.theta) for theta, mlp in zip(found, small_mlps, strict=True))


def test_the_probe_goes_through_each_models_normalisation(tiny_probe_editor, small_mlps):
    bare = small_mlps[1]
    scaled = mf.MLP(bare.spec, bare.theta, np.full(5, 2.0), np.full(5, -3.0))
    found = tiny_probe_editor.edit_batch([bare, scaled], 0.5, probe=PROBE)
    for mlp, theta in zip((bare, scaled), found, strict=True):
        assert theta.tobytes() == tiny_probe_editor.edit_theta(mlp, 0.5, probe=PROBE).tobytes()
    assert found[0].tobytes() != found[1].tobytes()
    raw = tiny_probe_editor.edit_batch(WeightGraphBatch.from_mlps([scaled]), 0.5, probe=scaled.normalised(PROBE))
    assert raw[0].tobytes() == found[1].tobytes()


def test_the_first_bad_model_is_named(tiny_editor, small_mlps):
    wrong = mf.MLP(mf.MLPSpec.simple((7, 3, 2)), np.ones(32))
    broken = small_mlps[0].replace(np.full_like(small_mlps[0].theta, np.nan))
    huge = small_mlps[0].replace(np.full_like(small_mlps[0].theta, 1e30))
    for bad, message in ((wrong, "expected 5"), (broken, "NaN or infinity"), (huge, "so large that float32")):
        for models in ([*small_mlps, bad, broken], WeightGraphBatch.from_mlps([*small_mlps, bad, broken])):
            with pytest.raises(mf.UnsupportedModelError, match=rf"models\[5\]: .*{message}"):
                tiny_editor.edit_batch(models, 0.5)
        # Nothing is asked of it, so nothing stands against it.
        assert len(tiny_editor.edit_batch([*small_mlps, bad], [0.5] * 5 + [0.0])) == 6
    found = batches.edit_models(tiny_editor, [wrong, small_mlps[2], huge, broken], 0.5)
    assert sorted(found.failures) == [0, 2, 3]
    assert found.thetas[1].tobytes() == tiny_editor.edit_theta(small_mlps[2], 0.5).tobytes()
    assert found.thetas[2].tobytes() == huge.theta.tobytes()
    assert found.seconds[1] > 0


@pytest.mark.parametrize(
    ("budget", "options", "message"),
    [
        (1.0, {}, "0 <= sparsity < 1"),
        ([0.5] * 4 + [-1], {}, "0 <= sparsity < 1"),
        ([0.5] * 4, {}, "budget: expected one for each of 5 models, got 4"),
        (0.5, {"num_threads": 0}, "num_threads"),
    ],
)
def test_arguments_that_make_no_sense(tiny_editor, small_mlps, budget, options, message):
    with pytest.raises(ValueError, match=message):
        tiny_editor.edit_batch(small_mlps, budget, **options)


def test_a_probe_that_is_missing_or_unfit(tiny_probe_editor, small_mlps):
    with pytest.raises(ValueError, match="probe: this editor reads activations"):
        tiny_probe_editor.edit_batch(small_mlps, 0.5)
    for probe in (np.ones((3, 4)), np.ones((0, 5)), np.full((3, 5), np.nan)):
        with pytest.raises(ValueError, match="probe: expected"):
            tiny_probe_editor.edit_batch(small_mlps, 0.5, probe=probe)


def test_a_requirement_may_mask_in_python(monkeypatch, tiny_editor, small_mlps):
    """Then the native edit gives scores and residuals, and ``Requirement.mask`` decides."""
    expected = tiny_editor.edit_batch(small_mlps, [0.5, 0.7, 0.9, 0.3, 0.6])
    asked = []
    mask = Pruning.mask
    monkeypatch.setattr(Pruning, "kept_weights", lambda self, n, budget: None)
    monkeypatch.setattr(Pruning, "mask", lambda self, w, s, b: asked.append(b) or mask(_Counting(), w, s, b))
    found = tiny_editor.edit_batch(small_mlps, [0.5, 0.7, 0.9, 0.3, 0.6])
    assert asked == [0.5, 0.7, 0.9, 0.3, 0.6]
    assert [a.tobytes() for a in found] == [b.tobytes() for b in expected]


class _Counting:
    """What ``Pruning.mask`` needs of ``self``."""

    def kept_weights(self, n_weights, budget):
        from metaedit_fast.requirements.masks import kept_count

        return kept_count(n_weights, budget)
