"""Arguments of ``edit`` and ``edit_`` that make no sense: each is named, and no model is touched."""

from __future__ import annotations

import math

import numpy as np
import pytest

import metaedit_fast as mf
from metaedit_fast.threads import THREADS_VARIABLE, thread_count

ARGUMENTS = [
    ({}, "exactly one of them"),
    ({"target": {"sparsity": 0.75}, "strength": 0.5}, "exactly one of them"),
    ({"target": {"features": 3}}, r"the key 'sparsity' alone, got \['features'\].*takes target=\{'sparsity': number\}"),
    ({"target": {"sparsity": 0.5, "eod": 0.1}}, "alone"),
    ({"target": {}}, "alone"),
    ({"target": 0.5}, "expected a dictionary"),
    ({"target": {"sparsity": "half"}}, r"target\['sparsity'\]: expected a number, got 'half'"),
    ({"target": {"sparsity": 1.0}}, "0 <= sparsity < 1"),
    ({"strength": -0.1}, "0 <= sparsity < 1"),
    ({"strength": math.nan}, "0 <= sparsity < 1"),
    ({"strength": True}, "strength: expected a number"),
    ({"strength": 0.5, "refine": 5}, "data: refine reads a probe"),
    ({"strength": 0.5, "refine": -1}, "refine: expected an integer of at least 0"),
    ({"strength": 0.5, "probe_rows": 0}, "probe_rows: expected an integer of at least 1"),
    ({"strength": 0.5, "num_threads": 0}, "num_threads: expected an integer of at least 1"),
    ({"strength": 0.5, "seed": 1.5}, "seed: expected an integer"),
    ({"strength": 0.5, "on_error": "skip"}, "on_error: expected one of"),
    ({"strength": 0.5, "data": np.ones((4, 3))}, "take 5 features, got rows of 3"),
    ({"strength": 0.5, "data": np.ones(4)}, r"X: expected shape \[rows, features\]"),
    ({"strength": 0.5, "data": mf.Table(np.ones((2, 5)), [1, 2])}, "y: this editor's models have the classes 0 to 1"),
]


@pytest.mark.parametrize(("options", "message"), ARGUMENTS, ids=[message[:40] for _, message in ARGUMENTS])
@pytest.mark.parametrize("function", [mf.edit, mf.edit_])
def test_arguments_that_make_no_sense(tiny_editor, small_mlps, function, options, message):
    before = small_mlps[0].content_hash()
    with pytest.raises(ValueError, match=message):
        function(small_mlps[0], tiny_editor, **options)
    assert small_mlps[0].content_hash() == before


def test_a_probe_editor_without_data_is_an_error_at_once(tiny_probe_editor):
    with pytest.raises(ValueError, match="data: this editor reads a probe"):
        mf.edit([object()], tiny_probe_editor, strength=0.5, on_error="refuse")


@pytest.mark.parametrize("models", [None, {}, {"a": 1}, {1, 2}, b"model"])
def test_what_is_no_list_of_models(tiny_editor, models):
    with pytest.raises(ValueError, match="models: expected one model or a list"):
        mf.edit(models, tiny_editor, strength=0.5)


def test_a_population_inside_a_list(tiny_editor, small_mlps):
    with pytest.raises(ValueError, match=r"models\[1\]: a population is given alone"):
        mf.edit([small_mlps[0], mf.Population([])], tiny_editor, strength=0.5)


def test_number_of_threads(monkeypatch):
    monkeypatch.setenv(THREADS_VARIABLE, "3")
    assert thread_count(None) == 3
    assert thread_count(2) == 2
    for bad in ("0", "-1", "many", "1.5"):
        monkeypatch.setenv(THREADS_VARIABLE, bad)
        with pytest.raises(ValueError, match=f"{THREADS_VARIABLE}: expected a positive integer, got '{bad}'"):
            thread_count(None)
    monkeypatch.delenv(THREADS_VARIABLE)
    assert thread_count(None) >= 1
