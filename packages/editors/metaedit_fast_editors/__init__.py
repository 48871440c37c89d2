"""Editors for metaedit_fast, as data: ``metaedit_fast.load_editor("bank-pruning")`` finds them by name."""
