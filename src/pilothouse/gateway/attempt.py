"""
Have a request answered: here, else there, else later.

The usual request takes a place and is handed over, and nothing here costs it
more. One that fails before anything of an answer came may be tried again: on
another replica, then on the next deployment, and only where nothing else is
left on the same one, after a pause. How often is bounded by the endpoint, by
its budget of retries, and by the request's time; each deployment may be asked
once whatever the budget says, for that is no more work for the one that failed.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from pilothouse.domain.breaker import HEALTHY, is_answer, is_fault, may_retry
from pilothouse.domain.chat import EmbedRequest
from pilothouse.domain.errors import EngineUnavailable, InvalidRequest, Overloaded, PilothouseError
from pilothouse.domain.fairness import Priority
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.routing import prefix_of
from pilothouse.domain.tensors import InferRequest
from pilothouse.domain.used_tokens import Usage
from pilothouse.gateway import deliver
from pilothouse.gateway.call import Call
from pilothouse.gateway.choose import choose
from pilothouse.gateway.keep import Keeper
from pilothouse.gateway.meter import Meters
from pilothouse.gateway.permit import Places
from pilothouse.gateway.place import Place, ReplicaPlaces
from pilothouse.gateway.recall import Recall
from pilothouse.gateway.route import EndpointRoutes

LEAST_S = 0.02
"""Less time than this is no time to try anything."""
LEAST_AGAIN_S = 0.5
"""Nor this, where there is only the same replica to try, after a pause."""
PAUSE_S = 0.1
"""Before the same replica is asked again; each further time doubles it."""
ONE_DEPLOYMENT = 2
"""Failures after which another deployment is preferred."""

_HEALTHY: Final = HEALTHY
_monotonic: Final = time.monotonic


class Attempts:
    """
    Args:
        draw: Gives a number, 0..1 (1 excluded), even.
    """

    def __init__(self, keeper: Keeper, meters: Meters, draw: Callable[[], float], recall: Recall) -> None:
        self._recall = recall
        self._keeper = keeper
        self._meters = meters
        self._draw = draw

    async def answer(self, call: Call) -> None:
        """
        Raises:
            PilothouseError: The last attempt's.
        """
        routes, principal, priority = call.routes, call.principal, call.priority
        if routes is None or principal is None:
            raise TypeError("a call came here that was not admitted")
        team, deadline = principal.team, _monotonic() + routes.timeout_s
        routes.note_request(team)
        text, places = call.text, routes.only
        order = (places,) if places is not None else choose(routes, call, self._draw)
        places = order[0]
        if routes.cache is not None and text is not None:
            call.deployment = places.deployment
            known = self._recall.answers(call, text, deadline)
            if known is not None and await known:
                return
        prefix = 0
        if routes.by_prefix and text is not None:
            prefix = prefix_of(bytes(text.prompt), team)
        place = places.try_take(team, routes.terms, prefix)
        tried: _Tried | None = None
        while True:
            if place is None:
                tried = tried or _Tried(order, routes, team=team, prefix=prefix, priority=priority)
                places, place = await self._find(call, tried, deadline)
            call.deployment = places.deployment
            call.replica = place.replica.name
            try:
                await self._hand_over(call, place, places, deadline)
                if place.replica.health is not _HEALTHY:
                    places.succeeded(place)
                return
            except PilothouseError as exc:
                _note(exc, places, place, left_s=deadline - time.monotonic())
                tried = tried or _Tried(order, routes, team=team, prefix=prefix, priority=priority)
                tried.note(places, place.replica)
                if not self._may_go_on(exc, call, tried, deadline):
                    raise
            finally:
                places.release(place)
                if call.asked_twice:
                    self._count_hedge(call)
            _forget(call)
            self._meters.retried.labels(routes.entry.name, places.deployment).inc()
            place = None

    def _hand_over(
        self, call: Call, place: Place, places: Places, deadline: float
    ) -> Coroutine[Any, Any, None]:
        left_s = max(0.001, deadline - _monotonic())
        text, ask = call.text, call.ask
        if text is not None:
            if text.needs:
                _check_abilities(text, place)
            if text.stream:
                return deliver.stream(call, text, place, places, self._keeper, deadline_s=left_s)
            return deliver.whole(call, text, place, places, self._keeper, deadline_s=left_s)
        if isinstance(ask, EmbedRequest):
            return deliver.embed(call, ask, place, self._keeper, deadline_s=left_s)
        if isinstance(ask, InferRequest):
            return deliver.infer(call, ask, place, self._keeper, deadline_s=left_s)
        raise TypeError("a call that asks for nothing was admitted")

    def _count_hedge(self, call: Call) -> None:
        name = call.routes.name if call.routes else ""
        outcome = "won" if call.second_won else "lost"
        self._meters.hedges.labels(name, call.deployment, outcome).inc()

    def _may_go_on(self, error: PilothouseError, call: Call, tried: "_Tried", deadline: float) -> bool:
        if call.responder.is_started or not tried.routes.entry.retries:
            return False
        left_s = deadline - time.monotonic() - (LEAST_S if tried.has_choice else LEAST_AGAIN_S)
        return may_retry(error, left_s=left_s) and tried.take()

    async def _find(self, call: Call, tried: "_Tried", deadline: float) -> tuple[Places, Place]:
        """Another place now, else a wait for one. What it takes is not our overhead."""
        asked_ns = time.perf_counter_ns()
        try:
            if tried.count:
                if found := tried.untried():
                    return found
                pause_s = PAUSE_S * 2 ** (tried.count - 1) * (0.5 + self._draw())
                await asyncio.sleep(min(pause_s, max(0.0, deadline - time.monotonic() - LEAST_S)))
            return await tried.wait(deadline)
        finally:
            call.engine_ns += time.perf_counter_ns() - asked_ns


class _Tried:
    """Where a request may go and where it has been; made when the first place was not there or failed."""

    def __init__(
        self,
        order: tuple[Places, ...],
        routes: EndpointRoutes,
        *,
        team: str,
        prefix: int,
        priority: Priority,
    ) -> None:
        self.routes = routes
        self.team = team
        self.count = 0
        """Attempts that failed."""
        self._prefix = prefix
        self._priority = priority
        self._failures = dict.fromkeys(order, 0)
        self._replicas: set[ReplicaPlaces] = set()
        self._is_spent = False
        """Only deployments that were not asked yet are left: those are no more work for who failed."""

    @property
    def has_choice(self) -> bool:
        """Whether there was ever another replica to ask."""
        return len(self._failures) > 1 or any(len(places.replicas) > 1 for places in self._failures)

    def note(self, places: Places, replica: ReplicaPlaces) -> None:
        self.count += 1
        self._failures[places] += 1
        self._replicas.add(replica)

    def take(self) -> bool:
        """Whether there may be another attempt: a retry from the budget, else only on another deployment."""
        if self.count <= self.routes.entry.retries and self.routes.take_retry(self.team):
            return True
        self._is_spent = True
        return any(places.is_open_to(self.team) for places in self._left())

    def _left(self) -> list[Places]:
        return [places for places, failures in self._failures.items() if not (self._is_spent and failures)]

    def untried(self) -> tuple[Places, Place] | None:
        """A place that is free now on a replica that was not asked yet."""
        team, terms = self.team, self.routes.terms
        # Stable: in the declared order, but for those that failed often enough.
        for places in sorted(self._left(), key=lambda places: self._failures[places] >= ONE_DEPLOYMENT):
            place = places.try_take(team, terms, self._prefix, self._replicas)
            if place is not None:
                return places, place
        return None

    async def wait(self, deadline: float) -> tuple[Places, Place]:
        """
        Wait where somebody answers now, else where somebody will.

        Raises:
            PilothouseError: Nowhere; it is the first deployment's word.
        """
        refusal: PilothouseError | None = None
        order = sorted(self._left(), key=lambda places: self._failures[places])
        try:
            for places in order:
                if places.is_open_to(self.team):
                    try:
                        return places, await self._wait_at(places, deadline)
                    except (Overloaded, EngineUnavailable) as exc:
                        refusal = refusal or exc
            for places in order:
                if places.may_hold:
                    return places, await self._wait_at(places, deadline)
            raise refusal or order[0].refusal()
        finally:
            del refusal  # an error holds frames, and must not be held by one of them

    def _wait_at(self, places: Places, deadline: float) -> Coroutine[Any, Any, Place]:
        return places.take(
            self.team,
            self.routes.terms,
            timeout_s=max(0.001, deadline - time.monotonic()),
            prefix=self._prefix,
            priority=self._priority,
        )


def _check_abilities(ask: GenerateRequest, place: Place) -> None:
    """
    Raises:
        InvalidRequest: The request holds what this engine's model cannot take.
    """
    missing = sorted(ask.needs - place.engine.info.can)
    if missing:
        name = place.replica.entry.deployment
        for field in ("tools", "logit_bias", "echo"):
            if field in missing:
                raise InvalidRequest(f"deployment {name} takes no {field}; leave it out", param=field)
        if "token_ids" in missing:
            raise InvalidRequest(f"deployment {name} takes no token ids; send texts", param="prompt")
        raise InvalidRequest(
            f"messages hold what deployment {name} cannot read ({', '.join(missing)}); it reads text",
            param="messages",
        )


def _note(error: PilothouseError, places: Places, place: Place, *, left_s: float) -> None:
    """What an outcome says of the replica."""
    if is_fault(error, left_s=left_s - LEAST_S):
        places.failed(place)
    elif is_answer(error) and place.replica.health is not HEALTHY:
        places.succeeded(place)


def _forget(call: Call) -> None:
    """What an attempt without an answer left behind."""
    call.failed_first = call.failed_first or call.deployment
    call.usage = Usage()
    call.answers = call.asides = ()
    call.finish_reason = ""
    call.first_token_ns = 0
    call.asked_twice = call.second_won = False
