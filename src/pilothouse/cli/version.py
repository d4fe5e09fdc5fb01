"""`pilothouse version`."""

import platform

import click

from pilothouse import __version__
from pilothouse.cli.options import json_option
from pilothouse.cli.output import Output


@click.command()
@json_option
def version(*, is_json: bool) -> None:
    """
    Print the version.

    \b
    Example:
      pilothouse version --json
    """
    out = Output(is_json=is_json)
    value = {"version": __version__, "python": platform.python_version(), "platform": platform.platform()}
    if out.is_json:
        out.json(value)
    out.line(f"pilothouse {__version__}")
