"""The progress bar: on stderr, because stdout is for results."""

from __future__ import annotations

import pytest

from metaedit_fast.progress import progress_bar


def test_it_is_drawn_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("counting", 5, shown=True, done=2) as advance:
        advance()
        advance("nearly there")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "nearly there" in shown.err
    assert "4/5" in shown.err


def test_without_a_watcher_nothing_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("counting", 1, shown=False) as advance:
        advance()
        advance("text")
    assert capsys.readouterr() == ("", "")
