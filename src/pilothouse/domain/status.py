"""What is, beside what was asked for: phases and reasons, closed sets."""

from typing import Any, Literal

from msgspec import Struct, field

ReplicaState = Literal["starting", "ready", "draining", "stopped", "failed"]
Phase = Literal["pending", "pulling", "starting", "ready", "degraded", "failed"]


class Load(Struct, frozen=True, kw_only=True):
    """How busy an engine is. `kv_used` is 0..1, or None where the engine does not say."""

    running: int = 0
    waiting: int = 0
    kv_used: float | None = None


class Health(Struct, frozen=True, kw_only=True):
    """The result of an inference probe: a token was produced, or why not."""

    ok: bool
    reason: str = ""


class Replica(Struct, frozen=True, kw_only=True):
    """A replica as the target sees it. Identity is `pid` and `started_at` together."""

    name: str
    deployment: str
    model_digest: str
    state: ReplicaState
    engine: str
    address: str
    pid: int = 0
    started_at: float = 0.0
    reason: str = ""
    launch_digest: str = ""
    """Digest of the launch it was started with: another one means that the spec changed."""
    slots: int = 0
    context_tokens: int = 0
    model_version: str = ""
    token_file: str = ""
    """Where its bearer token is, made for it alone; "" without one."""
    ready_timeout_s: float = 0.0
    """What its driver allows for until the first token; 0 is the usual."""
    options: dict[str, Any] = {}
    """What its driver wants back when it connects."""
    load: Load | None = None
    """When it last said so."""


class Progress(Struct, frozen=True, kw_only=True):
    """How far a slow step is; `total_bytes` 0 is unknown."""

    stage: str
    done_bytes: int = 0
    total_bytes: int = 0


class DeploymentStatus(Struct, frozen=True, kw_only=True):
    """`reason` is a word for machines, `message` a sentence for people with what to do next."""

    name: str
    phase: Phase
    reason: str = ""
    message: str = ""
    wanted: int = 0
    ready: int = 0
    may_wake: bool = False
    """Requests may find it asleep and wait until it is awake."""
    scaled_because: str = ""
    """Why so many are wanted: `declared`, `load`, `ttft`, `kv_used`, `idle`, `woken`."""
    progress: Progress | None = None
    """Of the model's pull, while that goes on."""
    observed_revision: int = 0
    """Revision of the spec that this status is about."""


class EndpointStatus(Struct, frozen=True, kw_only=True):
    name: str
    phase: Phase
    reason: str = ""
    message: str = ""
    observed_revision: int = 0


class SystemStatus(Struct, frozen=True, kw_only=True):
    """All that the control loop last saw, as one value."""

    revision: int = 0
    deployments: dict[str, DeploymentStatus] = field(default_factory=dict)
    endpoints: dict[str, EndpointStatus] = field(default_factory=dict)
    replicas: tuple[Replica, ...] = ()
