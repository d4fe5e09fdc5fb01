"""
All that a gateway worker needs to serve, as one immutable value.

The controller publishes a new one whenever something changed; a worker swaps it
in whole. With the controller gone, a worker goes on with the last.
"""

from typing import Any, Literal

from msgspec import Struct, field

from pilothouse.domain.balance import Balance, Sticky
from pilothouse.domain.limits import Limits
from pilothouse.domain.price import Price
from pilothouse.domain.provider_secret import SealedSecret

Task = Literal["chat", "completion", "embedding", "moderation", "tensors"]
"""`tensors`: a model without text, asked by the Open Inference Protocol alone."""


class KeyEntry(Struct, frozen=True, kw_only=True):
    """An API key as a worker knows it: a MAC, never the secret. Revoked keys are absent."""

    id: str
    team: str
    role: str
    mac: bytes
    endpoints: frozenset[str] | None = None
    """Endpoints it may call; None is all of them."""
    expires_at: float | None = None
    """Unix seconds; None is never."""
    limits: Limits = Limits()


class TeamEntry(Struct, frozen=True, kw_only=True):
    """The limits of a team; teams without any are absent."""

    limits: Limits = Limits()
    per_subject: Limits = Limits()


class ReplicaEntry(Struct, frozen=True, kw_only=True):
    """A ready replica and how to speak to it."""

    name: str
    deployment: str
    engine: str
    """The driver that speaks its protocol: "llama.cpp", "openai"."""
    address: str
    """`unix:<path>` or `http://host:port/v1`."""
    model: str = ""
    """The name that the engine knows the model by."""
    model_digest: str = ""
    context_tokens: int = 0
    slots: tuple[int, ...] = ()
    """Engine slots leased to this worker alone; empty where the engine has none."""
    max_inflight: int = 0
    """Requests this worker may have in flight there, when it has no slots."""
    token_file: str = ""
    """File that holds the token of an engine that was started here; empty for a private socket."""
    secret: str = ""
    """Name of the secret that it asks for; "" is none."""
    sealed: SealedSecret | None = None
    """That secret; None where it was not set (any more)."""
    allow_private: bool = False
    """An attached engine may be at a loopback or private address."""
    options: dict[str, Any] = {}
    """What its driver wants to know when it connects."""


class Route(Struct, frozen=True):
    deployment: str
    weight: int = 100


class SemanticPolicy(Struct, frozen=True, kw_only=True):
    """When a question counts as asked before though the words differ."""

    embedder: str
    """The endpoint that makes the vectors."""
    threshold: float
    ttl_s: float


class CachePolicy(Struct, frozen=True, kw_only=True):
    """Which answers of an endpoint may be given again, and for how long."""

    exact_ttl_s: float
    always: bool = False
    """Also answers that sampling made, for callers who agreed to that."""
    fingerprint: str = ""
    """Stands for all settings of the endpoint that may change an answer."""
    semantic: SemanticPolicy | None = None


class Shadow(Struct, frozen=True):
    """Requests that `stable` answered are sent to `candidate` as well; nobody sees its answers."""

    stable: str
    candidate: str


class EndpointEntry(Struct, frozen=True, kw_only=True):
    """An endpoint: the name that callers put into `model`."""

    name: str
    revision: int
    routes: tuple[Route, ...]
    tasks: tuple[Task, ...] = ("chat", "completion")
    max_tokens: int = 1024
    timeout_s: float = 60.0
    records: Literal["sealed", "none"] = "sealed"
    created_at: int = 0
    aliases: tuple[str, ...] = ()
    """Other names for it."""
    fallback: tuple[str, ...] = ()
    """Deployments that are asked, in this order, when none of the routes can answer."""
    sticky: Sticky = "none"
    balance: Balance = "least_load"
    retries: int = 2
    """Further attempts of one request."""
    retry_share: float = 0.2
    """Retries that each request pays for."""
    hedge_after_s: float = 0.0
    """Ask a second replica after so long without a first token; 0 is never."""
    connect_timeout_s: float | None = None
    first_byte_timeout_s: float | None = None
    idle_timeout_s: float | None = None
    """None of these three: the engine's own."""
    queue_size: int = 64
    """Requests that may wait in this worker for a place."""
    queue_per_team: int = 0
    """Of them, of one team; 0 is all."""
    team: str = ""
    """The one team that may call it, for a secret of that team's is behind it; "" is all."""
    queue_weights: dict[str, float] = field(default_factory=dict)
    """Shares of teams when places are short; 1 where absent."""
    shadow: Shadow | None = None
    cache: CachePolicy | None = None
    """None where it is off, which costs a request one look at this."""
    limits: Limits = Limits()
    per_subject: Limits = Limits()


class DeploymentEntry(Struct, frozen=True, kw_only=True):
    """A deployment's place in routing, with the reason when it cannot serve."""

    name: str
    phase: str
    reason: str = ""
    retry_after_s: float = 1.0
    may_hold: bool = False
    """It sleeps or is waking: requests may wait for its first replica instead of being refused."""
    price: Price | None = None
    """None costs nothing."""


class Snapshot(Struct, frozen=True, kw_only=True):
    """One consistent view. `revision` only grows within one life of a controller (`epoch`)."""

    epoch: str = ""
    revision: int = 0
    keys: dict[str, KeyEntry] = field(default_factory=dict)
    teams: dict[str, TeamEntry] = field(default_factory=dict)
    endpoints: dict[str, EndpointEntry] = field(default_factory=dict)
    deployments: dict[str, DeploymentEntry] = field(default_factory=dict)
    replicas: dict[str, tuple[ReplicaEntry, ...]] = field(default_factory=dict)
    """Ready replicas by deployment."""
    purges: dict[str, int] = field(default_factory=dict)
    """How often cached answers were purged, by scope (`domain.caching.purge_scopes`)."""
    warnings: tuple[str, ...] = ()
    """What is not well with the control plane, in words for everyone: readiness repeats them."""

    def places(self, endpoint: str) -> int:
        """How many requests the ready replicas behind an endpoint take at once; 0 where none is known."""
        entry = self.endpoints.get(endpoint)
        if entry is None:
            entry = next((one for one in self.endpoints.values() if endpoint in one.aliases), None)
        names = {route.deployment for route in entry.routes if route.weight} if entry is not None else set()
        replicas = [replica for name in names for replica in self.replicas.get(name, ())]
        return sum(len(replica.slots) or replica.max_inflight for replica in replicas)


class WorkerReport(Struct, frozen=True, kw_only=True):
    """What a worker tells the controller, at least once a second; the newest replaces the last."""

    worker: str
    pid: int
    time: float
    revision: int
    inflight: int = 0
    queued: int = 0
    connections: int = 0
    journal_dropped: int = 0
    demand: dict[str, int] = field(default_factory=dict)
    """Requests that arrived, by endpoint, since the worker started."""
    low_priority: int = 0
    """How many of them asked to go behind the others, as those of batches do."""
    cpu_s: float = 0.0
    """Processor time that the worker has used."""
    replicas: dict[str, int] = field(default_factory=dict)
    """Requests in flight, by replica; those without any may be absent."""
    queues: dict[str, int] = field(default_factory=dict)
    """Requests that wait for a place or are held, by deployment; those without any may be absent."""
    is_leaving: bool = False
    """It accepts no more and finishes what it has: its slots go to others as it gives them up."""
    slots: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Of one that is leaving: the slot leases that it still holds, by replica."""
    metrics: bytes = b""
    """`kit.metrics.Registry.dump()`: cumulative, so that a lost report loses nothing."""
    is_compiled: bool = False
    """It runs the compiled modules of the request path."""


class WorkerHello(Struct, frozen=True, kw_only=True):
    """How a worker introduces itself; `slots` are those it holds from a controller that is gone."""

    worker: str
    pid: int
    slots: dict[str, tuple[int, ...]] = field(default_factory=dict)
