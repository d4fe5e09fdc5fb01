"""What `pilothouse import --apply` does: it adds to what runs, and replaces nothing."""

import time

import msgspec

from pilothouse.cli.apply import PATH, Declared, known_spec, show_changes
from pilothouse.cli.client import Server
from pilothouse.cli.get import quoted
from pilothouse.cli.reach import Reach
from pilothouse.config import environment
from pilothouse.domain.errors import Conflict, InvalidRequest
from pilothouse.domain.spec import Spec
from pilothouse.wire.imports.carried import Carried, WantedSecret


def add(reach: Reach, carried: Carried) -> dict[str, object]:
    """
    What came of it: the revision, and how many teams and keys are new.

    Raises:
        Conflict: A name is taken by something else.
        InvalidRequest: A secret is not where the import says it is.
    """
    server = reach.server()
    present = server.fetch(PATH, Declared)
    missing = [name for name, secret in carried.secrets.items() if not _value(secret)]
    if missing:
        variables = ", ".join(carried.secrets[name].variable for name in missing)
        raise InvalidRequest(
            f"these environment variables hold no key: {variables}. fix: set them, and import again"
        )
    for secret in carried.secrets.values():
        server.call(
            "PUT",
            f"/admin/v1/secrets/{quoted(secret.name)}",
            body={"value": _value(secret), "host": secret.host},
        )
    added = server.call(
        "PUT",
        PATH,
        body=_merged(known_spec(present.spec), carried.spec),
        headers={"if-match": f'"{present.revision}"'},
    )
    declared = msgspec.convert(added, Declared, strict=False)
    show_changes(reach.out, declared.changes)
    teams = sum(
        _added(server, "/admin/v1/teams", {"name": t.name, "limits": t.limits})
        for t in carried.teams.values()
    )
    keys = sum(
        _added(
            server,
            "/admin/v1/keys",
            {
                "team": key.team,
                "name": key.name,
                "endpoints": key.endpoints,
                "expires": _life(key.expires_at),
                "limits": key.limits,
                "token_sha256": key.token_sha256,
            },
        )
        for key in carried.keys
    )
    reach.out.line(f"revision {declared.revision}; new teams: {teams}, new keys: {keys}")
    return {"revision": declared.revision, "teams": teams, "keys": keys}


def _merged(present: Spec, more: Spec) -> Spec:
    """
    Raises:
        Conflict: A name is taken by something else.
    """
    taken = [
        f"{kind}.{name}"
        for kind in ("models", "deployments", "endpoints")
        for name, found in getattr(more, kind).items()
        if getattr(present, kind).get(name, found) != found
    ]
    if taken:
        raise Conflict(
            f"declared already, and otherwise: {', '.join(taken[:10])}. "
            "fix: write the spec with -o, rename or merge these, and pilothouse apply it"
        )
    return msgspec.structs.replace(
        present,
        models={**present.models, **more.models},
        deployments={**present.deployments, **more.deployments},
        endpoints={**present.endpoints, **more.endpoints},
    )


def _added(server: Server, path: str, body: dict[str, object]) -> bool:
    """Whether it is new: a second import finds what the first one made."""
    try:
        server.post(path, body)
    except Conflict:
        return False
    return True


def _life(expires_at: float | None) -> str:
    if expires_at is None:
        return "never"
    return f"{max(1, round(expires_at - time.time()))}s"


def _value(secret: WantedSecret) -> str:
    if secret.value is not None:
        return secret.value.reveal()
    return environment().get(secret.variable, "").strip()
