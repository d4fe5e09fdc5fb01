"""`pilothouse scale` and `delete`: one change to what is declared, made on the server in one step."""

import click
import msgspec

from pilothouse.cli.apply import Declared
from pilothouse.cli.get import quoted
from pilothouse.cli.reach import Reach, client_command
from pilothouse.cli.settle import wait_for, wait_options
from pilothouse.domain.errors import InvalidRequest
from pilothouse.domain.specedit import DECLARED_KINDS, parse_replicas

_OTHERWISE = {
    "keys": "pilothouse key revoke ID",
    "replicas": "pilothouse scale DEPLOYMENT --replicas N",
    "records": "pilothouse get records; their retention is `records.retain` of the endpoint",
}


@click.command()
@click.argument("deployment")
@click.option("--replicas", required=True, metavar="N|MIN..MAX", help="How many shall run.")
@wait_options
@client_command
def scale(reach: Reach, deployment: str, *, replicas: str, wait: bool, timeout: str) -> None:
    """
    Declare another number of replicas for a deployment.

    \b
    Example:
      pilothouse scale smollm2 --replicas 2
      pilothouse scale smollm2 --replicas 1..4 --wait
    """
    wanted = parse_replicas(replicas)
    server = reach.server()
    path = f"/admin/v1/deployments/{quoted(deployment)}/scale"
    answer = server.call("PUT", path, body={"min": wanted.min, "max": wanted.max})
    stored = msgspec.convert(answer, Declared, strict=False)
    if reach.out.is_json:
        reach.out.json({"revision": stored.revision, "deployment": deployment, "replicas": wanted})
    reach.out.line(f"{deployment}: {wanted.min} to {wanted.max} replicas, revision {stored.revision}")
    if wait:
        wait_for(reach.out, server, stored.revision, timeout=timeout)


@click.command()
@click.argument("kind")
@click.argument("name")
@client_command
def delete(reach: Reach, kind: str, name: str) -> None:
    """
    Declare what runs without one model, deployment or endpoint.

    Refused while something else refers to it, with the name of that. Files of a
    model stay; see: pilothouse model remove.

    \b
    Example:
      pilothouse delete endpoint old
    """
    plural = kind if kind.endswith("s") else f"{kind}s"
    if plural not in DECLARED_KINDS:
        instead = f"; instead: {_OTHERWISE[plural]}" if plural in _OTHERWISE else ""
        raise InvalidRequest(
            f"{kind!r} is nothing that is declared{instead}. fix: one of model, deployment, endpoint",
            param="kind",
        )
    answer = reach.server().call("DELETE", f"/admin/v1/spec/{plural}/{quoted(name)}")
    stored = msgspec.convert(answer, Declared, strict=False)
    if reach.out.is_json:
        reach.out.json({"revision": stored.revision, "kind": plural, "name": name})
    reach.out.line(f"deleted: {plural}.{name}, revision {stored.revision}")
