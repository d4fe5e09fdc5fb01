"""
Observing: what targets see and what probes found, joined into one value.

Targets know which processes live; probes know which of them answer. Nothing is
decided here.
"""

from collections.abc import Callable, Collection, Mapping

from msgspec.structs import replace

from pilothouse.control.fleet import Fleet
from pilothouse.control.probe import PACE, Pace, Probe
from pilothouse.control.retries import Retries
from pilothouse.control.world import World
from pilothouse.domain.errors import NotFound
from pilothouse.domain.model import ModelVersion
from pilothouse.domain.plan import Observed, replica_name
from pilothouse.domain.spec import DeploymentSpec, Spec
from pilothouse.domain.status import Replica, ReplicaState
from pilothouse.kit.tasks import Tasks
from pilothouse.ports.engine import Engine, EngineDriver

STABLE_AFTER_S = 60.0
"""Ready for so long, a replica is forgiven its earlier failures."""
SLOW_DISK_BYTES_PER_S = 20_000_000
"""A start may take so long for each byte of its model: a network disk on a bad day."""


class Observer:
    """
    Args:
        changed: Called when something may have to be planned anew.
    """

    def __init__(
        self,
        world: World,
        fleet: Fleet,
        *,
        retries: Retries,
        tasks: Tasks,
        changed: Callable[[], None],
        pace: Pace = PACE,
    ) -> None:
        self._world = world
        self._fleet = fleet
        self._retries = retries
        self._tasks = tasks
        self._changed = changed
        self._pace = pace
        self._probes: dict[str, Probe] = {}
        self._targets: dict[str, str] = {}
        self._draining: dict[str, float] = {}
        self._withdrawn: dict[str, int] = {}
        self._seen_dead: set[tuple[str, int, float]] = set()
        self._is_first = True

    @property
    def adopted(self) -> frozenset[str]:
        return frozenset(name for name, probe in self._probes.items() if probe.adopted)

    @property
    def undecided(self) -> frozenset[str]:
        """Adopted replicas that were neither found ready nor dead yet."""
        return frozenset(
            name
            for name, probe in self._probes.items()
            if probe.adopted and probe.ready_since is None and not probe.failure
        )

    def target_of(self, name: str) -> str:
        """
        Where it was last seen.

        Raises:
            NotFound: Nowhere.
        """
        if name not in self._targets:
            raise NotFound(f"there is no replica {name[:100]!r}; see: pilothouse get replicas")
        return self._targets[name]

    def drain(self, name: str) -> None:
        """Take it out of service; it is told so at the next round."""
        self._draining.setdefault(name, self._world.clock.monotonic())

    def serve(self, name: str) -> None:
        self._draining.pop(name, None)
        self._withdrawn.pop(name, None)

    def published(self, observed: Observed, revision: int) -> None:
        """Since that revision no snapshot holds what drains: once all workers follow it, nobody comes."""
        for name in observed.draining:
            self._withdrawn.setdefault(name, revision)

    def reconnect(self, deployments: Collection[str]) -> None:
        """Their probes present another secret from now on; nothing else about them changes."""
        for probe in self._probes.values():
            if probe.replica.deployment in deployments:
                probe.reconnect()
        self._changed()

    async def observe(
        self, spec: Spec, *, models: Mapping[str, ModelVersion], busy: frozenset[str]
    ) -> Observed:
        attached = _attached(spec, self._world.drivers)
        found = [_attached_replica(name, spec.deployments[name]) for name in sorted(attached)]
        self._targets = {}
        for target in self._world.targets.values():
            seen = await target.observe()
            self._targets |= dict.fromkeys((replica.name for replica in seen), target.name)
            found += seen
        sizes = {model.digest: model.bytes for model in models.values()}
        self._follow(found, spec, attached, sizes)
        now = self._world.clock.monotonic()
        self._retries.forget_old(now)
        return Observed(
            replicas=tuple(self._joined(replica, now, busy) for replica in found),
            models={name: model.digest for name, model in models.items()},
            attached=attached,
            draining=dict(self._draining),
            unused=frozenset(name for name in self._draining if self._is_unused(name)),
            busy=busy,
            retries=self._retries.all(),
        )

    def _follow(
        self, found: list[Replica], spec: Spec, attached: frozenset[str], sizes: Mapping[str, int]
    ) -> None:
        """One probe for each living process; a process is its name, its pid and its start together."""
        alive = {replica.name: replica for replica in found if replica.state == "starting"}
        for name, probe in list(self._probes.items()):
            if name not in alive or _identity(alive[name]) != _identity(probe.replica):
                self._tasks.cancel(_task(probe.replica))
                del self._probes[name]
        for name, replica in alive.items():
            if name not in self._probes and (driver := self._world.drivers.get(replica.engine)):
                known = spec.deployments.get(replica.deployment) if replica.deployment in attached else None
                self._probes[name] = probe = self._probe(
                    replica, driver, known, size_bytes=sizes.get(replica.model_digest, 0)
                )
                self._tasks.keep(_task(replica), probe.run)
        present = {replica.name for replica in found}
        for name in self._draining.keys() - present:
            self.serve(name)
        self._seen_dead &= {_identity(replica) for replica in found}
        self._is_first = False

    def _probe(
        self, replica: Replica, driver: EngineDriver, attached: DeploymentSpec | None, *, size_bytes: int
    ) -> Probe:
        options = attached.common if attached else None

        def connect() -> Engine:
            return driver.connect(
                replica.address,
                model=replica.model_version,
                context_tokens=replica.context_tokens,
                secret=self._world.secret(options.secret if options else "", replica),
                allow_private=options.allow_private_network if options else True,
                options=replica.options,
            )

        return Probe(
            replica,
            connect,
            clock=self._world.clock,
            adopted=self._is_first and attached is None,
            attached=attached is not None,
            is_quiet=lambda: self._fleet.inflight_at(replica.name) == 0,
            changed=self._changed,
            pace=replace(
                self._pace,
                ready_timeout_s=max(self._pace.ready_timeout_s, replica.ready_timeout_s)
                + size_bytes / SLOW_DISK_BYTES_PER_S,
            ),
        )

    def _joined(self, replica: Replica, now: float, busy: frozenset[str]) -> Replica:
        probe = self._probes.get(replica.name)
        if probe is None or probe.failure:
            reason = probe.failure if probe else replica.reason
            if replica.name not in busy:  # one that is being stopped dies as it should
                self._note_death(replica, reason, now)
            return replace(replica, state="failed", reason=reason)
        probe.is_draining = replica.name in self._draining
        if probe.ready_since is not None and now - probe.ready_since >= STABLE_AFTER_S:
            self._retries.succeeded(replica.name)
        state: ReplicaState = "ready" if probe.is_ready else "starting"
        return replace(
            replica,
            state="draining" if probe.is_draining else state,
            reason="" if probe.is_ready else probe.reason,
            load=probe.load,
        )

    def _note_death(self, replica: Replica, reason: str, now: float) -> None:
        """Each process dies once, however often it is seen lying there."""
        if _identity(replica) not in self._seen_dead:
            self._seen_dead.add(_identity(replica))
            retry = self._retries.failed(replica.name, now, reason)
            self._world.log.event(
                "replica_failed", "error", name=replica.name, reason=reason, failures=retry.failures
            )

    def _is_unused(self, name: str) -> bool:
        probe = self._probes.get(name)
        if probe is None or not probe.was_used:
            return True
        followed = name in self._withdrawn and self._fleet.follows(self._withdrawn[name])
        return followed and probe.is_unused


def _attached(spec: Spec, drivers: Mapping[str, EngineDriver]) -> frozenset[str]:
    return frozenset(
        name
        for name, deployment in spec.deployments.items()
        if deployment.engine in drivers and deployment.is_attached
    )


def _attached_replica(name: str, deployment: DeploymentSpec) -> Replica:
    """An engine that runs elsewhere: one replica, alive for as long as it is declared."""
    return Replica(
        name=replica_name(name, deployment, "", 0),
        deployment=name,
        model_digest="",
        state="starting",
        engine=deployment.engine,
        address=deployment.common.base_url,
        model_version=deployment.provider_model,
        context_tokens=deployment.common.context_tokens,
        options=deployment.engine_options,
    )


def _identity(replica: Replica) -> tuple[str, int, float]:
    return replica.name, replica.pid, replica.started_at


def _task(replica: Replica) -> str:
    return f"probe:{replica.name}:{replica.pid}:{replica.started_at}"
