"""The kinds of things that `get` shows: where each is in the admin API, and the columns of its table."""

from collections.abc import Callable, Sequence

from msgspec import Struct

from pilothouse.cli.client import Json
from pilothouse.cli.text import ago, dollars, limits_text, moment, size
from pilothouse.domain.errors import InvalidRequest

Cells = Callable[[Json], Sequence[object]]


class Kind(Struct, frozen=True, kw_only=True):
    path: str
    columns: tuple[str, ...]
    cells: Cells
    id_field: str = "name"
    is_paged: bool = False


def _replica(r: Json) -> Sequence[object]:
    load = r.get("load") or {}
    places = f"/{r['slots']}" if r.get("slots") else ""  # an engine that queues by itself tells none
    busy = f"{load.get('running', 0)}{places}" if load else None
    memory = None if r.get("memory_bytes") is None else size(r["memory_bytes"])
    age = ago(r["started_at"])
    return (r["name"], r["deployment"], r["state"], busy, memory, r["pid"] or None, age, r["reason"])


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
        m.get("stages"),
        m["source"],
    )


def _key(k: Json) -> Sequence[object]:
    scope = k["endpoints"] if k.get("endpoints") is not None else "all"
    expires = moment(k["expires_at"]) if k.get("expires_at") else "never"
    return (
        k["id"],
        k.get("name"),
        k["team"],
        k["role"],
        scope,
        k["state"],
        ago(k["created_at"]),
        expires,
        limits_text(k.get("limits")),
    )


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


def _rollout(r: Json) -> Sequence[object]:
    weight = f"{r['weight']} %" if r["ended_at"] is None else None  # since then the spec's routes say it
    return (
        r["endpoint"],
        r["phase"],
        r["candidate"],
        weight,
        r["pairs"],
        ago(r["started_at"]),
        r["reason"],
    )


def _feedback(f: Json) -> Sequence[object]:
    value = f["value"] if f["value"] is not None else f["kind"]
    return (f["id"], moment(f["time"]), f["team"], f["record_id"], f["name"], value, f["state"])


def _engine(e: Json) -> Sequence[object]:
    missing = e.get("missing") and f"missing: {e['missing']}"
    if missing and (command := e.get("install_command")):
        missing += f"; run: {command}"
    note = "; ".join(text for text in (e.get("note"), missing) if text)
    return (e["name"], e["installed"], e["version"], e["capabilities"], note)


def _event(e: Json) -> Sequence[object]:
    times = f"{e['count']}x" if e.get("count", 1) > 1 else None
    level = "warn" if e["is_warning"] else None
    return (moment(e["time"]), level, e["kind"], e["name"], e["reason"], times, e["message"])


def _revision(r: Json) -> Sequence[object]:
    fields = [str(change.get("path")) for change in r.get("changes", [])]
    more = [f"and {len(fields) - 4} more"] if len(fields) > 4 else []
    return (r["revision"], moment(r["time"]), r["author"], [*fields[:4], *more])


KINDS: dict[str, Kind] = {
    "replicas": Kind(
        path="/admin/v1/replicas",
        columns=("name", "deployment", "state", "busy", "memory", "pid", "age", "reason"),
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
        columns=("name", "version", "quantization", "size", "context", "licence", "stages", "source"),
        cells=_model,
    ),
    "keys": Kind(
        path="/admin/v1/keys",
        columns=("id", "name", "team", "role", "endpoints", "state", "age", "expires", "limits"),
        cells=_key,
        id_field="id",
        is_paged=True,
    ),
    "teams": Kind(
        path="/admin/v1/teams",
        columns=("name", "created", "limits", "for each subject"),
        cells=lambda team: (
            team["name"],
            moment(team["created_at"]),
            limits_text(team.get("limits")),
            limits_text(team.get("per_subject")),
        ),
    ),
    "secrets": Kind(
        path="/admin/v1/secrets",
        columns=("name", "host", "team", "age", "used by"),
        cells=lambda secret: (
            secret["name"],
            secret["host"],
            secret["team"] or "all",
            ago(secret["changed_at"]),
            secret["used_by"],
        ),
    ),
    "records": Kind(
        path="/admin/v1/records",
        columns=("id", "time", "team", "endpoint", "code", "tokens", "ttft ms", "ms", "cost"),
        cells=_record,
        id_field="id",
        is_paged=True,
    ),
    "revisions": Kind(
        path="/admin/v1/spec/revisions",
        columns=("revision", "time", "author", "changes"),
        cells=_revision,
        id_field="revision",
        is_paged=True,
    ),
    "events": Kind(
        path="/admin/v1/events",
        columns=("time", "level", "kind", "name", "reason", "times", "message"),
        cells=_event,
        id_field="id",
        is_paged=True,
    ),
    "rollouts": Kind(
        path="/admin/v1/rollouts",
        columns=("endpoint", "phase", "candidate", "weight", "pairs", "started", "reason"),
        cells=_rollout,
        id_field="endpoint",
    ),
    "feedback": Kind(
        path="/admin/v1/feedback",
        columns=("id", "time", "team", "record", "name", "value", "state"),
        cells=_feedback,
        id_field="id",
    ),
    "engines": Kind(
        path="/admin/v1/engines",
        columns=("name", "installed", "version", "capabilities", "note"),
        cells=_engine,
    ),
}


def kind_of(text: str) -> Kind:
    """
    Raises:
        InvalidRequest: There is no such kind.
    """
    plural = text if text.endswith("s") or text in KINDS else f"{text}s"
    if plural not in KINDS:
        raise InvalidRequest(f"there is no kind {text!r}. fix: one of {', '.join(KINDS)}", param="kind")
    return KINDS[plural]
