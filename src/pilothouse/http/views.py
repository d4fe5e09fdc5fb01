"""
The objects of the admin API, as the contract names their fields.

Fields may be added and never removed. Times are Unix seconds.
"""

from collections.abc import Iterable
from typing import Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Struct

from pilothouse.control.status import ProcessFigures
from pilothouse.domain.chat import Aside
from pilothouse.domain.limits import LimitWords, words_of
from pilothouse.domain.model import Lineage, ModelHeader, ModelVersion
from pilothouse.domain.model_ref import stages_of, users_of_version
from pilothouse.domain.record import CacheResult, Content, InferenceRecord
from pilothouse.domain.rollout import Rollout
from pilothouse.domain.spec import DeploymentSpec, EndpointSpec, RouteSpec, Spec
from pilothouse.domain.status import DeploymentStatus, EndpointStatus, Load, Replica, ReplicaState
from pilothouse.domain.tenancy import ApiKeyRow, Team
from pilothouse.kit.secret import Secret

T = TypeVar("T")
EMPTY = Spec()


class Items(Struct, Generic[T], frozen=True):
    """Part of a list; `next` is the cursor for the rest, null at the end."""

    items: list[T]
    next: str | None = None


class KeyView(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    team: str
    role: str
    endpoints: list[str] | None
    """Endpoints it may call; null is all of them."""
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    state: Literal["active", "expired", "revoked"]
    limits: LimitWords


class CreatedKeyView(Struct, frozen=True, kw_only=True):
    """The only time that `key` is shown; null where it was made elsewhere and carried over."""

    id: str
    key: str | None
    name: str
    team: str
    role: str
    endpoints: list[str] | None
    created_at: float
    expires_at: float | None
    limits: LimitWords


class TeamView(Struct, frozen=True, kw_only=True):
    name: str
    created_at: float
    limits: LimitWords
    per_subject: LimitWords


class Tokens(Struct, frozen=True):
    input: int
    output: int
    cached: int


class ContentView(Struct, frozen=True, omit_defaults=True):
    """The request as it came (JSON, or text where it was none) and the answers' text."""

    request: Any
    answers: list[str]
    protocol: str = "openai"
    """What the request is written in."""
    asides: list[Aside] = []
    """What was said beside each answer's text: reasoning, a refusal, calls of tools."""


class RecordView(Struct, frozen=True, kw_only=True):
    id: str
    time: float
    team: str
    key_id: str
    subject_hash: str
    endpoint: str
    deployment: str
    replica: str
    kind: str
    code: str
    tokens: Tokens
    ttft_ms: float | None
    duration_ms: float
    overhead_us: int
    cost_micro_usd: int
    cache: CacheResult
    finish_reason: str
    streamed: bool
    shadow_of: str
    """The record whose request a rollout's candidate answered once more, unseen by anybody."""
    content: ContentView | None = None
    """Only when asked for, allowed and kept."""


class ModelView(Struct, frozen=True, kw_only=True):
    name: str
    version: str
    digest: str
    format: str
    bytes: int
    quantization: str
    context_tokens: int
    architecture: str
    parameters: int
    licence: str
    source: str
    created_at: float
    lineage: Lineage = Lineage()
    stages: list[str] = []
    """Stages that the spec gives this version."""
    used_by: list[str] = []
    """Fields of the spec that mean this version."""
    signature: str | None = None


class ModelCardView(Struct, frozen=True, kw_only=True):
    """A version with all that is known of it."""

    model: ModelView
    header: ModelHeader
    card: str


class ReplicaView(Struct, frozen=True, kw_only=True):
    name: str
    deployment: str
    model_version: str
    state: ReplicaState
    reason: str
    pid: int
    address: str
    started_at: float
    engine: str
    slots: int
    context_tokens: int
    load: Load | None
    """Null before it said anything."""
    memory_bytes: int | None = None
    """Largest resident memory since its start, as measured; null where its process is not on this machine."""
    cpu_seconds: float | None = None
    gpu_utilization_ratio: float | None = None
    gpu_memory_bytes: int | None = None


class DeploymentView(Struct, frozen=True, kw_only=True):
    name: str
    spec: DeploymentSpec
    status: DeploymentStatus | None


class EndpointState(Struct, frozen=True, kw_only=True):
    phase: str
    reason: str
    message: str
    observed_revision: int


class RolloutBrief(Struct, frozen=True, kw_only=True):
    id: str
    phase: str
    candidate: str
    weight: int


class EndpointView(Struct, frozen=True, kw_only=True):
    name: str
    revision: int
    routes: list[RouteSpec]
    status: EndpointState
    spec: EndpointSpec
    rollout: RolloutBrief | None = None
    """The one under way."""


def key_view(row: ApiKeyRow, now: float) -> KeyView:
    ended: Literal["expired", "revoked"] = "revoked" if row.revoked_at is not None else "expired"
    return KeyView(
        id=row.id,
        name=row.name,
        team=row.team,
        role=row.role,
        endpoints=_sorted(row.endpoints),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        state="active" if row.is_active(now) else ended,
        limits=words_of(row.limits),
    )


def created_key_view(row: ApiKeyRow, key: Secret | None = None) -> CreatedKeyView:
    return CreatedKeyView(
        id=row.id,
        key=None if key is None else key.reveal(),
        name=row.name,
        team=row.team,
        role=row.role,
        endpoints=_sorted(row.endpoints),
        created_at=row.created_at,
        expires_at=row.expires_at,
        limits=words_of(row.limits),
    )


def team_view(team: Team) -> TeamView:
    return TeamView(
        name=team.name,
        created_at=team.created_at,
        limits=words_of(team.limits),
        per_subject=words_of(team.per_subject),
    )


def record_view(record: InferenceRecord, content: Content | None = None) -> RecordView:
    return RecordView(
        id=record.id,
        time=record.time,
        team=record.team,
        key_id=record.key_id,
        subject_hash=record.subject_hash,
        endpoint=record.endpoint,
        deployment=record.deployment,
        replica=record.replica,
        kind=record.kind,
        code=record.code,
        tokens=Tokens(record.input_tokens, record.output_tokens, record.cached_tokens),
        ttft_ms=record.ttft_ms,
        duration_ms=record.duration_ms,
        overhead_us=record.overhead_us,
        cost_micro_usd=record.cost_micro_usd,
        cache=record.cache,
        finish_reason=record.finish_reason,
        streamed=record.streamed,
        shadow_of=record.shadow_of,
        content=_content_view(content) if content else None,
    )


def _content_view(content: Content) -> ContentView:
    asked = _json_or_text(content.request)
    return ContentView(asked, content.answers, content.protocol, content.asides)


def model_view(model: ModelVersion, spec: Spec = EMPTY, others: Iterable[ModelVersion] = ()) -> ModelView:
    """With `spec` and all versions: also who uses it."""
    return ModelView(
        name=model.name,
        version=model.version,
        digest=model.digest,
        format=model.format,
        bytes=model.bytes,
        quantization=model.quantization,
        context_tokens=model.context_tokens,
        architecture=model.header.architecture,
        parameters=model.header.parameters,
        licence=model.licence,
        source=model.source,
        created_at=model.created_at,
        lineage=model.lineage,
        stages=stages_of(model, spec),
        used_by=users_of_version(model, spec, others),
    )


def replica_view(replica: Replica, used: ProcessFigures | None = None) -> ReplicaView:
    return ReplicaView(
        name=replica.name,
        deployment=replica.deployment,
        model_version=replica.model_version,
        state=replica.state,
        reason=replica.reason,
        pid=replica.pid,
        address=replica.address,
        started_at=replica.started_at,
        engine=replica.engine,
        slots=replica.slots,
        context_tokens=replica.context_tokens,
        load=replica.load,
        memory_bytes=used.peak_rss_bytes if used else None,
        cpu_seconds=used.cpu_seconds if used else None,
        gpu_utilization_ratio=used.gpu_utilization_ratio if used else None,
        gpu_memory_bytes=used.gpu_memory_bytes if used else None,
    )


def endpoint_view(
    name: str,
    spec: EndpointSpec,
    *,
    revision: int,
    status: EndpointStatus | None,
    rollout: Rollout | None = None,
) -> EndpointView:
    """Of a spec that the control loop has not seen yet, the status says so."""
    state = EndpointState(phase="pending", reason="not_observed", message="", observed_revision=0)
    if status is not None:
        state = EndpointState(
            phase=status.phase,
            reason=status.reason,
            message=status.message,
            observed_revision=status.observed_revision,
        )
    brief = None
    if rollout is not None:
        brief = RolloutBrief(
            id=rollout.id, phase=rollout.phase, candidate=rollout.candidate, weight=rollout.weight
        )
    return EndpointView(
        name=name, revision=revision, routes=spec.routes, status=state, spec=spec, rollout=brief
    )


def _sorted(endpoints: frozenset[str] | None) -> list[str] | None:
    return None if endpoints is None else sorted(endpoints)


def _json_or_text(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return body.decode(errors="replace")
