"""
A place in an engine for each request, or a bounded wait for one.

Who waits is served by turns of the tenants (`domain.fairness`). Where a request
goes is decided by `domain.routing`, and which replicas are left alone by
`domain.breaker`; here is what they decide about.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from random import Random
from typing import Final

from pilothouse.domain.breaker import after_failure, after_success, probed
from pilothouse.domain.errors import DeadlineExceeded, EngineUnavailable
from pilothouse.domain.fairness import Priority
from pilothouse.domain.routing import least_load, prefix_affinity, round_robin
from pilothouse.domain.snapshot import DeploymentEntry
from pilothouse.gateway.place import Place, ReplicaPlaces
from pilothouse.gateway.waiting import Terms, Waiter, Waiting

_USUAL_TERMS: Final = Terms()
_CHANCE = Random().random  # noqa: S311 - a choice, no secret
_NOBODY: Final[frozenset[ReplicaPlaces]] = frozenset()


class Places:
    """
    The places of one deployment, over all its replicas, and the queue for them.

    Args:
        on_held: Told when a request begins to wait for a deployment that sleeps: somebody must wake it.
        on_ejected: Told the name of a replica that is left alone from now on.
        draw: Gives a number, 0..1 (1 excluded), even.
    """

    def __init__(
        self,
        deployment: str,
        *,
        on_held: Callable[[], None] = lambda: None,
        on_ejected: Callable[[str], None] = lambda _: None,
        draw: Callable[[], float] = _CHANCE,
    ) -> None:
        self.deployment = deployment
        self.entry = DeploymentEntry(name=deployment, phase="pending")
        self.replicas: dict[str, ReplicaPlaces] = {}
        self._on_held = on_held
        self._on_ejected = on_ejected
        self._well: tuple[ReplicaPlaces, ...] = ()
        self.sick: tuple[ReplicaPlaces, ...] = ()
        """Replicas that are ejected, for one team at least."""
        self._waiting = Waiting(deployment)
        self._queue = self._waiting.queue
        self._draw = draw
        self._turn = 0
        self.guests: set[asyncio.Task[None]] = set()
        """Who holds a place here only as long as nobody waits for one: they are cancelled then."""

    @property
    def inflight(self) -> int:
        return sum(replica.inflight for replica in self.replicas.values())

    @property
    def queued(self) -> int:
        return self._queue.size

    def is_open_to(self, team: str) -> bool:
        """Whether a replica may be asked by that team now, be it busy."""
        if self._well:
            return True
        now = time.monotonic()
        return any(replica.health.admits(team, now) for replica in self.sick)

    @property
    def may_hold(self) -> bool:
        """Whether requests may wait although nobody is there to answer: it sleeps, or is waking."""
        return self.entry.may_hold and not self.replicas

    def refusal(self) -> EngineUnavailable:
        """Why nobody can be asked."""
        if self.replicas:
            due = min((replica.health.until for replica in self.sick), default=0.0)
            return EngineUnavailable(
                f"every replica of deployment {self.deployment} failed lately and is left alone for a while",
                retry_after_s=max(1.0, due - time.monotonic()),
            )
        reason = self.entry.reason or f"it is {self.entry.phase}"
        return EngineUnavailable(
            f"deployment {self.deployment} has no ready replica: {reason}",
            retry_after_s=self.entry.retry_after_s,
        )

    # Taking a place

    def try_take(
        self,
        team: str,
        terms: Terms = _USUAL_TERMS,
        prefix: int = 0,
        avoid: Collection[ReplicaPlaces] = _NOBODY,
    ) -> Place | None:
        """A place on a replica that is not to be avoided, unless others wait already."""
        if self._queue.size:
            return None
        return self._take(team, terms, prefix, avoid)

    def _take(
        self, team: str, terms: Terms, prefix: int, avoid: Collection[ReplicaPlaces] = _NOBODY
    ) -> Place | None:
        replicas = self._well
        if self.sick:
            replicas = self._admitted(team, avoid)
        if avoid:
            replicas = tuple(replica for replica in replicas if replica not in avoid)
        if terms.balance == "least_load":
            chosen = least_load(replicas, self._draw())
        elif terms.balance == "prefix_affinity" and prefix:
            chosen = prefix_affinity(replicas, prefix)
        else:
            self._turn += 1
            chosen = round_robin(replicas, self._turn)
        return None if chosen is None else chosen.take(team, prefix)

    def _admitted(self, team: str, avoid: Collection[ReplicaPlaces]) -> tuple[ReplicaPlaces, ...]:
        """The well ones and those ejected for others only; or the one that is due to be tried."""
        now = time.monotonic()
        others = []
        for replica in self.sick:
            if replica.free <= 0 or replica in avoid or not replica.health.admits(team, now):
                continue
            if replica.health.keeps_out(team):
                replica.health = probed(replica.health, now)
                return (replica,)
            others.append(replica)
        return (*self._well, *others)

    async def take(
        self,
        team: str,
        terms: Terms = _USUAL_TERMS,
        *,
        timeout_s: float,
        prefix: int = 0,
        priority: Priority = "normal",
    ) -> Place:
        """
        Wait for a place, by turns with the other teams.

        Raises:
            EngineUnavailable: No replica is ready, and none may be waited for.
            Overloaded: The queue is full.
            DeadlineExceeded: No place came in time.
        """
        place = self.try_take(team, terms, prefix)
        if place is not None:
            return place
        if not (self.is_open_to(team) or self.may_hold):
            raise self.refusal()
        waiter = Waiter(team, terms, prefix)
        self._waiting.enter(waiter, priority)
        for guest in self.guests:
            guest.cancel()
        if not self.replicas:
            self._on_held()
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter.given
        except TimeoutError as exc:
            self._leave(waiter)
            if not self.replicas:
                raise self.refusal() from exc
            raise DeadlineExceeded(
                f"no place in deployment {self.deployment} came free in {timeout_s:.0f} s"
            ) from exc
        except asyncio.CancelledError:
            self._leave(waiter)
            raise

    def _leave(self, waiter: Waiter) -> None:
        """Stop waiting; a place that was given in the same moment goes to the next."""
        given = waiter.given
        if given.done() and not given.cancelled() and given.exception() is None:
            self.release(given.result())
            return
        self._queue.remove(waiter.team, waiter)

    # Giving it back

    def give_up_free(self) -> None:
        """As `ReplicaPlaces.give_up_free`, once nobody waits here for a place."""
        self._serve_waiters()
        if not self._queue.size:
            for replica in self.replicas.values():
                replica.give_up_free()

    def release(self, place: Place) -> None:
        place.replica.give_back(place)
        if self._queue.size:
            self._waiting.charge(place)
            self._serve_waiters()

    def _serve_waiters(self) -> None:
        while self._queue.size:
            waiter = self._next()
            if waiter is None:
                return
            if waiter.given.done():
                continue
            place = self._take(waiter.team, waiter.terms, waiter.prefix)
            if place is None:
                raise RuntimeError("a place was there a moment ago")
            self._waiting.serve(waiter, place)

    def _next(self) -> Waiter | None:
        """The next one that there is a place for."""
        for replica in self._well:
            if replica.free > 0:
                return self._queue.pop()
        if not self.sick:
            return None
        now = time.monotonic()
        free = [replica for replica in self.sick if replica.free > 0]
        return self._queue.pop(lambda team: any(replica.health.admits(team, now) for replica in free))

    # What becomes of replicas

    def succeeded(self, place: Place) -> None:
        """A request was answered there. Call it where `health` is not HEALTHY."""
        replica = place.replica
        replica.health = after_success(replica.health, place.team)
        if replica in self.sick and not replica.health.is_ejected:
            self._sort()
            self._serve_waiters()

    def failed(self, place: Place) -> None:
        """A request failed there, and not by its caller's fault."""
        replica, was = place.replica, place.replica.health
        replica.health = after_failure(was, place.team, time.monotonic())
        if not replica.health.is_ejected or self.replicas.get(replica.entry.name) is not replica:
            return
        if not was.is_ejected:
            self._on_ejected(replica.entry.name)
        self._sort()
        if not self._well:
            for team in self._queue.tenants():
                if not self.is_open_to(team):
                    self._waiting.refuse(self.refusal, team)

    def _sort(self) -> None:
        replicas = self.replicas.values()
        self._well = tuple(replica for replica in replicas if not replica.health.is_ejected)
        self.sick = tuple(replica for replica in replicas if replica.health.is_ejected)

    def change(self, entry: DeploymentEntry, replicas: dict[str, ReplicaPlaces]) -> None:
        """Take over what a new snapshot says. With nothing left to wait for, those who wait are told so."""
        self.entry = entry
        self.replicas = replicas
        self._sort()
        if replicas:
            self._serve_waiters()
        elif not entry.may_hold:
            self._waiting.refuse(self.refusal)
