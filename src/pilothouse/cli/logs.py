"""
`pilothouse logs`: of a replica from the server, of a process of this machine from its file.

The files are readable without a server: they are wanted most when none runs.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import click

from pilothouse.cli.client import Json, Server
from pilothouse.cli.get import list_of, quoted
from pilothouse.cli.reach import Reach, client_command
from pilothouse.cli.text import clean, moment, size
from pilothouse.domain.errors import InvalidApiKey, NotFound, ServerUnreachable
from pilothouse.kit.ringlog import tail

FOLLOW_S = 0.25


@click.command()
@click.argument("replica", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on printing what comes.")
@click.option(
    "-n", "--lines", type=click.IntRange(1, 10_000), default=100, show_default=True, help="The newest."
)
@client_command
def logs(reach: Reach, replica: str | None, *, follow: bool, lines: int) -> None:
    """
    Show the log of a replica or a process; without a name, list the logs.

    \b
    Example:
      pilothouse logs
      pilothouse logs smollm2-0 -f
      pilothouse logs supervisor -n 20
    """
    folder = Path(reach.settings.home) / "logs"
    if replica is None:
        _list(reach, folder)
        return
    texts = _texts(reach, replica, folder, follow=follow, lines=lines)
    for text in texts:
        if reach.out.is_json:
            reach.out.json({"log": replica, "line": text})
        else:
            click.echo(clean(text))


def _texts(reach: Reach, name: str, folder: Path, *, follow: bool, lines: int) -> Iterator[str]:
    file = process_logs(folder).get(name)
    if file is None or reach.url:
        try:
            return _of_replica(reach.server(), name, folder, follow=follow, lines=lines)
        except ServerUnreachable:
            file = process_logs(folder / "replicas").get(name)
            if file is None or reach.url:
                raise
    return followed(file, lines) if follow else iter(tail(file, lines))


def process_logs(folder: Path) -> dict[str, Path]:
    """Log files of a folder, by the process's name."""
    return {path.stem: path for path in sorted(folder.glob("*.log"))}


def followed(file: Path, lines: int) -> Iterator[str]:
    """The newest lines, then what is added; goes on when the file is emptied (it is bounded)."""
    position = file.stat().st_size
    yield from tail(file, lines)
    rest = b""
    while True:
        time.sleep(FOLLOW_S)
        grown = file.stat().st_size if file.exists() else 0
        if grown < position:
            position = 0
        if grown > position:
            with file.open("rb") as opened:
                opened.seek(position)
                *whole, rest = (rest + opened.read(grown - position)).split(b"\n")
            position = grown
            yield from (line.decode(errors="replace") for line in whole)


def _of_replica(server: Server, name: str, folder: Path, *, follow: bool, lines: int) -> Iterator[str]:
    path = f"/admin/v1/replicas/{quoted(name)}/logs?lines={lines}" + ("&follow=true" if follow else "")
    try:
        for line in server.lines("GET", path):
            yield line.decode(errors="replace")
    except NotFound as exc:
        known = ", ".join(
            [*process_logs(folder), *(str(one["name"]) for one in list_of(server, "/admin/v1/replicas"))]
        )
        raise NotFound(f"there is no log of {name!r}. fix: one of {known or 'none'}") from exc


def _list(reach: Reach, folder: Path) -> None:
    replicas: list[Json] = []
    try:
        replicas = list_of(reach.server(), "/admin/v1/replicas")
    except (ServerUnreachable, InvalidApiKey):  # the files are worth listing without it
        pass
    items: list[Json] = [{"name": one["name"], "kind": "replica", "state": one["state"]} for one in replicas]
    files = process_logs(folder)
    if not replicas:
        files |= process_logs(folder / "replicas")
    for name, file in files.items():
        facts = file.stat()
        items.append({"name": name, "kind": "file", "bytes": facts.st_size, "changed_at": facts.st_mtime})
    rows = [
        (i["name"], i["kind"], i.get("state") or f"{size(i['bytes'])}, last {moment(i['changed_at'])}")
        for i in items
    ]
    reach.out.table({"items": items, "next": None}, ("name", "kind", "what"), rows)
