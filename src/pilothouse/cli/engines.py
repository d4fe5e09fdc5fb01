"""`pilothouse engine`: which engines are here, and how to get the others."""

import importlib

import click
import msgspec

from pilothouse.app.engines import engine_drivers
from pilothouse.cli.engine_install import install
from pilothouse.cli.get import Filters, show_all
from pilothouse.cli.kinds import KINDS
from pilothouse.cli.options import json_option
from pilothouse.cli.output import Output
from pilothouse.cli.reach import Reach, client_command
from pilothouse.domain.errors import NotFound, OperationFailed, ServerUnreachable
from pilothouse.kit.shapes import near
from pilothouse.ports.engine import InstallableDriver


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

    Those of the server; where none runs and none is named, those of this machine.

    \b
    Example:
      pilothouse engine list --json
    """
    kind = KINDS["engines"]
    try:
        server = reach.server()
    except ServerUnreachable:
        views = importlib.import_module("pilothouse.app.engine_views")
        items = [msgspec.to_builtins(one) for one in views.list_engines(engine_drivers())]
        reach.out.table({"items": items, "next": None}, kind.columns, [kind.cells(item) for item in items])
    else:
        show_all(reach.out, server, kind, Filters())


@engine.command("install", short_help="Make the environment of a heavy engine.")
@click.argument("name")
@json_option
def install_engine(name: str, *, is_json: bool) -> None:
    """
    Make the environment of a heavy engine, with the versions that it was tried with.

    It lies beside the packages of Pilothouse itself, and is made anew when it is there.

    \b
    Example:
      pilothouse engine install transformers
    """
    out = Output(is_json=is_json)
    drivers = engine_drivers()
    if name not in drivers:
        raise NotFound(f"there is no engine {name[:64]!r}{near(name, drivers)}")
    driver = drivers[name]
    if not isinstance(driver, InstallableDriver):
        found = driver.installed()
        raise OperationFailed(
            f"engine {name} needs no environment of its own; "
            f"fix: {found.install_command or 'nothing is missing'}"
        )
    made = driver.environment
    out.line(f"making {made.folder} with {', '.join(made.packages)}: this takes minutes")
    install(made)
    found = driver.installed()
    if not found.ok:
        raise OperationFailed(
            f"engine {name}: {found.missing} is still missing; fix: {found.install_command}"
        )
    out.facts(
        {"name": name, "installed": True, "version": found.version}, {name: f"installed, {found.version}"}
    )
