"""The account of editors against work on every model: counted by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest

from metaedit_fast.evaluation.amortisation import (
    Costs,
    PopulationCost,
    account,
    alternative,
    models_to_pay,
    read_costs,
)
from metaedit_fast.evaluation.record import Point, Record
from metaedit_fast.evaluation.uncertainty import Estimate

HYPERVOLUMES = {
    "editor": 0.90, "editor+refine": 0.95, "snip": 0.99, "snip+refine": 0.91, "adam, 10": 0.89, "adam, 30": 0.92,
    "adam, 100": 0.93,
}  # fmt: skip
MS = {
    "editor": 2.0, "editor+refine": 4.0, "snip": 1.0, "snip+refine": 3.0, "adam, 10": 5.0, "adam, 30": 12.0,
    "adam, 100": 40.0,
}  # fmt: skip
RECORD = Record(
    experiment="adult_pruning",
    dataset="adult",
    requirement="pruning",
    unit="u",
    seeds=(0,),
    models=2,
    rows=3,
    curves={
        name: (Point(0.5, 0.5, 1e-3, 1e-4, 0.9, ms - 0.5), Point(0.9, 0.9, 1e-3, 1e-4, 0.9, ms + 0.5))
        for name, ms in MS.items()
    },
    hypervolume={name: Estimate(value, 0.01) for name, value in HYPERVOLUMES.items()},
    command="c",
    details={"editor": {"metrics": {"seconds": 50, "threads": 2}}},
)
COSTS = Costs({"adult": PopulationCost(10, 60, 900.0, 9.0, 4, 2)}, "some processor", "c")


def test_models_to_pay() -> None:
    assert models_to_pay(100.0, 2.0, 12.0) == 10_000
    assert models_to_pay(0.0011, 1.0, 2.0) == 2
    assert models_to_pay(100.0, 2.0, 2.0) == math.inf


def test_the_quickest_that_is_as_good_stands_for_the_others() -> None:
    adam = ["adam, 10", "adam, 30", "adam, 100"]
    found = alternative(RECORD, "editor", adam)
    assert (found.method, found.ms_per_model, found.as_good) == ("adam, 30", 12.0, True)
    none = alternative(RECORD, "editor+refine", adam)
    assert (none.method, none.hypervolume, none.as_good) == ("adam, 100", 0.93, False)


def test_the_account() -> None:
    assert account([RECORD], COSTS).rows == (
        ("adult, pruning: editor", "0.900", "2.0", "snip+refine", "0.910", "3.0", "100,000", "1,000,000"),
        ("adult, pruning: editor", "0.900", "2.0", "adam, 30", "0.920", "12.0", "10,000", "100,000"),
        ("adult, pruning: editor+refine", "0.950", "4.0", "snip+refine (falls short)", "0.910", "3.0", "–", "–"),
        (
            "adult, pruning: editor+refine",
            "0.950",
            "4.0",
            "adam, 100 (falls short)",
            "0.930",
            "40.0",
            "2,800",
            "28,000",
        ),
    )


def test_costs_are_read_as_written(tmp_path) -> None:
    path = tmp_path / "costs.json"
    path.write_text(COSTS.to_json())
    assert read_costs(path) == COSTS
    path.write_text('{"populations": {"adult": {}}}')
    with pytest.raises(ValueError, match=r"costs.json: expected the costs of populations"):
        read_costs(path)


def test_what_is_missing_is_named() -> None:
    for record in (dataclasses.replace(RECORD, dataset="other"), dataclasses.replace(RECORD, details={})):
        with pytest.raises(ValueError, match="adult_pruning: expected an editor's training and its population's cost"):
            account([record], COSTS)
