"""Options that several commands share, as decorators. Imports nothing that is slow."""

from collections.abc import Callable
from typing import Any

import click

Command = Callable[..., Any]


def json_option(function: Command) -> Command:
    return click.option("--json", "is_json", is_flag=True, help="Print JSON for machines.")(function)


def home_options(function: Command) -> Command:
    """`--home` and `--keys`."""
    function = click.option(
        "--keys", metavar="DIR", help="Folder of keys (default: the home's name with -keys)."
    )(function)
    return click.option(
        "--home", metavar="DIR", help="Folder of all state (default: PILOTHOUSE_HOME, else the data folder)."
    )(function)
