"""`pilothouse engine list`: which engines are here, and how to get the others."""

import click

from pilothouse.cli.get import Filters, show_all
from pilothouse.cli.kinds import KINDS
from pilothouse.cli.reach import Reach, client_command


@click.group()
def engine() -> None:
    """
    Which engines are here, and which could be.

    \b
    Example:
      pilothouse engine list
    """


@engine.command("list")
@client_command
def list_engines(reach: Reach) -> None:
    """
    List engines: installed or not, and what is missing.

    \b
    Example:
      pilothouse engine list --json
    """
    show_all(reach.out, reach.server(), KINDS["engines"], Filters())
