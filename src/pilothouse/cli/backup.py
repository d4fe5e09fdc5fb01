"""`pilothouse backup` and `restore`: a home to two files and back, without a server's help."""

import time
from pathlib import Path

import click

from pilothouse.app.backup import Backup
from pilothouse.app.backup import backup as write_backup
from pilothouse.app.backup import restore as put_back
from pilothouse.app.stores import recall
from pilothouse.cli.options import home_options, json_option
from pilothouse.cli.output import Output
from pilothouse.cli.text import moment, size
from pilothouse.config import make_settings


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--with-models", is_flag=True, help="Put the model files in too; else they are pulled again.")
@home_options
@json_option
def backup(file: Path, home: str | None, keys: str | None, *, with_models: bool, is_json: bool) -> None:
    """
    Write all state to FILE, and the keys to FILE.keys, apart. The server may run.

    A store in PostgreSQL is written to FILE as SQLite, which a restored home starts from;
    `pilothouse store copy` takes it back.

    FILE alone can be read by nobody: keep FILE.keys somewhere else.

    \b
    Example:
      pilothouse backup monday.tar
      pilothouse backup everything.tar --with-models
    """
    out = Output(is_json=is_json)
    made = write_backup(
        recall(make_settings(home=home, keys=keys)), file, now=time.time(), with_models=with_models
    )
    _show(out, made, "written")
    out.line(f"Keep {made.keys_file} apart from {made.file}: together they open everything.")
    if made.missing_models and with_models:
        out.line(f"Not here, and so not in it: {', '.join(made.missing_models)}", style="yellow")


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--keys-file", type=click.Path(dir_okay=False, path_type=Path), help="Default: FILE.keys")
@home_options
@json_option
def restore(file: Path, keys_file: Path | None, home: str | None, keys: str | None, *, is_json: bool) -> None:
    """
    Put a backup back into a home and a keys folder that are empty.

    \b
    Example:
      pilothouse restore monday.tar --home ./state
      pilothouse restore monday.tar --keys-file /media/safe/monday.tar.keys
    """
    out = Output(is_json=is_json)
    settings = make_settings(home=home, keys=keys)
    found = put_back(settings, file, keys_file=keys_file)
    _show(out, found, "restored")
    out.line(f"Start it: pilothouse up --home {settings.home} --keys {settings.keys}")
    if found.missing_models:
        out.line(f"Pulled again at the start: {', '.join(found.missing_models)}")


def _show(out: Output, found: Backup, done: str) -> None:
    if out.is_json:
        out.json(found)
    out.line(f"{done}: {found.file} of {moment(found.created_at)}, {size(found.bytes)} with its keys")
