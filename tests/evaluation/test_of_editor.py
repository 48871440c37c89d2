"""An editor for each requirement on models and rows of one's own."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import metaedit_fast as mf
from metaedit_fast.cli import app
from metaedit_fast.editing.editor import Editor, EditorInfo, Envelope
from metaedit_fast.evaluation.baselines.fairness import POST_PROCESSORS
from metaedit_fast.evaluation.baselines.pruning import METHODS
from metaedit_fast.evaluation.of_editor import Subject, baselines_for, default_budgets, evaluate_editor
from metaedit_fast.export.weights import weight_shapes
from metaedit_fast.metanet.config import MetanetConfig
from metaedit_fast.models.evaluation import evaluate
from metaedit_fast.models.inputs import used_inputs
from metaedit_fast.models.spec import ACTIVATIONS, NORMS
from metaedit_fast.requirements import get_requirement
from metaedit_fast.requirements.odds import equalized_odds_difference

pytest.importorskip("moocore")


def editor_for(requirement: str, budgets: tuple[float, float]) -> Editor:
    """An editor with random weights."""
    config = MetanetConfig(
        5, d_e=4, d_v=8, n_layers=2, head_hidden=8, probe=True, context=get_requirement(requirement).context
    )
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in weight_shapes(config)}
    envelope = Envelope(depth=(0, 3), width=(1, 16), activations=ACTIVATIONS, norms=NORMS, max_skips=2)
    return Editor(EditorInfo("mine", config, envelope, requirement=requirement, budget_range=budgets), weights)


@pytest.fixture
def subject(small_mlps, rows):
    x, y, groups = rows
    table = mf.Table(x, y, sensitive=np.array(["a", "b", "c"])[groups])
    names = [f"m{i}" for i in range(5)]
    return Subject(small_mlps, names, [0, 0, 1, 1, 2], table.take(np.arange(80)), table.take(np.arange(80, 200)))


def evaluated(editor, subject, **options):
    return evaluate_editor(editor, subject, name="e", dataset="d", command="c", **options)


def test_data_minimisation_is_asked_in_features(subject, small_mlps):
    editor = editor_for("data_minimisation", (0.02, 0.98))
    assert default_budgets(editor) == [1.0, 2.0, 3.0, 4.0]
    record, refused = evaluated(editor, subject, budgets=[2.0, 4.0, 5.0], refine=2)
    assert list(refused) == ["m2"]  # its skips carry the inputs on
    for curve in record.curves.values():
        assert [(p.budget, p.requirement_mean) for p in curve] == [(2.0, 2.0), (4.0, 4.0), (5.0, 5.0)]
    assert record.curves["editor"][2].jsd_mean == 0.0
    assert record.details["reference"]["worst"] == 5.0
    edited = editor.edit_theta(small_mlps[0], 1 - 2 / 5, probe=subject.probe)
    assert used_inputs(small_mlps[0].replace(edited)).sum() == 2
    with pytest.raises(ValueError, match="features: expected how many to keep, an integer from 1 to 5, got 2.5"):
        evaluated(editor, subject, budgets=[2.5])


def test_equalised_odds_are_measured_by_group(subject, small_mlps):
    editor = editor_for("equalized_odds", (0.01, 4.0))
    assert default_budgets(editor) == [0.01, 0.03, 0.1, 0.3, 1.0, 3.0]
    record, _ = evaluated(editor, subject, budgets=[0.1, 3.0])
    measured = subject.measured
    groups = np.unique(measured.sensitive, return_inverse=True)[1]
    for point in record.curves["editor"]:
        edited = [m.replace(editor.edit_theta(m, point.budget, probe=subject.probe)) for m in small_mlps]
        expected = equalized_odds_difference(evaluate(edited, measured.X, measured.y, groups).counts)
        assert point.requirement_mean == pytest.approx(expected.mean())
    unlabelled = mf.Table(measured.X, sensitive=measured.sensitive)
    for broken, message in ((unlabelled, "labels"), (mf.Table(measured.X, measured.y), "groups")):
        with pytest.raises(ValueError, match=message):
            evaluated(editor, Subject(small_mlps, "abcde", range(5), subject.probe, broken))
    refined = evaluated(editor, subject, budgets=[3.0], refine=3)[0].curves
    expected = mf.edit(small_mlps, editor, strength=3.0, data=subject.probe, probe_rows=len(subject.probe), refine=3)
    measured_jsd = evaluate(list(expected.models), measured.X, originals=small_mlps).jsd
    assert refined["editor+refine"][0].jsd_mean == pytest.approx(measured_jsd.mean())
    assert refined["editor+refine"][0].jsd_mean != refined["editor"][0].jsd_mean


def test_a_default_grid_lies_where_the_editor_was_trained():
    assert default_budgets(editor_for("pruning", (0.6, 0.92))) == [0.8, 0.9]
    assert default_budgets(editor_for("pruning", (0.1, 0.3))) == pytest.approx([0.15, 0.2, 0.25])


def test_an_editor_that_refuses_all_models_says_why(subject, small_mlps):
    broken = [mlp.replace(np.full_like(mlp.theta, np.nan)) for mlp in small_mlps[:2]]
    subject = Subject(broken, ["a", "b"], [0, 1], subject.probe, subject.measured)
    with pytest.raises(ValueError, match="got 2 refused; a: parameters: expected finite values"):
        evaluated(editor_for("pruning", (0.0, 0.9)), subject)


def test_the_command_knows_groups(subject, small_mlps, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    mf.Population.from_mlps(small_mlps[:3], split="test").save("population")
    editor_for("equalized_odds", (0.01, 4.0)).save("editor.onnx")
    table = subject.measured
    np.savez("rows.npz", X=table.X, y=table.y, sensitive=table.sensitive)
    command = "evaluate population --editor editor.onnx --data rows.npz --probe-rows 50 --budgets 0.1,1 --out found"
    result = CliRunner().invoke(app, [*command.split(), "--json"])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert [point["budget"] for point in printed["curves"]["editor"]] == [0.1, 1.0]
    assert printed["reference"] == {"best": 0.0, "worst": 0.2, "jsd": 0.1}
    table_text = (tmp_path / "found" / "table.md").read_text()
    assert table_text.startswith("| method | equalised-odds difference | JSD × 1000 | accuracy | flips |")
    assert "| editor at 0.1 |" in table_text


def test_baselines_are_those_of_the_requirement(subject):
    ranked = baselines_for("pruning", subject, [0.5], seed=0)
    assert {name: budgets for name, (_, budgets) in ranked.items()} == {name: [0.5] for name in METHODS}
    ranked = baselines_for("data_minimisation", subject, [2.0], seed=0)
    assert set(ranked) == {"permutation", "permutation+refine", "greedy", "greedy+refine", "random"}
    kept = ranked["greedy+refine"][0](subject.models[:2], 2.0)
    assert [used_inputs(mlp).sum() for mlp in kept] == [2, 2]
    fair = baselines_for("equalized_odds", subject, [0.5], seed=0)
    assert {name: budgets for name, (_, budgets) in fair.items()} == {n: p.budgets for n, p in POST_PROCESSORS.items()}
    hard = fair["hard_labels"][0](subject.models, 0.0)
    for mlp, given in zip(subject.models, hard, strict=True):
        np.testing.assert_array_equal(given.decisions.argmax(axis=1), mlp.predict(subject.measured.X))
    with pytest.raises(ValueError, match="baselines: expected a requirement that has some, got 'speed'"):
        baselines_for("speed", subject, [0.5], seed=0)
