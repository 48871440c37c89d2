"""The package as users install it: light to import, complete, self-contained."""

from __future__ import annotations

import metaedit_fast


def test_import() -> None:
    assert metaedit_fast.__doc__
