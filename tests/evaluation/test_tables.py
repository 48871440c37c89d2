"""A record as tables and figures."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from metaedit_fast.evaluation.figures import draw_front, draw_times, source_hash, times_of
from metaedit_fast.evaluation.record import Comparison, Point, Reading, Record
from metaedit_fast.evaluation.tables import budget_table, comparison_table, points_table, reading_table
from metaedit_fast.evaluation.uncertainty import Estimate

NAN = float("nan")


def curve(*points) -> tuple[Point, ...]:
    return tuple(Point(*point) for point in points)


RECORD = Record(
    experiment="small",
    dataset="adult",
    requirement="pruning",
    unit="fraction of the weights that are zero",
    seeds=(0,),
    models=3,
    rows=4,
    curves={
        "editor": curve((0.5, 0.5, 1.234e-3, 1e-4, 0.84, 1.0), (0.955, 0.955, 2e-2, NAN, 0.8, 3.0)),
        "adam10": curve((0.5, 0.5, 1e-2, 1e-3, NAN, 5.0)),
        "adam30": curve((0.5, 0.5, 2e-2, 1e-3, NAN, 15.0)),
        "adam100": curve((0.5, 0.5, 1e-4, 1e-5, NAN, 50.0)),
    },
    hypervolume={"editor": Estimate(0.91234, 0.002)},
    command="c",
    readings={"editor": (Reading(0.05, 1e-3, 1e-4, 0.8, 0.02), Reading(0.03, 2e-3, 1e-4, 0.7, 0.03)), "adam10": ()},
    comparisons={"editor": Comparison("adam100", -0.01234, 0.002)},
    families={"editor": ("editor",), "Adam": ("adam10", "adam30", "adam100")},
)


def test_budgets():
    assert budget_table(RECORD, ["editor", "adam10"]).markdown().splitlines() == [
        "| JSD × 1000, accuracy | 50 % | 95.5 % | hypervolume | ms a model |",
        "|---|---:|---:|---:|---:|",
        "| editor | 1.23 ± 0.10, 84.0 % | 20.00, 80.0 % | 0.912 ± 0.002 | 2.0 |",
        "| adam10 | 10.00 ± 1.00 | – | – | 5.0 |",
    ]


def test_comparisons():
    assert comparison_table(RECORD).markdown().splitlines() == [
        "| hypervolume in pairs | less that of | mean difference |",
        "|---|---:|---:|",
        "| editor | adam100 | -0.0123 ± 0.0020 |",
    ]


def test_readings():
    assert reading_table(RECORD).markdown().splitlines() == [
        "| JSD × 1000, accuracy, flips | 0.05 | 0.03 | hypervolume | ms a model |",
        "|---|---:|---:|---:|---:|",
        "| editor | 1.00 ± 0.10, 80.0 %, 2.0 % | 2.00 ± 0.10, 70.0 %, 3.0 % | 0.912 ± 0.002 | 2.0 |",
    ]


def test_points():
    rows = points_table(RECORD, ["editor", "adam10"]).rows
    assert [row[0] for row in rows] == ["editor at 50 %", "editor at 95.5 %", "adam10"]
    assert rows[2][1:] == ("0.500", "10.00 ± 1.00", "–", "–", "–", "5.0")


def test_a_terminal_gets_narrow_columns():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(budget_table(RECORD, ["editor"]).rich(title="title"))
    text = console.export_text()
    assert "title" in text
    assert "1.23 ± 0.10, " not in text
    assert re.search(r"editor +1\.23 ± 0\.10 +20\.00", text)


def test_only_what_is_best_in_its_time_is_drawn():
    assert times_of(RECORD, RECORD.families["Adam"], 0.5) == [(5.0, 1e-2, 1e-3), (50.0, 1e-4, 1e-5)]


def test_figures_are_the_same_every_time_and_tell_their_record(tmp_path):
    pytest.importorskip("matplotlib")
    for draw, labels in (
        (draw_front, (*RECORD.curves, RECORD.unit)),
        (lambda record, path: draw_times(record, path, budget=0.5), ("editor", "Adam", "processor time per model")),
    ):
        for name in ("a.svg", "b.svg"):
            draw(RECORD, tmp_path / name)
        text = (tmp_path / "a.svg").read_text()
        assert text == (tmp_path / "b.svg").read_text()
        assert source_hash(RECORD) in text
        assert len(text) < 60_000
        for label in (*labels, "JSD to the original (nats)"):
            assert label in text


def test_figures_that_cannot_be(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="ends in .svg"):
        draw_front(RECORD, tmp_path / "a.png")
    with pytest.raises(ValueError, match="at which a family was measured, got 0.7"):
        draw_times(RECORD, tmp_path / "a.svg", budget=0.7)
