"""The cards of the bundled editors are those of the editors and results that are committed."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import metaedit_fast as mf
from metaedit_fast.editing.bundled import bundled_editors

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"


def test_the_page_is_up_to_date_and_has_every_editor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    cards = importlib.import_module("cards")
    page = cards.PAGE.read_text()
    for name in bundled_editors():
        assert cards.card(name) in page, f"{name}: python experiments/cards.py writes the page"


@pytest.mark.parametrize(
    "name",
    [
        *("editors", "fronts", "composition", "scalarisations", "unseen", "shift", "other_groups", "digits"),
        *("ablations", "amortisation", "reproduce"),
    ],
)
def test_the_experiments_can_be_loaded(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    module = importlib.import_module(name)
    assert module.__doc__
    assert all(command in module.__doc__ for command in (f"python experiments/{name}.py",))


def test_every_bundled_editor_has_a_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    common = importlib.import_module("common")
    assert sorted(common.EDITORS) == bundled_editors()
    for name, recipe in common.EDITORS.items():
        info = mf.load_editor(name).info
        assert (info.name, info.requirement, info.data_name) == (name, recipe.requirement, recipe.dataset)
        assert info.metrics["steps"] == recipe.steps
        assert info.metrics["training_models"] <= 3 * 0.8 * recipe.runs  # 15 of 20 runs, 3 checkpoints each
