"""What is, beside what was asked for: phases and reasons, closed sets."""

from typing import Literal

from msgspec import Struct

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
