"""`pilothouse import`: what another product reads, as a spec, and a word on all that has no place there."""

import itertools
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from pilothouse.cli.imports_add import add
from pilothouse.cli.reach import Reach, client_command
from pilothouse.config import environment, write_brief_spec
from pilothouse.domain.errors import InvalidRequest, OperationFailed
from pilothouse.kit.documents import Document, Malformed, read_json, read_yaml
from pilothouse.wire.imports import kserve, litellm, litellm_keys, ollama
from pilothouse.wire.imports.carried import Carried

MOST_BYTES = 32 * 1024 * 1024
MOST_MANIFESTS = 10_000
_BETWEEN = re.compile(rb"^---[ \t]*$", re.MULTILINE)


def import_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every importer can do with what it read."""
    for option in (
        click.option("--apply", "is_applied", is_flag=True, help="Add it to what runs, keys and teams too."),
        click.option("-o", "--output", metavar="FILE", help="Write the spec there, not to standard output."),
    ):
        command = option(command)
    return command


@click.group("import")
def imports() -> None:
    """
    Take over what another product was told: LiteLLM, Ollama, KServe.

    Prints a spec, and on standard error whatever could not be carried over, and why.
    Nothing changes before --apply, which adds to what runs and replaces nothing.

    \b
    Example:
      pilothouse import litellm config.yaml > pilothouse.yaml
    """


@imports.command("litellm")
@click.argument("file", metavar="FILE")
@click.option("--key-export", "keys_file", metavar="FILE", help="Export of its keys, as JSON: they go on.")
@click.option("--team-export", "teams_file", metavar="FILE", help="Export of its teams, as JSON.")
@click.option("--prices", "prices_file", metavar="FILE", help="Write its prices there, for up --prices.")
@import_options
@client_command
def import_litellm(
    reach: Reach,
    file: str,
    *,
    keys_file: str | None,
    teams_file: str | None,
    prices_file: str | None,
    output: str | None,
    is_applied: bool,
) -> None:
    """
    Import the config.yaml of a LiteLLM proxy.

    Each model group becomes an endpoint, each of its entries a deployment. Its keys
    are stored there as SHA-256, and with that they go on working here: their owners
    change the address, nothing else. An export is what `/key/list` answers with
    return_full_object=true, or the rows of its table of keys; as JSON.

    \b
    Example:
      pilothouse import litellm config.yaml
      pilothouse import litellm config.yaml --key-export keys.json --team-export teams.json --apply
    """
    carried = litellm.read(_yaml(file), variables=environment())
    teams = litellm_keys.read_teams(_json(teams_file), carried) if teams_file else {}
    if keys_file:
        litellm_keys.read_keys(_json(keys_file), carried, teams, now=time.time())
    if prices_file and carried.prices:
        _write_prices(Path(prices_file), carried)
    _end(reach, carried, output, is_applied=is_applied)


@imports.command("ollama", short_help="Import the models of Ollama, from where they lie.")
@click.argument("folder", metavar="[FOLDER]", default="")
@import_options
@client_command
def import_ollama(reach: Reach, folder: str, *, output: str | None, is_applied: bool) -> None:
    """
    Import the models of Ollama, from where they lie (default: OLLAMA_MODELS, or ~/.ollama/models).

    \b
    Example:
      pilothouse import ollama
      pilothouse import ollama /usr/share/ollama/.ollama/models --apply
    """
    home = Path(folder or environment().get("OLLAMA_MODELS") or "~/.ollama/models").expanduser().resolve()
    manifests = _manifests(home)
    carried = ollama.read(
        manifests,
        lambda digest: _small_blob(home / "blobs" / digest.replace(":", "-")),
        blobs_folder=str(home / "blobs"),
    )
    _end(reach, carried, output, is_applied=is_applied)


@imports.command("kserve")
@click.argument("file", metavar="FILE")
@import_options
@client_command
def import_kserve(reach: Reach, file: str, *, output: str | None, is_applied: bool) -> None:
    """
    Import InferenceServices and LLMInferenceServices of KServe.

    A GGUF model is run here. A service that runs already (the output of kubectl get
    names its address) is attached, and goes on running where it is.

    \b
    Example:
      kubectl get isvc,llmisvc -A -o yaml > services.yaml
      pilothouse import kserve services.yaml
    """
    parts = [part for part in _BETWEEN.split(_bytes(file)) if part.strip()]
    documents = [_parsed(part, file, read_yaml) for part in parts]
    _end(reach, kserve.read(documents), output, is_applied=is_applied)


def _end(reach: Reach, carried: Carried, output: str | None, *, is_applied: bool) -> None:
    if not carried.endpoints:
        for note in carried.notes:
            click.echo(f"not carried: {note.path}: {note.reason}", err=True)
        raise OperationFailed("nothing in it could be carried over. fix: see the notes above")
    applied: dict[str, object] = {}
    if is_applied:
        applied = add(reach, carried)
    if output:
        Path(output).write_bytes(write_brief_spec(carried.spec))
    if reach.out.is_json:
        reach.out.json(
            {
                "spec": carried.spec,
                "secrets": [
                    {"name": s.name, "host": s.host, "variable": s.variable} for s in carried.secrets.values()
                ],
                "teams": list(carried.teams.values()),
                "keys": carried.keys,
                "not_carried": carried.notes,
                **({"applied": applied} if is_applied else {}),
            }
        )
    elif not output and not is_applied:
        click.echo(write_brief_spec(carried.spec).decode(), nl=False)
    _tell(reach, carried, is_applied=is_applied)


def _tell(reach: Reach, carried: Carried, *, is_applied: bool) -> None:
    if reach.out.is_json:
        return
    for note in carried.notes:
        click.echo(f"not carried: {note.path}: {note.reason}", err=True)
    counts = ", ".join(
        f"{len(found)} {kind if len(found) != 1 else kind.removesuffix('s')}"
        for kind, found in (
            ("models", carried.models),
            ("deployments", carried.deployments),
            ("endpoints", carried.endpoints),
            ("teams", carried.teams),
            ("keys", carried.keys),
        )
        if found
    )
    click.echo(f"carried over: {counts}; {len(carried.notes)} notes on what was not", err=True)
    if is_applied:
        return
    for secret in carried.secrets.values():
        where = f"in {secret.variable}" if secret.variable else "in the file"
        click.echo(f"secret: {secret.name}, for {secret.host} only: it is {where}", err=True)
    if carried.secrets or carried.keys:
        click.echo("secrets, teams and keys are set by --apply", err=True)


def _write_prices(path: Path, carried: Carried) -> None:
    rows = {
        name: {field: float(usd) for field, usd in msgspec.structs.asdict(row).items() if usd}
        for name, row in carried.prices.items()
    }
    path.write_bytes(
        msgspec.yaml.encode({"as_of": time.strftime("%Y-%m-%d", time.gmtime()), "deployments": rows})
    )
    click.echo(f"prices written; to use them: pilothouse up --prices {path}", err=True)


def _yaml(path: str) -> object:
    return _parsed(_bytes(path), path, read_yaml)


def _json(path: str) -> object:
    return _parsed(_bytes(path), path, read_json)


def _parsed(text: bytes, name: str, reader: Callable[[bytes], Document]) -> object:
    try:
        return reader(text).value
    except Malformed as exc:
        raise InvalidRequest(f"{name}: {exc}") from exc
    except RecursionError as exc:
        raise InvalidRequest(f"{name}: nested too deeply") from exc


def _bytes(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as exc:
        raise OperationFailed(f"cannot read {path}: {exc.strerror}. fix: name a file that is there") from exc
    if len(text) > MOST_BYTES:
        raise InvalidRequest(f"{path}: over {MOST_BYTES >> 20} MiB")
    return text


def _manifests(home: Path) -> dict[str, object]:
    root = home / "manifests"
    if not root.is_dir():
        raise OperationFailed(
            f"no Ollama models in {home}. fix: name the folder that holds manifests and blobs"
        )
    files = [path for path in itertools.islice(root.rglob("*"), MOST_MANIFESTS) if path.is_file()]
    return {
        path.relative_to(root).as_posix(): _parsed(_bytes(str(path)), str(path), read_json) for path in files
    }


def _small_blob(path: Path) -> object:
    try:
        return _json(str(path))
    except (OperationFailed, InvalidRequest):
        return None
