"""
Who waits for a place of one deployment: bounded, by turns, and told when to come back.

Whose turn it is, `domain.fairness` decides.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pilothouse.domain.balance import Balance
from pilothouse.domain.errors import Overloaded, PilothouseError
from pilothouse.domain.fairness import FairQueue, Priority
from pilothouse.gateway.place import Place

LONGEST_RETRY_AFTER_S = 60.0
_USUAL_WEIGHT = 0.1
"""Of the newest request in the mean of how long places are held."""
_CHARGED = (-0.9, 9.0)
"""Turns that one request may be charged beyond its own: a single long one must not end a tenant's service."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How an endpoint's requests are placed, from the snapshot."""

    balance: Balance = "least_load"
    queue_size: int = 64
    per_team: int = 0
    """Requests of one team that may wait; 0 is as many as the queue holds."""
    weights: dict[str, float] = field(default_factory=dict)
    """Shares of teams when places are short; 1 where absent."""


class Waiter:
    """Who waits, on which terms, and what it is told through."""

    __slots__ = ("given", "prefix", "team", "terms", "weight")

    def __init__(self, team: str, terms: Terms, prefix: int) -> None:
        self.team = team
        self.terms = terms
        self.prefix = prefix
        self.weight = terms.weights.get(team, 1.0)
        self.given: asyncio.Future[Place] = asyncio.get_running_loop().create_future()

    def refuse(self, error: PilothouseError) -> None:
        if not self.given.done():
            self.given.set_exception(error)


class Waiting:
    """The queue of one deployment."""

    def __init__(self, deployment: str) -> None:
        self._deployment = deployment
        self.queue: FairQueue[Waiter] = FairQueue()
        self._usual_s = 0.0
        """How long a place is held, in the mean, by those who had to wait for it."""
        self._busy_since = 0.0
        self._served = 0

    def enter(self, waiter: Waiter, priority: Priority) -> None:
        """
        Raises:
            Overloaded: No room, for this team or for anybody with as many waiting.
        """
        terms, team, queue = waiter.terms, waiter.team, self.queue
        if terms.per_team and queue.waiting(team) >= terms.per_team:
            raise self._full(f"{terms.per_team} requests of this team wait already")
        if queue.size >= terms.queue_size:
            other = queue.yield_to(team, priority, weight=waiter.weight)
            if other is None:
                raise self._full(f"{queue.size} requests wait")
            other.refuse(self._full("others had fewer requests waiting"))
        if not queue.size:
            self._busy_since, self._served = time.monotonic(), 0
        queue.push(team, waiter, priority=priority, weight=waiter.weight)

    def serve(self, waiter: Waiter, place: Place) -> None:
        place.since, place.weight = time.monotonic(), waiter.weight
        self._served += 1
        waiter.given.set_result(place)

    def charge(self, place: Place) -> None:
        """A place comes back: what it took beyond the usual is its team's to pay."""
        if not place.since:
            return
        held_s = time.monotonic() - place.since
        self._usual_s += (held_s - self._usual_s) * (_USUAL_WEIGHT if self._usual_s else 1.0)
        if self._usual_s > 0:
            beyond = min(max(held_s / self._usual_s - 1.0, _CHARGED[0]), _CHARGED[1])
            self.queue.charge(place.team, beyond, weight=place.weight)

    def refuse(self, why: Callable[[], PilothouseError], team: str | None = None) -> None:
        """Tell those of one team, or all, that there is nothing to wait for."""
        for waiter in self.queue.drain(team):
            waiter.refuse(why())

    def retry_after_s(self) -> float:
        """How long the queue takes to empty, at the pace of late; a guess while nobody was served."""
        waited_s = time.monotonic() - self._busy_since
        expected_s = self.queue.size * waited_s / self._served if self._served else waited_s
        return min(max(1.0, expected_s), LONGEST_RETRY_AFTER_S)

    def _full(self, why: str) -> Overloaded:
        return Overloaded(
            f"all places of deployment {self._deployment} are taken and {why}; try again later",
            retry_after_s=self.retry_after_s(),
        )
