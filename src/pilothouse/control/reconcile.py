"""
The control loop: make what was declared so, and keep it so.

observe -> plan (pure) -> act -> status -> publish, every second and at every
change. Nothing is remembered between rounds but what is observed, so a crash
anywhere is repaired by the next round. Nothing slow is waited for in the loop.
"""

import asyncio
from collections.abc import Iterable
from random import Random

from msgspec.structs import replace

from pilothouse.control.act import Actor
from pilothouse.control.autoscale import Autoscaler
from pilothouse.control.fleet import Fleet
from pilothouse.control.lease import SlotLeases
from pilothouse.control.observe import Observer
from pilothouse.control.probe import PACE, Pace
from pilothouse.control.publish import Publishing
from pilothouse.control.retries import Retries
from pilothouse.control.stock import Stock
from pilothouse.control.world import World
from pilothouse.domain.events import planned, transitions
from pilothouse.domain.model import ModelVersion
from pilothouse.domain.phase import system_status
from pilothouse.domain.plan import (
    Action,
    DrainReplica,
    Observed,
    Policy,
    PullModel,
    ServeReplica,
    StartReplica,
    StopReplica,
    plan,
)
from pilothouse.domain.spec import Spec
from pilothouse.domain.status import SystemStatus
from pilothouse.kit.beat import beat_or
from pilothouse.kit.tasks import Tasks
from pilothouse.ports.store import StoredSpec

TICK_S = 1.0
HURRIED_TICK_S = 0.02
"""The least pause between two rounds: a storm of changes costs no more than that."""
NOTHING = Spec()


class Reconciler:
    """`declare` what shall be, then `run`."""

    def __init__(
        self, world: World, fleet: Fleet, publishing: Publishing, leases: SlotLeases, *, pace: Pace = PACE
    ) -> None:
        self.status = SystemStatus()
        self._world = world
        self._publishing = publishing
        self._leases = leases
        self._declared = StoredSpec(revision=0, spec=NOTHING, author="", time=0.0)
        self.stock = Stock()
        self._wake = asyncio.Event()
        self._is_ending = False
        self._probes = Tasks(lambda name, error: world.log.failure("probe_failed", error, probe=name))
        retries = Retries(Random())  # noqa: S311 - jitter, no secret
        self.observer = Observer(
            world, fleet, retries=retries, tasks=self._probes, changed=self.wake, pace=pace
        )
        self.autoscaler = Autoscaler(fleet, clock=world.clock, log=world.log, happened=world.happened)
        fleet.heard = self._hear_of_waiting
        self._actor = Actor(world, self.stock, retries=retries, ended=self.wake)
        self._policy = Policy()

    @property
    def declared(self) -> StoredSpec:
        return self._declared

    @property
    def models(self) -> dict[str, ModelVersion]:
        """Models that are here, by the words that the spec means them with."""
        return self.stock.of(self._declared.spec)

    def declare(self, stored: StoredSpec) -> None:
        """From now on this shall be."""
        self._declared = stored
        self.wake()

    def have_models(self, models: Iterable[ModelVersion]) -> None:
        """These are here: a pull by hand, or what the store knew at the start."""
        self.stock.add(models)
        self.wake()

    def wake(self) -> None:
        """Something changed: look now."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.round()
            await self._pause()

    async def round(self) -> None:
        """One time through the loop."""
        spec = NOTHING if self._is_ending else self._declared.spec
        observed = await self._observe(spec)
        self._tell(observed)
        for action in plan(spec, observed, self._world.clock.monotonic(), policy=self._policy):
            self._act(action, spec)

    async def acted(self, *, timeout_s: float) -> None:
        """Wait until what was begun is done, as far as there is time."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._actor.busy:  # noqa: ASYNC110 - at the start only, for a moment
                    await asyncio.sleep(HURRIED_TICK_S / 2)
        except TimeoutError:
            pass

    async def settle(self, *, timeout_s: float) -> None:
        """Wait until each replica that was found running is known to be ready, dead or still starting up."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.observer.undecided:
                    await asyncio.sleep(HURRIED_TICK_S)
                    await self.round()
        except TimeoutError:
            self._world.log.event("adoption_slow", "warning", replicas=sorted(self.observer.undecided))

    async def stop_all(self, *, drain_s: float, timeout_s: float) -> None:
        """Drain and stop every replica, whatever is declared; the endpoints stay known meanwhile."""
        self._is_ending = True
        self._policy = Policy(drain_grace_s=drain_s, replica_actions=1000)
        try:
            async with asyncio.timeout(timeout_s):
                await self.round()
                while self.status.replicas or self._actor.busy:
                    await self._pause()
                    await self.round()
        except TimeoutError:
            left = [replica.name for replica in self.status.replicas]
            self._world.log.event("replicas_left", "error", replicas=left)

    async def aclose(self) -> None:
        """Let go of everything; replicas go on running."""
        await self._actor.aclose(timeout_s=2.0)
        await self._probes.aclose(timeout_s=2.0)

    async def _observe(self, spec: Spec) -> Observed:
        observed = await self.observer.observe(spec, models=self.models, busy=self._actor.busy)
        self._leases.adopt(self.observer.adopted)
        self._actor.settle(replica.name for replica in observed.replicas if replica.state == "starting")
        return replace(observed, desired=self.autoscaler.follow(spec, observed))

    def _hear_of_waiting(self) -> None:
        """Requests that are held for a deployment which sleeps wait for no tick."""
        if self.autoscaler.asleep:
            self.wake()

    def _act(self, action: Action, spec: Spec) -> None:
        match action:
            case StartReplica(deployment=name):
                deployment = spec.deployments[name]
                self._actor.start(action, deployment, self.models[deployment.model])
            case StopReplica(name=name, reason=reason):
                why = "shutdown" if self._is_ending else reason
                self._actor.stop(StopReplica(name, why), self.observer.target_of(name))
            case DrainReplica(name=name):
                self.observer.drain(name)
            case ServeReplica(name=name):
                self.observer.serve(name)
            case PullModel(name=name):
                self._actor.pull(action, spec.models[name])
        for occurrence in planned(action):
            self._world.happened(occurrence)
        self.wake()  # what just began is part of the status

    def _tell(self, observed: Observed) -> None:
        declared, before = self._declared, self.status
        status = system_status(
            declared.spec, observed, revision=declared.revision, progress=self._actor.progress
        )
        self.status = self.autoscaler.explained(status)
        for occurrence in transitions(before, self.status):
            self._world.happened(occurrence)
        self._publishing.update(declared.spec, self.status, models=self.models, declared_at=declared.time)
        self.observer.published(observed, self._publishing.revision)

    async def _pause(self) -> None:
        """Until the next tick, or until something changed."""
        await beat_or(self._wake, TICK_S, least_s=HURRIED_TICK_S)
