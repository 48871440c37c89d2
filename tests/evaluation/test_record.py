"""The committed form of a result: exactly these keys, read back as written, anything else refused by name."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from metaedit_fast.evaluation.measure import HeldOut
from metaedit_fast.evaluation.pareto import hypervolumes
from metaedit_fast.evaluation.record import Comparison, Point, Record, is_ours, read_record, write_record
from metaedit_fast.evaluation.summary import over_seeds, summarise
from metaedit_fast.evaluation.uncertainty import Estimate, estimate, paired_difference

KEYS = [
    "experiment", "dataset", "requirement", "unit", "seeds", "models", "rows", "curves", "hypervolume", "command",
]  # fmt: skip
POINT_KEYS = ["budget", "requirement_mean", "jsd_mean", "jsd_se", "accuracy_mean", "ms_per_model"]


def small_record(**changes) -> Record:
    fields = {
        "experiment": "e", "dataset": "d", "requirement": "pruning", "unit": "u", "seeds": (0,), "models": 2, "rows": 3,
        "curves": {
            "editor": (Point(0.5, 0.5, 1e-3, math.nan, 0.9, 1.5),), "snip": (Point(0.5, 0.5, 0.1, 0.01, 0.8, 1),),
        },
        "hypervolume": {"editor": Estimate(0.9, 0.01)}, "command": "c",
    }  # fmt: skip
    return Record(**{**fields, **changes})


@pytest.fixture(scope="module")
def record(held_out: HeldOut, curves) -> Record:
    pytest.importorskip("moocore")
    return summarise("small", "random", held_out, curves, command="pytest", at=[0.5], families={"f": ["editor"]})


def test_a_summary_has_the_keys_in_order_and_the_figures_of_the_measurements(record, curves, held_out, rows):
    raw = json.loads(record.to_json())
    assert list(raw)[: len(KEYS)] == KEYS
    assert (raw["requirement"], raw["models"], raw["rows"]) == ("pruning", 5, 200)
    assert raw["unit"] == "fraction of the weights that are zero"
    assert list(raw["curves"]) == ["editor", "magnitude"]
    for method, curve in raw["curves"].items():
        for point, measured in zip(curve, curves[method], strict=True):
            assert list(point)[: len(POINT_KEYS)] == POINT_KEYS
            assert point["budget"] == measured.budget
            assert point["requirement_mean"] == measured.requirement.mean()
            assert (point["jsd_mean"], point["jsd_se"]) == tuple(vars(measured.estimate("jsd")).values())
            assert point["accuracy_mean"] == measured.accuracy.mean()
            assert point["flips_mean"] == measured.flips.mean()
            assert point["ms_per_model"] == measured.ms_per_model
    assert raw["accuracy_before"] == held_out.before.accuracy.mean()
    assert raw["reference"] == {"best": 1.0, "worst": 0.0, "jsd": 0.1}
    assert list(raw["hypervolume"]["editor"]) == ["mean", "se"]
    volumes = hypervolumes(curves["editor"], held_out.quantity, before=held_out.before)
    assert raw["hypervolume"]["editor"] == vars(estimate(volumes, held_out.runs))
    other = hypervolumes(curves["magnitude"], held_out.quantity, before=held_out.before)
    difference = vars(paired_difference(volumes, other, held_out.runs))
    assert raw["comparisons"] == {"editor": {"against": "magnitude", **difference}}
    assert 0 < raw["readings"]["magnitude"][0]["jsd_mean"] < np.log(2)


def test_what_is_written_is_read(record, tmp_path):
    write_record(record, tmp_path / "r.json")
    again = read_record(tmp_path / "r.json")
    assert again.to_json() == record.to_json()
    assert again.details["versions"]["numpy"] == np.__version__


def test_comparisons_are_read_again():
    compared = small_record(comparisons={"editor": Comparison("snip", 0.1, math.nan)})
    again = Record.from_json(compared.to_json()).comparisons["editor"]
    assert (again.against, again.mean) == ("snip", 0.1)
    assert math.isnan(again.se)


def test_unknown_numbers_are_null_and_optional_ones_left_out():
    raw = json.loads(small_record().to_json())
    assert raw["curves"]["editor"][0] == {
        "budget": 0.5, "requirement_mean": 0.5, "jsd_mean": 1e-3, "jsd_se": None, "accuracy_mean": 0.9,
        "ms_per_model": 1.5,
    }  # fmt: skip
    assert list(raw) == KEYS
    assert math.isnan(Record.from_json(json.dumps(raw)).curves["editor"][0].jsd_se)


def test_seeds_are_averaged_model_by_model(held_out, curves):
    by_seed = {"editor-mean": [curves["editor"], curves["magnitude"]]}
    found = summarise("s", "d", held_out, {}, by_seed=by_seed, seeds=[0, 1], command="c", hypervolume=False)
    for i, point in enumerate(found.curves["editor-mean"]):
        both = [curves[name][i].jsd for name in ("editor", "magnitude")]
        assert point.jsd_by_seed == tuple(one.mean() for one in both)
        assert point.jsd_mean == pytest.approx(np.mean(both))
    assert found.hypervolume == {}
    with pytest.raises(ValueError, match="expected the same budgets and models for every seed"):
        over_seeds(curves["editor"][:2])


def test_pairs_are_compared_as_asked(held_out, curves):
    pytest.importorskip("moocore")
    pairs = {"magnitude": "editor"}
    found = summarise("s", "d", held_out, curves, command="c", against=pairs)
    assert {name: one.against for name, one in found.comparisons.items()} == pairs
    ours_alone = {"editor": curves["editor"]}
    assert summarise("s", "d", held_out, ours_alone, command="c").comparisons == {}
    default = summarise("s", "d", held_out, curves, command="c").comparisons["editor"]
    assert default.mean == pytest.approx(-found.comparisons["magnitude"].mean)
    assert default.se == pytest.approx(found.comparisons["magnitude"].se)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.pop("command"), r"result: missing keys \['command'\]"),
        (lambda raw: raw.update(seeds=3), "seeds: expected a list, got 3"),
        (lambda raw: raw.update(models=2.5), "models: expected an integer from 0, got 2.5"),
        (lambda raw: raw.update(dataset=None), "dataset: expected a text, got None"),
        (lambda raw: raw.update(curves={}), "curves: expected at least one method, got none"),
        (lambda raw: raw["curves"].update(snip=[]), "curves 'snip': expected at least one point"),
        (lambda raw: raw["curves"]["snip"][0].pop("jsd_se"), r"curves 'snip'\[0\]: missing keys \['jsd_se'\]"),
        (lambda raw: raw["curves"]["snip"][0].update(more=1), r"curves 'snip'\[0\]: .*unknown keys \['more'\]"),
        (
            lambda raw: raw["curves"]["snip"][0].update(budget=None),
            ".* budget: expected a number, got None",
        ),
        (
            lambda raw: raw["curves"]["snip"][0].update(jsd_mean="0"),
            ".* jsd_mean: expected a number or null, got '0'",
        ),
        (
            lambda raw: raw["curves"]["snip"][0].update(jsd_mean=10**400),
            ".* jsd_mean: expected a number that fits 64 bits",
        ),
        (lambda raw: raw["hypervolume"].update(gone={"mean": 1, "se": 0}), r"hypervolume: expected methods of curves"),
        (
            lambda raw: raw.update(comparisons={"editor": {"against": "gone", "mean": 0, "se": 0}}),
            r"comparisons: expected methods of curves, got \['gone'\]",
        ),
        (
            lambda raw: raw.update(comparisons={"editor": {"against": 3, "mean": 0, "se": 0}}),
            "comparisons 'editor' against: expected a text, got 3",
        ),
        (lambda raw: raw["hypervolume"].update(snip={"mean": 1}), r"hypervolume 'snip': missing keys \['se'\]"),
        (lambda raw: raw.update(families={"f": ["gone"]}), "families 'f': expected methods of curves"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(tmp_path, change, message):
    raw = json.loads(small_record().to_json())
    change(raw)
    path = tmp_path / "r.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(ValueError, match=f"r.json: {message}"):
        read_record(path)


@pytest.mark.parametrize(("text", "message"), [("[]", "JSON object"), ("{", "r.json: "), ('{"a": NaN}', "holds NaN")])
def test_texts_that_are_no_record(tmp_path, text, message):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_record(tmp_path / "r.json")


def test_details_are_further_keys_that_json_can_hold():
    assert json.loads(small_record(details={"groups": ["sex"]}).to_json())["groups"] == ["sex"]
    with pytest.raises(ValueError, match=r"details: expected further keys, got \['rows'\]"):
        small_record(details={"rows": 4})
    with pytest.raises(ValueError, match="details: expected values that JSON can hold"):
        small_record(details={"x": {1, 2}}).to_json()


def test_ours_are_told_by_name():
    assert is_ours("editor+refine") and not is_ours("snip")
