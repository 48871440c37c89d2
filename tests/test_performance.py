"""The tables of docs/performance.md are those of the committed measurement."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def record() -> ModuleType:
    spec = importlib.util.spec_from_file_location("record", ROOT / "benchmarks" / "record.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_holds_the_committed_result(record: ModuleType) -> None:
    assert f"{record.BEGIN}\n{record.tables()}\n{record.END}" in record.PAGE.read_text()


def test_tables_are_written_between_the_markers(
    record: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = {"processor": "some", "platform": "any", "isa": "avx2", "peaks": [{"threads": 2, "silu": 1.23456}]}
    row = {"task": "edit", "engine": "native", "ms_per_model": 0.4567, "spread": 0.012, "note": None}
    first = {**row, "task": "forward"}
    again = {"edit": "`another command` on 2020-01-02"}
    result = {"command": "make bench", "date": "2020-01-01", "again": again, "machine": machine, "rows": [first, row]}
    monkeypatch.setattr(record, "RESULT", tmp_path / "result.json")
    monkeypatch.setattr(record, "PAGE", tmp_path / "page.md")
    record.PAGE.write_text(f"before\n{record.BEGIN}\nold\n{record.END}\nafter\n")
    record.write_tables()
    assert record.NOT_YET in record.PAGE.read_text()
    record.RESULT.write_text(json.dumps(result))
    record.write_tables()
    text = record.PAGE.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    assert "| native | 0.457 | 1.2% |" in text
    assert "| 2 | 1.23 |" in text
    assert "### Forward\n\nMeasured by `make bench` on 2020-01-01." in text
    assert "### Edit\n\nMeasured by `another command` on 2020-01-02." in text
    assert "old" not in text


def test_tasks_measured_again_replace_their_rows_on_the_same_machine(record: ModuleType) -> None:
    machine = {"processor": "some", "isa": "avx2", "logical_cores": 2}
    rows = [{"task": task, "ms_per_model": 1.0} for task in ("forward", "evaluation", "edit")]
    before = {"command": "make bench", "date": "2020-01-01", "machine": machine, "rows": rows}
    report = {"machine": machine, "rows": [{"task": "evaluation", "ms_per_model": 2.0}]}
    made, found = record.joined(before, report, ["evaluation"], "2020-01-02")
    assert [(row["task"], row["ms_per_model"]) for row in found["rows"]] == [
        ("forward", 1.0),
        ("evaluation", 2.0),
        ("edit", 1.0),
    ]
    assert made["again"] == {"evaluation": "`python benchmarks/record.py measure evaluation` on 2020-01-02"}
    other = {**report, "machine": {**machine, "isa": "serial"}}
    with pytest.raises(ValueError, match="whose isa is serial, got avx2"):
        record.joined(before, other, ["evaluation"], "2020-01-02")
