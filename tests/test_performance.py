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
    result = {"command": "make bench", "date": "2020-01-01", "machine": machine, "rows": [row]}
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
    assert "old" not in text
