"""
The simulation's loop: one heap of what happens next.

An event is (time, order, what, about, turn). A replica's next event is planned
anew at each of its changes; the plan before is known by its turn and passed over.
"""

import math
from collections.abc import Callable
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from random import Random
from typing import Literal

from pilothouse.domain import routing
from pilothouse.domain.prices import Prices
from pilothouse.simulate.fleet import Fleet
from pilothouse.simulate.release import Release
from pilothouse.simulate.replica import VirtualReplica
from pilothouse.simulate.scenario import Failure, Scenario, check, seconds
from pilothouse.simulate.tally import Outcome, Tally
from pilothouse.simulate.traffic import Request, requests_of

_REPLICA, _READY, _TICK, _LATE, _FAIL, _HEAL, _RELEASE = range(7)
_TICK_S = 1.0
_ERROR_S = 0.05
"""How long an engine that fails takes to say so."""
Code = Literal["overloaded", "engine_unavailable", "deadline_exceeded", "upstream_error"]


def simulate(
    scenario: Scenario,
    *,
    prices: Prices | None = None,
    answered: Callable[[Request, float], None] = lambda *_: None,
) -> Outcome:
    """
    Run a scenario to its last answer. Equal scenarios have equal outcomes.

    Args:
        answered: Told of each request that was answered, and when it ended.

    Raises:
        InvalidRequest: The scenario is not sound; the message names the field.
    """
    check(scenario)
    return _Run(scenario, answered).all(prices)


class _Run:
    def __init__(self, scenario: Scenario, answered: Callable[[Request, float], None]) -> None:
        self.scenario = scenario
        self._answered = answered
        self.tally = Tally(scenario=scenario)
        self._random = Random(f"{scenario.seed}/choices")
        self._timeout_s = seconds(scenario.timeout, "timeout")
        self._ttft_slo_s = seconds(scenario.slo.ttft_p95, "slo.ttft_p95")
        self._until = seconds(scenario.duration, "duration")
        self._balance = scenario.balance
        self._prefix_tokens = {name: one.prefix.tokens for name, one in scenario.tenants.items()}
        self._events: list[tuple[float, int, int, object, int]] = []
        self._order = count()
        self._now = 0.0
        self._underway = 0
        self._is_over = False
        self.fleets = [
            Fleet(
                number, name, model, scenario.tenants, draw=self._random.random,
                decided=lambda kind, what: self.tally.decided(self._now, kind, what),
            )
            for number, (name, model) in enumerate(scenario.deployments.items())
        ]  # fmt: skip
        self._names = list(scenario.deployments)
        self._release: Release | None = None
        if scenario.rollout is not None:
            self._release = Release(
                scenario.rollout,
                {name: one.weight for name, one in scenario.deployments.items()},
                draw=Random(f"{scenario.seed}/quality").random,
                decided=lambda kind, what: self.tally.decided(self._now, kind, what),
            )
        self._split = self._routes()

    def _routes(self) -> routing.Split:
        if self._release is None:
            return routing.Split([fleet.model.weight for fleet in self.fleets])
        weights = self._release.weights()
        return routing.Split([weights[name] for name in self._names])

    def all(self, prices: Prices | None) -> Outcome:
        self._begin()
        sources = [
            requests_of(name, number, tenant, Random(f"{self.scenario.seed}/{name}"))
            for number, (name, tenant) in enumerate(self.scenario.tenants.items())
        ]
        coming = [(request.arrived, number, request) for number, request in enumerate(map(next, sources))]
        heapify(coming)
        left, until, events = self.scenario.most_requests, self._until, self._events
        while coming and left and coming[0][0] <= until:
            at, number, request = coming[0]
            while events and events[0][0] <= at:
                self._happen()
            following = next(sources[number])
            heapreplace(coming, (following.arrived, number, following))
            left -= 1
            self._now = at
            self._arrive(request)
        self._is_over = True
        while events and self._underway:
            self._happen()
        return self._outcome(prices)

    def _begin(self) -> None:
        for fleet in self.fleets:
            rule = fleet.first_rule()
            for _ in range(rule.least):
                fleet.ready(fleet.start(0.0, is_ready=True), 0.0)
        if self._release is not None or any(_scales(fleet) for fleet in self.fleets):
            self._plan(_TICK_S, _TICK, None)
        if self.scenario.rollout is not None:
            self._plan(seconds(self.scenario.rollout.starts, "starts"), _RELEASE, None)
        for failure in self.scenario.failures:
            self._plan(seconds(failure.at, "at"), _FAIL, failure)

    def _outcome(self, prices: Prices | None) -> Outcome:
        # Replicas cost until the traffic is over, and as long as anything is under way.
        end = max(self.tally.last_s, 0.0)
        hours = {}
        for fleet in self.fleets:
            alive = sum(max(0.0, end - one.started_at) for one in [*fleet.replicas, *fleet.loading])
            hours[fleet.name] = ((fleet.replica_s + alive) / 3600, fleet.most)
        return self.tally.outcome(hours, prices=prices)

    # Requests

    def _arrive(self, request: Request) -> None:
        self._underway += 1
        request.deadline = request.arrived + self._timeout_s
        fleets = self.fleets
        if len(fleets) == 1:
            order: tuple[int, ...] = (0,)
        else:
            order = self._split.order(self._random.random())
        fleet = fleets[order[0]] if order else fleets[0]
        fleet.arrived += 1
        fleet.budgets[request.team].request()
        self._send(request, fleet)

    def _send(self, request: Request, fleet: Fleet) -> None:
        request.deployment = fleet.number
        replica = fleet.take(request, self._balance, self._now)
        if replica is not None:
            self._place(request, replica, fleet)
            return
        may_come = fleet.well or fleet.sick or fleet.loading or _scales(fleet)
        if not may_come:
            self._refuse(request, "engine_unavailable")
            return
        entered, gone = fleet.enter(request, self.scenario.queue_size)
        if gone is not None:
            self._refuse(gone, "overloaded")
        if not entered:
            self._refuse(request, "overloaded")
            return
        self._plan(request.deadline, _LATE, request)

    def _place(self, request: Request, replica: VirtualReplica, fleet: Fleet) -> None:
        if replica.error_ratio and self._random.random() < replica.error_ratio:
            fleet.failed(replica, request.team, self._now)
            self._fail_or_retry(request, fleet)
            return
        replica.begin(request, self._prefix_tokens[request.team], self._now)
        self._replan(replica)

    def _fail_or_retry(self, request: Request, fleet: Fleet) -> None:
        """Nothing of an answer came: it may be tried elsewhere, if its team's budget pays for that."""
        request.replica = None
        request.since = -1.0
        has_time = self._now + _ERROR_S < request.deadline
        if request.retries < self.scenario.retries and has_time and fleet.budgets[request.team].take():
            request.retries += 1
            self._send(request, fleet)
        else:
            self._refuse(request, "upstream_error")

    def _refuse(self, request: Request, code: Code) -> None:
        self._underway -= 1
        if self._release is not None and code == "upstream_error":
            self._release.failed(self._names[request.deployment], self._now)
        self.tally.refused(request, code, self._now)

    def _serve(self, fleet: Fleet) -> None:
        while fleet.queued:
            found = fleet.next(self._balance, self._now)
            if found is None:
                return
            request, replica = found
            self._place(request, replica, fleet)

    # Events

    def _happen(self) -> None:
        at, _, what, about, turn = heappop(self._events)
        if what == _REPLICA:
            assert isinstance(about, VirtualReplica)  # noqa: S101 - tells mypy what `_plan` put in
            if about.turn == turn:
                self._now = at
                self._progress(about)
            return
        self._now = at
        if what == _READY and isinstance(about, VirtualReplica):
            fleet = self.fleets[about.deployment]
            if fleet.ready(about, at):
                self._serve(fleet)
        elif what == _LATE and isinstance(about, Request):
            if about.waits:
                self.fleets[about.deployment].leave(about)
                self._refuse(about, "deadline_exceeded")
        elif what == _TICK:
            self._tick()
        elif what == _FAIL and isinstance(about, Failure):
            self._break(about)
        elif what == _HEAL and isinstance(about, VirtualReplica):
            about.advance(at)
            about.error_ratio, about.slow = 0.0, 1.0
            self._replan(about)
        elif what == _RELEASE and self._release is not None:
            self._release.begin(at)

    def _progress(self, replica: VirtualReplica) -> None:
        first, done = replica.happened(self._now)
        fleet = self.fleets[replica.deployment]
        for request in first:
            fleet.first_tokens.append((self._now, request.first_at - request.arrived))
        for request in done:
            self._underway -= 1
            ended = self._now + replica.request_s
            if ended > request.deadline:
                self.tally.refused(request, "deadline_exceeded", self._now)
            else:
                self.tally.answered(request, ended)
                self._answered(request, ended)
                if self._release is not None:
                    self._release.answered(fleet.name, request, ended)
            fleet.succeeded(replica, request.team)
            if fleet.queued:
                fleet.charge(request, self._now)
        if done and replica.is_draining and not replica.load:
            fleet.drop(replica, self._now)
        self._replan(replica)
        if done and fleet.queued:
            self._serve(fleet)

    def _replan(self, replica: VirtualReplica) -> None:
        replica.turn += 1
        due = replica.due()
        if due < math.inf:
            heappush(self._events, (due, next(self._order), _REPLICA, replica, replica.turn))

    def _plan(self, at: float, what: int, about: object) -> None:
        heappush(self._events, (at, next(self._order), what, about, 0))

    def _tick(self) -> None:
        if self._release is not None and self.scenario.rollout is not None:
            candidate = self.fleets[self._names.index(self.scenario.rollout.candidate)]
            if self._release.advance(self._now, is_ready=bool(candidate.well)):
                self._split = self._routes()
        for fleet in self.fleets:
            if not _scales(fleet):
                continue
            more = fleet.wanted(self._now, self._ttft_slo_s)
            for _ in range(more):
                replica = fleet.start(self._now)
                self._plan(fleet.loading[replica], _READY, replica)
            if more < 0:
                fleet.drain(-more, self._now)
        if not self._is_over or self._underway:
            self._plan(self._now + _TICK_S, _TICK, None)

    def _break(self, failure: Failure) -> None:
        fleet = next(one for one in self.fleets if one.name == failure.deployment)
        victims = sorted(fleet.replicas, key=lambda one: one.name)[: failure.replicas]
        for replica in victims:
            if failure.kind == "crash":
                self._crash(replica, fleet)
                continue
            replica.advance(self._now)
            if failure.kind == "errors":
                replica.error_ratio = failure.ratio
            else:
                replica.slow = failure.factor
            self._replan(replica)
            self._plan(self._now + seconds(failure.lasts, "lasts"), _HEAL, replica)

    def _crash(self, replica: VirtualReplica, fleet: Fleet) -> None:
        self.tally.decided(self._now, "crash", replica.name)
        lost = replica.end(self._now)
        replica.turn += 1
        fleet.drop(replica, self._now)
        # What runs is what is declared: the next tick of the control loop starts another.
        fresh = fleet.start(self._now)
        self._plan(fleet.loading[fresh], _READY, fresh)
        for request in lost:
            if request.first_at >= 0:
                self._refuse(request, "upstream_error")
            else:
                self._fail_or_retry(request, fleet)


def _scales(fleet: Fleet) -> bool:
    replicas = fleet.model.replicas
    return replicas.min != replicas.max or replicas.scale_to_zero_after != "never" or bool(replicas.schedule)
