"""`pilothouse describe KIND NAME`: one thing, its parts, and what happened to it and why."""

import click

from pilothouse.cli.client import Json, Server
from pilothouse.cli.get import find, list_of, show_one
from pilothouse.cli.kinds import KINDS, kind_of
from pilothouse.cli.output import Output
from pilothouse.cli.reach import Reach, client_command
from pilothouse.cli.text import moment
from pilothouse.domain.model_name import split_reference

MOST_EVENTS = 15
_WITH_EVENTS = {
    "deployments": "deployment",
    "endpoints": "endpoint",
    "replicas": "replica",
    "models": "model",
}


@click.command()
@click.argument("kind")
@click.argument("name", required=False)
@click.option(
    "--events", type=click.IntRange(0), default=MOST_EVENTS, show_default=True, help="At most so many."
)
@client_command
def describe(reach: Reach, kind: str, name: str | None, *, events: int) -> None:
    """
    Show one thing with its declaration, its parts, and what happened to it and why.

    `describe spec` shows who declared what runs, and when.

    \b
    Example:
      pilothouse describe deployment smollm2
      pilothouse describe spec
    """
    server = reach.server()
    if kind == "spec":
        _spec(reach.out, server, events)
        return
    wanted = kind_of(kind)
    if not name:
        raise click.UsageError(f"say which {kind}")
    word = wanted.path.rsplit("/", 1)[1]
    item = find(server, wanted, split_reference(name)[0] if word == "models" else name)
    parts = _replicas(server, word, name)
    found = _events(server, _WITH_EVENTS[word], name, events) if word in _WITH_EVENTS else []
    if reach.out.is_json:
        reach.out.json({word.removesuffix("s"): item, "replicas": parts, "events": found})
        return
    show_one(reach.out, item)
    if parts:
        reach.out.line("")
        kinds = KINDS["replicas"]
        reach.out.table(None, kinds.columns, [kinds.cells(one) for one in parts])
    _show_events(reach.out, found)


def _spec(out: Output, server: Server, most: int) -> None:
    view = server.get_object("/admin/v1/spec")
    found = _events(server, "spec", None, most)
    revisions = list(server.pages("/admin/v1/spec/revisions", limit=10))
    if out.is_json:
        out.json({"spec": view, "revisions": revisions, "events": found})
        return
    out.facts(
        None,
        {"revision": view.get("revision"), "declared by": view.get("author"), "at": moment(view["time"])},
    )
    out.line("")
    kind = KINDS["revisions"]
    out.table(None, kind.columns, [kind.cells(one) for one in revisions])
    _show_events(out, found)


def _replicas(server: Server, word: str, name: str) -> list[Json]:
    """Those of a deployment, or of what an endpoint's routes lead to."""
    if word == "deployments":
        names = {name}
    elif word == "endpoints":
        routes = find(server, KINDS["endpoints"], name).get("routes") or []
        names = {str(route["deployment"]) for route in routes}
    else:
        return []
    return [one for one in list_of(server, "/admin/v1/replicas") if one.get("deployment") in names]


def _events(server: Server, kind: str, name: str | None, most: int) -> list[Json]:
    if not most:
        return []
    query = {"kind": kind, "name": split_reference(name)[0] if name and kind == "model" else name}
    return list(server.pages("/admin/v1/events", query, limit=most))


def _show_events(out: Output, found: list[Json]) -> None:
    if found:
        out.line("\nevents, the newest first")
        kind = KINDS["events"]
        out.table(None, kind.columns, [kind.cells(one) for one in found])
