"""`pilothouse get KIND [NAME]`: the things of the admin API, as tables. Each kind is one row of KINDS."""

import json
import time
from collections.abc import Callable, Iterator, Sequence

import click
from msgspec import Struct

from pilothouse.cli.client import Json, Server, as_items
from pilothouse.cli.output import Output
from pilothouse.cli.reach import Reach, client_command
from pilothouse.cli.text import ago, dollars, moment, size
from pilothouse.domain.duration import parse_duration_s
from pilothouse.domain.errors import InvalidRequest, NotFound

Cells = Callable[[Json], Sequence[object]]


class Kind(Struct, frozen=True, kw_only=True):
    path: str
    columns: tuple[str, ...]
    cells: Cells
    id_field: str = "name"
    is_paged: bool = False


def _replica(r: Json) -> Sequence[object]:
    load = r.get("load") or {}
    busy = f"{load.get('running', 0)}/{r.get('slots', 0)}" if load else None
    return (r["name"], r["deployment"], r["state"], busy, r["pid"] or None, ago(r["started_at"]), r["reason"])


def _deployment(d: Json) -> Sequence[object]:
    status, spec = d.get("status") or {}, d.get("spec") or {}
    ready = f"{status.get('ready', 0)}/{status.get('wanted', 0)}"
    model = spec.get("model") or spec.get("provider_model")
    return (
        d["name"],
        status.get("phase", "pending"),
        ready,
        model,
        spec.get("engine"),
        status.get("message"),
    )


def _endpoint(e: Json) -> Sequence[object]:
    status = e.get("status") or {}
    routes = [f"{route['deployment']}:{route.get('weight', 100)}" for route in e.get("routes", [])]
    return (e["name"], status.get("phase"), routes, e["revision"], status.get("message"))


def _model(m: Json) -> Sequence[object]:
    return (
        m["name"],
        m["version"],
        m["quantization"],
        size(m["bytes"]),
        m["context_tokens"],
        m["licence"],
        m["source"],
    )


def _key(k: Json) -> Sequence[object]:
    scope = k["endpoints"] if k.get("endpoints") is not None else "all"
    expires = moment(k["expires_at"]) if k.get("expires_at") else "never"
    return (k["id"], k.get("name"), k["team"], k["role"], scope, k["state"], ago(k["created_at"]), expires)


def _record(r: Json) -> Sequence[object]:
    tokens = r.get("tokens") or {}
    ttft = f"{r['ttft_ms']:.0f}" if r.get("ttft_ms") is not None else None
    return (
        r["id"],
        moment(r["time"]),
        r["team"],
        r["endpoint"],
        r["code"],
        f"{tokens.get('input', 0)}+{tokens.get('output', 0)}",
        ttft,
        f"{r['duration_ms']:.0f}",
        dollars(r.get("cost_micro_usd", 0)),
    )


def _engine(e: Json) -> Sequence[object]:
    note = e.get("missing") and f"{e['missing']}: {e.get('install_command') or 'see the documentation'}"
    return (e["name"], e["installed"], e["version"], e["capabilities"], note)


KINDS: dict[str, Kind] = {
    "replicas": Kind(
        path="/admin/v1/replicas",
        columns=("name", "deployment", "state", "busy", "pid", "age", "reason"),
        cells=_replica,
    ),
    "deployments": Kind(
        path="/admin/v1/deployments",
        columns=("name", "phase", "ready", "model", "engine", "message"),
        cells=_deployment,
    ),
    "endpoints": Kind(
        path="/admin/v1/endpoints",
        columns=("name", "phase", "routes", "revision", "message"),
        cells=_endpoint,
    ),
    "models": Kind(
        path="/admin/v1/models",
        columns=("name", "version", "quantization", "size", "context", "licence", "source"),
        cells=_model,
    ),
    "keys": Kind(
        path="/admin/v1/keys",
        columns=("id", "name", "team", "role", "endpoints", "state", "age", "expires"),
        cells=_key,
        id_field="id",
        is_paged=True,
    ),
    "teams": Kind(
        path="/admin/v1/teams",
        columns=("name", "created"),
        cells=lambda team: (team["name"], moment(team["created_at"])),
    ),
    "records": Kind(
        path="/admin/v1/records",
        columns=("id", "time", "team", "endpoint", "code", "tokens", "ttft ms", "ms", "cost"),
        cells=_record,
        id_field="id",
        is_paged=True,
    ),
    "engines": Kind(
        path="/admin/v1/engines",
        columns=("name", "installed", "version", "capabilities", "note"),
        cells=_engine,
    ),
}


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

    Kinds: replicas, deployments, endpoints, models, keys, teams, records, engines.

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


def kind_of(text: str) -> Kind:
    """
    Raises:
        InvalidRequest: There is no such kind.
    """
    plural = text if text.endswith("s") else f"{text}s"
    if plural not in KINDS:
        raise InvalidRequest(f"there is no kind {text!r}. fix: one of {', '.join(KINDS)}", param="kind")
    return KINDS[plural]


def find(server: Server, kind: Kind, name: str, *, content: bool = False) -> Json:
    """
    One thing by its name or id.

    Raises:
        NotFound: There is none.
    """
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
    if kind.is_paged:
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
