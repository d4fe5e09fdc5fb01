"""
What commands print: tables and sentences for people, JSON for machines.

What a value means is not decided here. The one idea: a command hands in the
value once, and both forms come from it. Text from elsewhere never steers the
terminal.
"""

import sys
from collections.abc import Iterable, Sequence

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pilothouse.cli.text import clean

Cell = object
PHASE_STYLES = {"ready": "green", "ok": "green", "failed": "red", "fail": "red", "revoked": "red"}
WAITING_STYLES = {"starting": "yellow", "pulling": "yellow", "pending": "yellow", "degraded": "yellow"}
_STYLES = PHASE_STYLES | WAITING_STYLES | {"warn": "yellow", "draining": "yellow"}


class Output:
    """Where a command's result goes. `is_json` is the user's `--json`."""

    def __init__(self, *, is_json: bool) -> None:
        self.is_json = is_json
        # Piped, a table is as wide as its cells: a cut name is of no use to `grep`.
        self.console = Console(highlight=False, width=None if sys.stdout.isatty() else 1000)

    def json(self, value: object) -> None:
        """One JSON object on one line."""
        click.echo(msgspec.json.encode(value).decode())

    def line(self, text: str, *, style: str = "") -> None:
        """A sentence for people; nothing with `--json`."""
        if not self.is_json:
            self.console.print(Text(clean(text), style=style), soft_wrap=True)

    def table(self, value: object, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
        """The value as JSON, or its rows as a table."""
        if self.is_json:
            self.json(value)
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in columns:
            table.add_column(name.upper(), overflow="fold")
        for row in rows:
            table.add_row(*[_cell(cell) for cell in row])
        self.console.print(table)

    def facts(self, value: object, facts: dict[str, Cell]) -> None:
        """The value as JSON, or its facts one a line."""
        if self.is_json:
            self.json(value)
            return
        width = max(map(len, facts), default=0)
        for name, fact in facts.items():
            self.console.print(Text.assemble((f"{name:{width}}  ", "bold"), _cell(fact)), soft_wrap=True)


def _cell(value: Cell) -> Text:
    if value is None or value in ("", [], {}):
        return Text("-", style="dim")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, list | tuple | set | frozenset):
        return Text(clean(", ".join(map(_words, value))))
    text = clean(str(value))
    return Text(text, style=_STYLES.get(text, ""))


def _words(item: object) -> str:
    """One of a list; a mapping, such as a route, as its fields: `deployment smollm2 weight 100`."""
    return (
        " ".join(f"{name} {value}" for name, value in item.items()) if isinstance(item, dict) else str(item)
    )
