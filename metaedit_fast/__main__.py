"""``python -m metaedit_fast`` is the command ``metaedit``."""

from metaedit_fast.cli import main

if __name__ == "__main__":
    main()
