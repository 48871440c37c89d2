"""The command ``metaedit``.

Exit codes: 0 all went well; 1 some models were refused; 2 a wrong argument, or input that cannot be read.
With ``--json`` a command prints one JSON object on stdout and nothing else; messages go to stderr.
"""

from __future__ import annotations

import typer

from metaedit_fast.cli.edit import edit
from metaedit_fast.cli.info import info
from metaedit_fast.cli.population import population
from metaedit_fast.cli.train import train

app = typer.Typer(
    name="metaedit",
    help="Edit populations of trained MLPs so that they meet a requirement.",
    epilog="Exit codes: 0 all went well; 1 some models were refused; 2 a wrong argument or unreadable input.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (edit, train, population, info):
    app.command()(command)


def main() -> None:
    """Run the command line; the entry point of ``metaedit``."""
    app()
