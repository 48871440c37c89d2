"""Pages and figures are those of the committed results; a page is changed between its markers alone."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from metaedit_fast.evaluation.figures import source_hash
from metaedit_fast.evaluation.record import Comparison, Point, Reading, Record
from metaedit_fast.evaluation.uncertainty import Estimate

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def report() -> ModuleType:
    spec = importlib.util.spec_from_file_location("report", ROOT / "experiments" / "report.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RECORD = Record(
    experiment="some_odds",
    dataset="adult",
    requirement="equalized_odds",
    unit="equalised-odds difference",
    seeds=(0, 1, 2),
    models=3,
    rows=40,
    curves={
        "editor": (Point(0.1, 0.08, 1e-3, 1e-4, 0.84, 1.0), Point(1.0, 0.02, 1e-2, 1e-3, 0.8, 1.0)),
        "thresholds": (Point(0.0, 0.01, 6e-2, 1e-3, 0.79, 50.0, flips_mean=0.05),),
    },
    hypervolume={"editor": Estimate(0.9, 0.01)},
    command="python some_odds.py",
    readings={"editor": (Reading(0.05, 3e-3, 1e-4, 0.82, 0.03),), "thresholds": ()},
    comparisons={"editor": Comparison("thresholds", 0.02, 0.001)},
    families={"editor and so on": ("editor",)},
    details={
        "accuracy_before": 0.85,
        "reference": {"best": 0.0, "worst": 0.2, "jsd": 0.1},
        "notes": ["Said so."],
        "editor": {"metrics": {"steps": 10, "seconds": 120.0, "threads": 1}},
    },
)


def test_pages_and_figures_are_those_of_the_committed_results(report):
    records = report.read_records()
    assert "adult_pruning" in records
    assert report.stale_files(records) == []


def test_a_section_shows_what_a_record_holds(report):
    page = report.rendered("# Results\n", {"some_odds": RECORD}, complete=True)
    assert page.startswith("# Results\n\n## Some odds\n\n<!-- result some_odds: ")
    for part in (
        "![some odds](figures/some_odds.svg)",
        "![some odds time](figures/some_odds_time.svg)",
        "| editor | 3.00 ± 0.10, 82.0 %, 3.0 % | 0.900 ± 0.010 | 1.0 |",
        "| thresholds | 0.010 | 60.00 ± 1.00 | 79.0 % | 5.0 % | – | 50.0 |",
        "| editor | thresholds | +0.0200 ± 0.0010 |",
        "Accuracy before the edit 85.0 %.",
        "seeds 0, 1, 2",
        "the box from 0 to 0.2 (equalised-odds difference) and from JSD 0 to 0.1",
        "The editor's training took 10 steps, 2 minutes on 1 thread. Said so. Made by `python some_odds.py`.",
    ):
        assert part in page
    assert report.rendered(page, {"some_odds": RECORD}, complete=True) == page


def test_only_what_stands_between_markers_changes(report):
    before = "a\n<!-- table some_odds: x -->\noutdated\n<!-- /table some_odds -->\nb\n"
    after = report.rendered(before, {"some_odds": RECORD}, complete=False)
    assert after.startswith("a\n<!-- table some_odds: ")
    assert after.endswith("<!-- /table some_odds -->\nb\n")
    assert "outdated" not in after
    assert "![" not in after
    with pytest.raises(ValueError, match="the page has a table of 'some_odds', which experiments/results has not"):
        report.rendered(before, {}, complete=False)


def test_an_account_is_of_the_results_that_there_are(report):
    page = "<!-- account costs: x -->\n<!-- /account costs -->\n"
    after = report.rendered(page, report.read_records(), complete=False)
    assert "| adult, pruning: editor |" in after
    assert "by `python experiments/amortisation.py`" in after
    assert "| adult" not in report.rendered(page, {}, complete=False)


def test_figures_are_stale_when_their_record_changes(report, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    for name, place in (("ROOT", tmp_path), ("FIGURES", tmp_path), ("PAGES", ())):
        monkeypatch.setattr(report, name, place)
    assert report.stale_files({"some_odds": RECORD}) == ["some_odds.svg", "some_odds_time.svg"]
    report.draw(RECORD)
    assert report.stale_files({"some_odds": RECORD}) == []
    assert source_hash(RECORD) in (tmp_path / "some_odds_time.svg").read_text()
    changed = dataclasses.replace(RECORD, models=4)
    assert report.stale_files({"some_odds": changed}) == ["some_odds.svg", "some_odds_time.svg"]


def test_a_file_has_the_name_of_its_experiment(report, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    (tmp_path / "other.json").write_text(RECORD.to_json())
    with pytest.raises(ValueError, match=r"other.json: expected the experiment of that name, got 'some_odds'"):
        report.read_records()
