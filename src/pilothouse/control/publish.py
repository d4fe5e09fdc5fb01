"""
Publishing: from what is declared and what is ready to what the workers serve.

One base for all; each worker's view adds its own slot leases. A change is
noticed by comparison, so publishing once too often costs nothing.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from hashlib import sha256

import msgspec
from msgspec.structs import replace

from pilothouse.control.fleet import Fleet
from pilothouse.control.lease import SlotLeases
from pilothouse.domain.duration import parse_duration_s
from pilothouse.domain.limits import limits_of, spec_words
from pilothouse.domain.model import ModelVersion
from pilothouse.domain.price import Price, TokenPrices
from pilothouse.domain.provider_secret import SealedSecret, teams_of
from pilothouse.domain.snapshot import (
    CachePolicy,
    DeploymentEntry,
    EndpointEntry,
    KeyEntry,
    ReplicaEntry,
    Route,
    SemanticPolicy,
    Shadow,
    Snapshot,
    Task,
    TeamEntry,
    WorkerHello,
    WorkerReport,
)
from pilothouse.domain.spec import DeploymentSpec, EndpointSpec, Spec, TimeoutsSpec
from pilothouse.domain.status import DeploymentStatus, Phase, Replica, SystemStatus
from pilothouse.ports.feed import AnswerLedger, Publisher

RETRY_AFTER_S: Mapping[Phase, float] = {"starting": 2.0, "pulling": 15.0, "pending": 5.0, "failed": 30.0}
"""What a caller is told to wait: about as long as each phase takes."""
LONGEST_TIMEOUT_S = 24 * 3600.0
USUAL_TIMEOUTS = TimeoutsSpec()
LONGEST_CACHED_S = 365 * 86400.0
_SAME_ANSWER = frozenset(
    {
        *(
            "routes",
            "fallback",
            "aliases",
            "sticky",
            "balance",
            "retries",
            "timeouts",
            "queue",
            "hedge_after",
        ),
        *("limits", "records", "slo", "judges", "rollout", "moderation"),
    }
)
"""Settings of an endpoint that change no answer; a new one does until somebody says otherwise here.
Of routes and limits, the deployment and the bound of tokens are in each key by themselves."""


class Publishing:
    """
    Args:
        keys: The valid keys by id, from memory.
        first_revision: Above all revisions of earlier controllers, so that a
            worker's word for one of those is never taken for one of ours.
    """

    def __init__(
        self,
        publisher: Publisher,
        leases: SlotLeases,
        fleet: Fleet,
        *,
        keys: Callable[[], dict[str, KeyEntry]],
        teams: Callable[[], dict[str, TeamEntry]] = dict,
        prices: TokenPrices | None = None,
        epoch: str,
        first_revision: int,
    ) -> None:
        self._publisher = publisher
        self._leases = leases
        self._fleet = fleet
        self._keys = keys
        self._teams = teams
        self.secrets: Callable[[], Mapping[str, SealedSecret]] = dict
        """Those of providers by name, from memory."""
        self._prices = prices
        self.answer_ledger: AnswerLedger | None = None
        """Answers workers about their leases; and is told of those who leave."""
        self.left: Callable[[str], None] = lambda worker: None  # noqa: ARG005
        self._warnings: dict[str, str] = {}
        self.base = Snapshot(epoch=epoch, revision=first_revision)
        """What all workers know; each knows its own slots beside it."""
        self._was_settled = leases.is_settled
        self._shares: Callable[[str, Mapping[str, int]], Mapping[str, int]] = lambda _, declared: declared
        self._shadow: Callable[[str], Shadow | None] = lambda _: None

    def release_by(
        self,
        shares: Callable[[str, Mapping[str, int]], Mapping[str, int]],
        shadow: Callable[[str], Shadow | None],
    ) -> None:
        """
        Args:
            shares: From now on, `shares(endpoint, declared weights)` are the weights by deployment.
            shadow: And `shadow(endpoint)` says who answers copies of its requests.
        """
        self._shares, self._shadow = shares, shadow

    @property
    def revision(self) -> int:
        return self.base.revision

    async def serve(self) -> None:
        """Serve the workers until cancelled."""
        self._leases.open()
        await self._publisher.serve(
            view=self._view, on_report=self._hear, on_leave=self._leave, on_ask=self.answer_ledger
        )

    def call_roll(self, alive: Collection[int]) -> bool:
        """
        True when slots of engines that were found running are granted anew, which workers then hear.

        Args:
            alive: Processes of this home's workers: when all of them came back, nobody else is waited for.
        """
        is_settled = self._leases.settle(alive)
        self._change(self.base)
        return is_settled

    async def collect(self, *, timeout_s: float) -> Mapping[str, WorkerReport]:
        return await self._publisher.collect(timeout_s=timeout_s)

    def update(
        self, spec: Spec, status: SystemStatus, *, models: Mapping[str, ModelVersion], declared_at: float
    ) -> bool:
        """Take over a new state; True when it differs and all workers were told."""
        ready = [replica for replica in status.replicas if replica.state == "ready"]
        self._leases.keep_only(replica.name for replica in status.replicas)
        return self._change(
            replace(
                self.base,
                keys=self._keys(),
                teams=self._teams(),
                endpoints={
                    name: self._shared(
                        self._for_team(
                            endpoint_entry(name, spec, status, models=models, declared_at=declared_at), spec
                        )
                    )
                    for name in spec.endpoints
                },
                deployments={
                    name: _deployment(one, self._price(name, spec))
                    for name, one in status.deployments.items()
                },
                replicas=_by_deployment(self._with_secret(_entry(replica, spec)) for replica in ready),
            )
        )

    def _for_team(self, entry: EndpointEntry, spec: Spec) -> EndpointEntry:
        teams = teams_of(spec.endpoints[entry.name], spec, self.secrets())
        return replace(entry, team=min(teams)) if teams else entry

    def _with_secret(self, entry: ReplicaEntry) -> ReplicaEntry:
        return replace(entry, sealed=self.secrets().get(entry.secret)) if entry.secret else entry

    def _shared(self, entry: EndpointEntry) -> EndpointEntry:
        """With the weights or the shadow of a rollout, where one is under way."""
        if shadow := self._shadow(entry.name):
            return replace(entry, shadow=shadow)
        declared = {route.deployment: route.weight for route in entry.routes}
        shares = self._shares(entry.name, declared)
        return (
            entry
            if shares is declared
            else replace(entry, routes=tuple(Route(name, weight) for name, weight in shares.items()))
        )

    def keys_changed(self) -> None:
        """Tell all workers the keys and limits that are valid now; returns when that is under way."""
        self._change(replace(self.base, keys=self._keys(), teams=self._teams()))

    def secrets_changed(self) -> None:
        """Tell all workers the secrets that are set now."""
        replicas = {
            name: tuple(self._with_secret(entry) for entry in entries)
            for name, entries in self.base.replicas.items()
        }
        self._change(replace(self.base, replicas=replicas))

    def purged(self, purges: Mapping[str, int]) -> None:
        """Tell all workers which cached answers count no more."""
        self._change(replace(self.base, purges=dict(purges)))

    def warn(self, of: str, text: str) -> None:
        """Tell all workers, for their readiness, what is not well with a part of the control plane."""
        self._warnings[of] = text
        self._change(replace(self.base, warnings=tuple([one for one in self._warnings.values() if one])))

    def _price(self, name: str, spec: Spec) -> Price | None:
        declared = spec.deployments.get(name)
        if declared is None or self._prices is None:
            return None
        return self._prices.of(name, declared.provider_model or declared.model)

    def _change(self, base: Snapshot) -> bool:
        settled = self._leases.is_settled
        if base == self.base and settled == self._was_settled:
            return False
        self._was_settled = settled
        self.base = replace(base, revision=self.base.revision + 1)
        self._publisher.publish()
        return True

    def _view(self, hello: WorkerHello) -> Snapshot:
        self._fleet.enter(hello.worker)
        self._leases.enter(hello)
        return replace(
            self.base,
            replicas={
                deployment: tuple(self._with_slots(entry, hello.worker) for entry in entries)
                for deployment, entries in self.base.replicas.items()
            },
        )

    def _with_slots(self, entry: ReplicaEntry, worker: str) -> ReplicaEntry:
        """The worker's part of what the replica takes at once."""
        if entry.slots:
            return replace(entry, slots=self._leases.slots(worker, entry.name, len(entry.slots)))
        return replace(entry, max_inflight=self._leases.part(worker, entry.max_inflight))

    def _hear(self, report: WorkerReport) -> None:
        self._fleet.hear(report)
        if self._leases.hear(report):
            self._publisher.publish()

    def _leave(self, worker: str) -> None:
        self._fleet.leave(worker)
        self._leases.leave(worker)
        self.left(worker)
        self._publisher.publish()  # its slots go to those who wait for theirs


def _by_deployment(entries: Iterable[ReplicaEntry]) -> dict[str, tuple[ReplicaEntry, ...]]:
    grouped: dict[str, tuple[ReplicaEntry, ...]] = {}
    for entry in sorted(entries, key=lambda entry: entry.name):
        grouped[entry.deployment] = (*grouped.get(entry.deployment, ()), entry)
    return grouped


def _entry(replica: Replica, spec: Spec) -> ReplicaEntry:
    """All slots of the replica; a worker's view keeps those leased to it."""
    declared = spec.deployments.get(replica.deployment)
    entry = ReplicaEntry(
        name=replica.name,
        deployment=replica.deployment,
        engine=replica.engine,
        address=replica.address,
        model_digest=replica.model_digest,
        context_tokens=replica.context_tokens,
        slots=tuple(range(replica.slots)),
        options=replica.options,
        # Ours listens on this machine alone; an attached one is where its deployment says.
        token_file=replica.token_file,
        allow_private=bool(replica.pid),
    )
    if declared is None:  # drained away soon; the routes that led here are gone already
        return entry
    options = declared.common
    entry = replace(
        entry,
        model=declared.provider_model or declared.model,
        max_inflight=0 if replica.slots else options.max_inflight,
    )
    if not declared.is_attached:
        return entry
    return replace(entry, secret=options.secret, allow_private=options.allow_private_network)


def _deployment(status: DeploymentStatus, price: Price | None) -> DeploymentEntry:
    reason = f"{status.reason}: {status.message}" if status.message else status.reason
    is_asleep = status.reason == "scaled_to_zero"
    return DeploymentEntry(
        name=status.name,
        phase=status.phase,
        reason=reason,
        retry_after_s=2.0 if is_asleep else RETRY_AFTER_S.get(status.phase, 1.0),
        may_hold=status.may_wake and not status.ready and (is_asleep or status.phase == "starting"),
        price=price,
    )


_TASKS: dict[str, tuple[Task, ...]] = {
    "text": ("chat", "completion"),
    "embedding": ("embedding",),
    "tensors": ("tensors",),
}
"""By `engine_options.task`."""


def _tasks(models: list[ModelVersion], deployments: list[DeploymentSpec]) -> tuple[Task, ...]:
    """What the models do. Of one that is not here yet, or is somebody else's, nothing is ruled out."""
    said = {deployment.common.task for deployment in deployments}
    if len(said) == 1 and (task := said.pop()) in _TASKS:
        return _TASKS[task]
    if not models:
        return ("chat", "completion", "embedding")
    return ("embedding",) if all(model.header.pooling for model in models) else ("chat", "completion")


def endpoint_entry(
    name: str, spec: Spec, status: SystemStatus, *, models: Mapping[str, ModelVersion], declared_at: float
) -> EndpointEntry:
    declared = spec.endpoints[name]
    routes = tuple(Route(route.deployment, route.weight) for route in declared.routes)
    names = [*(route.deployment for route in routes), *declared.fallback]
    deployments = [spec.deployments[name] for name in names if name in spec.deployments]
    served = [models.get(deployment.model) for deployment in deployments]
    known = [model for model in served if model is not None]
    tasks = _tasks(known, deployments)
    return EndpointEntry(
        name=name,
        revision=status.revision,
        routes=routes,
        tasks=(*tasks, "moderation") if declared.moderation else tasks,
        max_tokens=declared.limits.max_tokens,
        timeout_s=_timeout_s(declared),
        records=declared.records.content,
        aliases=declared.aliases,
        fallback=declared.fallback,
        sticky=declared.sticky,
        balance=declared.balance,
        retries=declared.retries.max,
        retry_share=declared.retries.budget_percent / 100,
        hedge_after_s=parse_duration_s(declared.hedge_after, param="hedge_after") or 0.0,
        connect_timeout_s=_wait_s(declared.timeouts.connect, USUAL_TIMEOUTS.connect),
        first_byte_timeout_s=_wait_s(declared.timeouts.first_byte, USUAL_TIMEOUTS.first_byte),
        idle_timeout_s=_wait_s(declared.timeouts.idle, USUAL_TIMEOUTS.idle),
        queue_size=declared.queue.size,
        queue_per_team=declared.queue.per_team,
        queue_weights=declared.queue.weights,
        limits=limits_of(spec_words(declared.limits)),
        per_subject=limits_of(declared.limits.per_subject),
        created_at=int(min((model.created_at for model in known), default=declared_at)),
        cache=_cache(declared),
    )


def _wait_s(text: str, usual: str) -> float | None:
    """None where it is what an engine does by itself."""
    return None if text == usual else parse_duration_s(text, param="timeouts") or LONGEST_TIMEOUT_S


def _cache(declared: EndpointSpec) -> CachePolicy | None:
    if declared.cache.exact_ttl == "off":
        return None
    names = [name for name in declared.__struct_fields__ if name not in _SAME_ANSWER]
    rest = [(name, getattr(declared, name)) for name in names]
    exact_ttl_s = parse_duration_s(declared.cache.exact_ttl, param="cache.exact_ttl")
    return CachePolicy(
        exact_ttl_s=min(exact_ttl_s or LONGEST_CACHED_S, LONGEST_CACHED_S),
        always=declared.cache.when == "always",
        fingerprint=sha256(msgspec.json.encode(rest)).hexdigest(),
        semantic=_semantic(declared),
    )


def _semantic(declared: EndpointSpec) -> SemanticPolicy | None:
    semantic = declared.cache.semantic
    if semantic == "off":
        return None
    ttl_s = parse_duration_s(semantic.ttl, param="cache.semantic.ttl") or LONGEST_CACHED_S
    return SemanticPolicy(embedder=semantic.embedder, threshold=semantic.threshold, ttl_s=ttl_s)


def _timeout_s(declared: EndpointSpec) -> float:
    timeout_s = parse_duration_s(declared.limits.timeout, param="limits.timeout")
    return min(timeout_s or LONGEST_TIMEOUT_S, LONGEST_TIMEOUT_S)
