"""`pilothouse get KIND [NAME]`: the things of the admin API, as tables (`kinds` has their columns)."""

import json
import time
from collections.abc import Iterator

import click
from msgspec import Struct

from pilothouse.cli.client import Json, Server, as_items
from pilothouse.cli.kinds import KINDS, Kind, kind_of
from pilothouse.cli.output import Output
from pilothouse.cli.reach import Reach, client_command
from pilothouse.cli.text import dollars, moment, size
from pilothouse.domain.duration import parse_duration_s
from pilothouse.domain.errors import NotFound


class Filters(Struct, frozen=True, kw_only=True):
    team: str | None = None
    endpoint: str | None = None
    code: str | None = None
    since: str | None = None
    content: bool = False
    limit: int = 100


@click.command()
@click.argument("kind")
@click.argument("name", required=False)
@click.option("--team", metavar="TEAM", help="Of this team (keys, records).")
@click.option("--endpoint", metavar="NAME", help="Of this endpoint (records).")
@click.option("--code", metavar="CODE", help="That ended so: ok, overloaded, ... (records).")
@click.option("--since", metavar="DURATION", help="Not older than this, such as 2h (records).")
@click.option(
    "--content", is_flag=True, help="With prompt and answer, where the key may read them (records)."
)
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many.")
@client_command
def get(reach: Reach, /, kind: str, name: str | None, **filters: object) -> None:
    """
    List things, or show one.

    Kinds: replicas, deployments, endpoints, rollouts, models, keys, teams, records, feedback, engines,
    revisions, events.

    \b
    Example:
      pilothouse get replicas
      pilothouse get records --endpoint smollm2 --since 1h --json
      pilothouse get records req_01jd --content
    """
    wanted = kind_of(kind)
    chosen = Filters(**filters)  # type: ignore[arg-type]
    server = reach.server()
    if name:
        show_one(reach.out, find(server, wanted, name, content=chosen.content))
    else:
        show_all(reach.out, server, wanted, chosen)


def find(server: Server, kind: Kind, name: str, *, content: bool = False) -> Json:
    """
    One thing by its name or id.

    Raises:
        NotFound: There is none.
    """
    if kind is KINDS["revisions"]:
        return server.get_object(f"{kind.path}/{quoted(name)}")
    if kind is KINDS["records"]:
        return server.get_object(f"{kind.path}/{quoted(name)}", {"content": "true" if content else None})
    for item in server.pages(kind.path, limit=100_000) if kind.is_paged else list_of(server, kind.path):
        if item.get(kind.id_field) == name:
            return item
    word = kind.path.rsplit("/", 1)[1]
    raise NotFound(f"there is no {name!r} among the {word}. fix: see pilothouse get {word}")


def quoted(name: str) -> str:
    """A name as one segment of a path."""
    return "".join(
        c if c.isalnum() or c in "-_.~" else "".join(f"%{b:02X}" for b in c.encode()) for c in name
    )


def show_one(out: Output, item: Json) -> None:
    """All of its fields, one a line; the content of a record after them, as it was."""
    content = item.get("content")
    out.facts(
        item, {name: shown(name, value) for name, value in flat(item) if not name.startswith("content")}
    )
    if isinstance(content, dict) and not out.is_json:
        out.line(f"\nrequest\n{json.dumps(content.get('request'), indent=2, ensure_ascii=False)}")
        for answer in content.get("answers") or []:
            out.line(f"\nanswer\n{answer}")


def flat(item: Json, prefix: str = "") -> Iterator[tuple[str, object]]:
    """`tokens.input` and the like: the fields of fields under their own names."""
    for name, value in item.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def shown(name: str, value: object) -> object:
    """A value as people read it, by the unit that its name ends in."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if name == "time" or name.endswith("_at"):
            return moment(value)
        if name.endswith("_ms"):
            return f"{value:.1f}"
        if name == "bytes" or name.endswith("_bytes"):
            return size(value)
        if name.endswith("_micro_usd"):
            return dollars(int(value))
    return value


def show_all(out: Output, server: Server, kind: Kind, filters: Filters) -> None:
    query: dict[str, str | int | float | bool | None] = {}
    if kind.is_paged and kind not in (KINDS["revisions"], KINDS["events"]):
        query["team"] = filters.team
    if kind.path.endswith("/records"):
        query["endpoint"], query["code"] = filters.endpoint, filters.code
        query["since"] = _since(filters.since)
        query["content"] = "true" if filters.content else None
    if kind.is_paged:
        items = list(server.pages(kind.path, query, limit=filters.limit))
    else:
        items = list_of(server, kind.path)[: filters.limit]
    out.table({"items": items, "next": None}, kind.columns, [kind.cells(item) for item in items])


def _since(text: str | None) -> float | None:
    length_s = parse_duration_s(text, param="--since") if text else None
    return time.time() - length_s if length_s is not None else None


def list_of(server: Server, path: str) -> list[Json]:
    """A list that has one page."""
    return as_items(server.get_object(path))


def list_of_models(server: Server) -> list[str]:
    """Names of the endpoints that the key may call, from the OpenAI route."""
    data = server.get_object("/v1/models").get("data")
    return [str(one["id"]) for one in data if isinstance(one, dict)] if isinstance(data, list) else []
