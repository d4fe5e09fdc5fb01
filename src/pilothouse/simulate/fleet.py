"""
One deployment of the simulation: its replicas, who waits for them, and how many there shall be.

The order of things is that of `gateway.permit`; the decisions are the very ones
that it calls, by their modules, so that a change in production changes this.
"""

from collections import deque
from collections.abc import Callable
from itertools import count

from pilothouse.domain import breaker, fairness, routing, scaling
from pilothouse.domain.balance import Balance
from pilothouse.domain.breaker import HEALTHY, RetryBudget
from pilothouse.domain.scaling import ScalingRule, ScalingState, Signals
from pilothouse.simulate.replica import VirtualReplica
from pilothouse.simulate.scenario import DeploymentModel, TenantModel, seconds
from pilothouse.simulate.traffic import Request

_TTFT_WINDOW_S = 30.0
_TTFT_LEAST = 20
"""Fewer first tokens say nothing about a 95th percentile."""
_TTFT_MOST = 4096
_USUAL_WEIGHT = 0.1
_CHARGED = (-0.9, 9.0)


class Fleet:
    """
    Args:
        draw: Gives numbers, 0..1 (1 excluded), even and seeded.
        decided: Told of each decision: its kind, and what it was.
    """

    def __init__(
        self,
        number: int,
        name: str,
        model: DeploymentModel,
        tenants: dict[str, TenantModel],
        *,
        draw: Callable[[], float],
        decided: Callable[[str, str], None],
    ) -> None:
        self.number, self.name, self.model = number, name, model
        self.queue: fairness.FairQueue[Request] = fairness.FairQueue()
        self.queued = 0
        self.replicas: list[VirtualReplica] = []
        self.well: list[VirtualReplica] = []
        self.sick: list[VirtualReplica] = []
        self.loading: dict[VirtualReplica, float] = {}
        self.start_s = seconds(model.engine.start, "start")
        self.arrived = 0
        self.replica_s = 0.0
        """Time that its replicas were there, loading included."""
        self.most = 0
        self.state: ScalingState | None = None
        self.first_tokens: deque[tuple[float, float]] = deque(maxlen=_TTFT_MOST)
        self.budgets = {team: RetryBudget() for team in tenants}
        self._tenants = tenants
        self._draw = draw
        self._decided = decided
        self._turn = 0
        self._usual_s = 0.0
        self._names = count()
        self._counted_at = 0.0

    # Places

    def take(self, request: Request, balance: Balance, now: float) -> VirtualReplica | None:
        """The replica that production would choose; None when no place is free or others wait already."""
        return None if self.queued else self._choose(request, balance, now)

    def _choose(self, request: Request, balance: Balance, now: float) -> VirtualReplica | None:
        replicas = self._admitted(request.team, now) if self.sick else self.well
        if balance == "least_load":
            return routing.least_load(replicas, self._draw())
        if balance == "prefix_affinity" and request.prefix:
            return routing.prefix_affinity(replicas, request.prefix)
        self._turn += 1
        return routing.round_robin(replicas, self._turn)

    def _admitted(self, team: str, now: float) -> list[VirtualReplica]:
        others = []
        for replica in self.sick:
            if replica.free <= 0 or not replica.health.admits(team, now):
                continue
            if replica.health.keeps_out(team):
                replica.health = breaker.probed(replica.health, now)
                return [replica]
            others.append(replica)
        return [*self.well, *others]

    def enter(self, request: Request, queue_size: int) -> tuple[bool, Request | None]:
        """Let it wait: whether it may, and who had to go for it."""
        tenant = self._tenants[request.team]
        gone = None
        if self.queued >= queue_size:
            gone = self.queue.yield_to(request.team, tenant.priority, weight=tenant.weight)
            if gone is None:
                return False, None
            gone.waits = False
            self.queued -= 1
        self.queue.push(request.team, request, priority=tenant.priority, weight=tenant.weight)
        self.queued += 1
        request.waits = True
        return True, gone

    def leave(self, request: Request) -> None:
        """It waits no longer."""
        if self.queue.remove(request.team, request):
            self.queued -= 1
        request.waits = False

    def next(self, balance: Balance, now: float) -> tuple[Request, VirtualReplica] | None:
        """Who is served next, and where; None when nobody waits or nothing is free."""
        while self.queued:
            if not any(replica.free > 0 for replica in self.well) and not self._may_probe(now):
                return None
            request = self.queue.pop()
            if request is None:
                return None
            self.queued -= 1
            replica = self._choose(request, balance, now)
            if replica is None:  # only a team that a sick replica keeps out: it waits on, in its turn
                tenant = self._tenants[request.team]
                self.queue.push(request.team, request, priority=tenant.priority, weight=tenant.weight)
                self.queued += 1
                return None
            request.waits = False
            request.since = now
            return request, replica
        return None

    def _may_probe(self, now: float) -> bool:
        return any(r.free > 0 and (now >= r.health.until or r.health.team) for r in self.sick)

    def charge(self, request: Request, now: float) -> None:
        """As `gateway.waiting`: what a place was held beyond the usual is its team's to pay."""
        if request.since < 0 or not self.queued:
            return
        held_s = now - request.since
        self._usual_s += (held_s - self._usual_s) * (_USUAL_WEIGHT if self._usual_s else 1.0)
        if self._usual_s > 0:
            beyond = min(max(held_s / self._usual_s - 1.0, _CHARGED[0]), _CHARGED[1])
            self.queue.charge(request.team, beyond, weight=self._tenants[request.team].weight)

    # Health

    def failed(self, replica: VirtualReplica, team: str, now: float) -> None:
        was = replica.health
        replica.health = breaker.after_failure(was, team, now)
        if replica.health.is_ejected and not replica.is_gone:
            if not was.is_ejected:
                self._decided("eject", f"{replica.name} is left alone")
            self.sort()

    def succeeded(self, replica: VirtualReplica, team: str) -> None:
        if replica.health is HEALTHY:
            return
        was = replica.health
        replica.health = breaker.after_success(was, team)
        if was.is_ejected and not replica.health.is_ejected:
            self._decided("readmit", f"{replica.name} answers again")
            self.sort()

    def sort(self) -> None:
        serving = [one for one in self.replicas if not one.is_draining and not one.is_gone]
        self.well = [one for one in serving if not one.health.is_ejected]
        self.sick = [one for one in serving if one.health.is_ejected]

    # How many

    def start(self, now: float, *, is_ready: bool = False) -> VirtualReplica:
        replica = VirtualReplica(f"{self.name}-{next(self._names)}", self.number, self.model.engine, now)
        self.loading[replica] = now if is_ready else now + self.start_s
        return replica

    def ready(self, replica: VirtualReplica, now: float) -> bool:
        """It has produced a token; False when it was given up meanwhile."""
        if self.loading.pop(replica, None) is None:
            return False
        replica.advance(now)
        self.replicas.append(replica)
        self.sort()
        self.most = max(self.most, len(self.replicas))
        return True

    def drop(self, replica: VirtualReplica, now: float) -> None:
        """It is no more."""
        self.replica_s += now - replica.started_at
        replica.is_gone = True
        if replica in self.replicas:
            self.replicas.remove(replica)
        self.sort()

    def drain(self, how_many: int, now: float) -> None:
        """Take the least loaded out of service; each ends with its last answer."""
        serving = sorted((r for r in self.replicas if not r.is_draining), key=lambda r: r.load)
        for replica in serving[:how_many]:
            replica.is_draining = True
            if not replica.load:
                self.drop(replica, now)
        self.sort()

    def wanted(self, now: float, ttft_slo_s: float) -> int:
        """How many more replicas the production rule wants now; below 0 is fewer."""
        rule = scaling.rule_at(self.model.replicas, now, ttft_slo_s=ttft_slo_s)
        serving = sum(1 for one in self.replicas if not one.is_draining)
        there = serving + len(self.loading)
        if self.state is None:
            self.state = scaling.first_state(rule, there, now)
        before = self.state.desired
        self.state = scaling.scale(rule, self.state, self._signals(serving, now), now)
        self.arrived = 0
        if self.state.desired != before:
            self._decided("scale", f"{self.name}: {before} -> {self.state.desired} ({self.state.reason})")
        return self.state.desired - there

    def first_rule(self) -> ScalingRule:
        return scaling.rule_at(self.model.replicas, 0.0)

    def _signals(self, serving: int, now: float) -> Signals:
        seen = self.first_tokens
        while seen and seen[0][0] < now - _TTFT_WINDOW_S:
            seen.popleft()
        p95 = None
        if len(seen) >= _TTFT_LEAST:
            p95 = sorted(took for _, took in seen)[int(0.95 * len(seen))]
        return Signals(
            inflight=sum(replica.load for replica in self.replicas),
            queued=self.queued,
            arrived=self.arrived,
            ready=serving,
            loading=len(self.loading),
            places=self.model.engine.slots,
            ttft_p95_s=p95,
        )
