"""`pilothouse store`: from one database to another, with every row counted and compared."""

import shlex
import time

import click
from msgspec.structs import replace

from pilothouse.app.copy_store import copy_store
from pilothouse.app.stores import place_of, recall
from pilothouse.cli.options import home_options, json_option
from pilothouse.cli.output import Output
from pilothouse.cli.settings import check_reference, check_store
from pilothouse.config import Settings, make_settings

PAUSE_S = 2.0
"""Between two lines about one table."""


@click.group()
def store() -> None:
    """
    The database of a home.

    \b
    Example:
      pilothouse store copy postgresql://pilothouse@db.example/pilothouse
    """


@store.command(short_help="Copy all rows of this home's store into an empty one.")
@click.argument("url")
@click.option("--password", metavar="REFERENCE", help="Where URL's password is: env:NAME or file:PATH.")
@click.option("--from", "source", metavar="URL", help="Store to copy (default: the one this home uses).")
@click.option("--from-password", metavar="REFERENCE", help="Where its password is.")
@home_options
@json_option
def copy(url: str, password: str | None, source: str | None, from_password: str | None, **given: str) -> None:
    """
    Copy all rows of this home's store into the empty one at URL, which may be `sqlite`.

    The server must be stopped. Counts and checksums of all tables are compared, and
    what was cut off or differs leaves URL empty.

    \b
    Example:
      pilothouse store copy postgresql://pilothouse@db.example/pilothouse --password file:./db-password
      pilothouse store copy sqlite --home ./state
    """
    out = Output(is_json=bool(given.pop("is_json")))
    home = make_settings(**given)
    from_settings = _with_store(home, source, from_password) if source else recall(home)
    to_settings = _with_store(home, url, password)
    began = last = time.monotonic()

    def progress(table: str, done: int, count: int) -> None:
        nonlocal last
        if done == count or time.monotonic() - last > PAUSE_S:
            last = time.monotonic()
            out.line(f"{table}: {done:,} of {count:,} rows")

    copied = copy_store(from_settings, to_settings, progress=progress)
    if out.is_json:
        out.json({"from": place_of(from_settings), "to": place_of(to_settings), "tables": copied})
        return
    rows = sum(one.rows for one in copied)
    out.line(
        f"copied {rows:,} rows of {len(copied)} tables in {time.monotonic() - began:.1f} s; all compare equal"
    )
    reference = f" --set store_password={password}" if password else ""
    out.line(f"Use it: pilothouse up --home {home.home} --store {shlex.quote(url)}{reference}")


def _with_store(home: Settings, url: str, password: str | None) -> Settings:
    check_store(url)
    reference = check_reference(password) if password else ""
    return replace(home, store=url, store_password=reference)
