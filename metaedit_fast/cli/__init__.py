"""The command ``metaedit``.

Exit codes: 0 all went well; 1 some models were refused; 2 a wrong argument, or input that cannot be read.
With ``--json`` a command prints one JSON object on stdout and nothing else; messages go to stderr.
"""

from __future__ import annotations

from typing import Annotated

import typer

from metaedit_fast.cli.bench import bench
from metaedit_fast.cli.compact import compact
from metaedit_fast.cli.edit import edit
from metaedit_fast.cli.evaluate import evaluate
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


def _show_version(wanted: bool) -> None:
    if wanted:
        import metaedit_fast

        typer.echo(f"metaedit_fast {metaedit_fast.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Edit populations of trained MLPs so that they meet a requirement."""


for command in (edit, compact, train, population, evaluate, info, bench):
    app.command()(command)


def main() -> None:
    """Run the command line; the entry point of ``metaedit``."""
    app()
