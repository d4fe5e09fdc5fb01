"""
A place in an engine for each request, or a bounded wait for one.

Engines with slots are told which to use. A slot's prefix cache may hold the
prompt of whoever used it last, so it is reused only for the same team: that is
how no prefix cache crosses tenants. A slot is held by one worker alone (leases).
"""

import asyncio
from collections import deque

from msgspec.structs import replace

from pilothouse.domain.errors import DeadlineExceeded, EngineUnavailable, Overloaded
from pilothouse.domain.snapshot import DeploymentEntry, ReplicaEntry
from pilothouse.ports.engine import Engine, Placement


class Place:
    """A place that is held. Give it back with `Places.release`."""

    __slots__ = ("engine", "is_used", "placement", "replica", "team")

    def __init__(self, replica: "ReplicaPlaces", engine: Engine, placement: Placement, team: str) -> None:
        self.replica = replica
        self.engine = engine
        self.placement = placement
        self.team = team
        self.is_used = False
        """The engine answered here: before that, the slot may still hold the prompt of another team."""


class ReplicaPlaces:
    """The free places of one replica."""

    __slots__ = ("_held", "_is_leaving", "_owners", "engine", "entry", "free_slots", "inflight")

    def __init__(self, entry: ReplicaEntry, engine: Engine) -> None:
        self.entry = entry
        self.engine = engine
        self.free_slots = list(entry.slots)
        self._held: set[int] = set()
        self._owners: dict[int, str] = {}
        """Whose prompt a free slot holds, where that is certain."""
        self.inflight = 0
        self._is_leaving = False

    @property
    def free(self) -> int:
        return len(self.free_slots) if self.engine.info.slots else self.entry.max_inflight - self.inflight

    def take(self, team: str) -> Place:
        """Take a place; there must be a free one. The least recently used slot of another team goes first."""
        self.inflight += 1
        if not self.engine.info.slots:
            return Place(self, self.engine, _ANYWHERE, team)
        owners = self._owners
        at = 0
        for i, slot in enumerate(self.free_slots):
            if owners.get(slot) == team:
                at = i
                break
        slot = self.free_slots.pop(at)
        reuse = owners.pop(slot, None) == team
        self._held.add(slot)
        return Place(self, self.engine, Placement(slot, reuse), team)

    def give_back(self, place: Place) -> None:
        self.inflight -= 1
        slot = place.placement.slot
        if slot is not None:
            self._held.discard(slot)
            if slot in self.entry.slots:
                self.free_slots.append(slot)
                if place.is_used:
                    self._owners[slot] = place.team

    def change(self, entry: ReplicaEntry) -> None:
        """Take over new leases; slots in use come back through `give_back`."""
        if self._is_leaving:  # what was given up may be another's by now
            entry = replace(entry, slots=tuple(s for s in entry.slots if s in self.entry.slots))
        self.entry = entry
        # A slot that was leased away may hold anyone's prompt when it returns.
        self._owners = {slot: team for slot, team in self._owners.items() if slot in entry.slots}
        known = [slot for slot in self.free_slots if slot in entry.slots]
        self.free_slots = known + [s for s in entry.slots if s not in known and s not in self._held]

    def give_up_free(self) -> None:
        """Never use again what is free now: a successor may. From now on leases only become fewer."""
        self._is_leaving = True
        if self.engine.info.slots:
            free = self.free_slots
            self.entry = replace(self.entry, slots=tuple(s for s in self.entry.slots if s not in free))
            self.free_slots = []


_ANYWHERE = Placement()


class Places:
    """The places of one deployment, over all its replicas, and the queue for them."""

    def __init__(self, deployment: str) -> None:
        self.deployment = deployment
        self.entry = DeploymentEntry(name=deployment, phase="pending")
        self.replicas: dict[str, ReplicaPlaces] = {}
        self._waiters: deque[tuple[str, asyncio.Future[Place]]] = deque()

    @property
    def inflight(self) -> int:
        return sum(replica.inflight for replica in self.replicas.values())

    @property
    def queued(self) -> int:
        return len(self._waiters)

    def try_take(self, team: str) -> Place | None:
        """A place on the least loaded replica, unless others wait already."""
        if self._waiters:
            return None
        return self._take(team)

    def _take(self, team: str) -> Place | None:
        best: ReplicaPlaces | None = None
        for replica in self.replicas.values():
            if replica.free > 0 and (best is None or replica.inflight < best.inflight):
                best = replica
        return None if best is None else best.take(team)

    async def take(self, team: str, *, timeout_s: float) -> Place:
        """
        Wait for a place, in the order of asking.

        Raises:
            EngineUnavailable: No replica is ready.
            Overloaded: The queue is full.
            DeadlineExceeded: No place came in time.
        """
        place = self.try_take(team)
        if place is not None:
            return place
        if not self.replicas:
            reason = self.entry.reason or f"it is {self.entry.phase}"
            raise EngineUnavailable(
                f"deployment {self.deployment} has no ready replica: {reason}",
                retry_after_s=self.entry.retry_after_s,
            )
        limit = max(replica.entry.max_queue for replica in self.replicas.values())
        if len(self._waiters) >= limit:
            raise Overloaded(
                f"all places of deployment {self.deployment} are taken and {limit} requests wait; try again",
                retry_after_s=1.0,
            )
        waiter: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        self._waiters.append((team, waiter))
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter
        except TimeoutError as exc:
            self._leave(team, waiter)
            raise DeadlineExceeded(
                f"no place in deployment {self.deployment} came free in {timeout_s:.0f} s"
            ) from exc
        except asyncio.CancelledError:
            self._leave(team, waiter)
            raise

    def _leave(self, team: str, waiter: asyncio.Future[Place]) -> None:
        """Stop waiting; a place that was given in the same moment goes to the next."""
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            self.release(waiter.result())
            return
        try:
            self._waiters.remove((team, waiter))
        except ValueError:
            pass

    def give_up_free(self) -> None:
        """As `ReplicaPlaces.give_up_free`, once nobody waits here for a place."""
        self._serve_waiters()
        if not self._waiters:
            for replica in self.replicas.values():
                replica.give_up_free()

    def release(self, place: Place) -> None:
        place.replica.give_back(place)
        self._serve_waiters()

    def _serve_waiters(self) -> None:
        while self._waiters:
            team, waiter = self._waiters[0]
            if waiter.done():
                self._waiters.popleft()
                continue
            place = self._take(team)
            if place is None:
                return
            self._waiters.popleft()
            waiter.set_result(place)

    def change(self, entry: DeploymentEntry, replicas: dict[str, ReplicaPlaces]) -> None:
        """Take over what a new snapshot says. With no replica left, those who wait are told so."""
        self.entry = entry
        self.replicas = replicas
        if replicas:
            self._serve_waiters()
            return
        waiters, self._waiters = self._waiters, deque()
        for _, waiter in waiters:
            if not waiter.done():
                waiter.set_exception(
                    EngineUnavailable(
                        f"deployment {self.deployment} has no ready replica any more: {entry.reason}",
                        retry_after_s=entry.retry_after_s,
                    )
                )
