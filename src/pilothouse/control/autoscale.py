"""
Scaling, fed with what is: signals of each deployment in, its wanted count out.

The decision is `domain.scaling`. A state is kept for each deployment in memory
alone; a controller that starts anew begins with what runs.
"""

from collections.abc import Callable, Collection, Iterable, Mapping

from msgspec.structs import replace

from pilothouse.control.fleet import Fleet
from pilothouse.control.latency import FirstTokens
from pilothouse.domain.duration import parse_duration_s
from pilothouse.domain.events import Occurrence
from pilothouse.domain.plan import Observed, generations
from pilothouse.domain.scaling import ScalingState, Signals, can_sleep, first_state, rule_at, scale
from pilothouse.domain.spec import Spec
from pilothouse.domain.status import Replica, SystemStatus
from pilothouse.kit.clock import Clock
from pilothouse.kit.log import Log


class Autoscaler:
    def __init__(
        self,
        fleet: Fleet,
        *,
        clock: Clock,
        log: Log,
        happened: Callable[[Occurrence], None] = lambda _: None,
    ) -> None:
        self.asleep: frozenset[str] = frozenset()
        """Deployments that the next request should wake."""
        self.kept_awake: Callable[[], Collection[str]] = tuple
        """Deployments that must not sleep now."""
        self._fleet = fleet
        self._clock = clock
        self._log = log
        self._happened = happened
        self._first_tokens = FirstTokens(fleet)
        self._states: dict[str, ScalingState] = {}
        self._places: dict[str, int] = {}
        self._arrived: dict[str, int] = {}

    def follow(self, spec: Spec, observed: Observed) -> dict[str, int]:
        """Replicas that each deployment should have now; those that run elsewhere are not counted."""
        slos = _ttft_slos(spec)
        now, unix_s = self._clock.monotonic(), self._clock.now()
        if slos:
            self._first_tokens.follow(now)
        arrived, awake = self._arrivals(spec), self.kept_awake()
        first = generations(spec, observed)
        by_deployment = _grouped(observed.replicas)
        for name in self._states.keys() - spec.deployments.keys():
            del self._states[name]
        for name, deployment in spec.deployments.items():
            if name in observed.attached:
                continue
            rule = rule_at(deployment.replicas, unix_s, ttft_slo_s=slos.get(name))
            if name in awake:
                rule = replace(rule, least=max(rule.least, 1), most=max(rule.most, 1), sleeps_after_s=None)
            signals = self._signals(name, by_deployment.get(name, []), first.get(name), observed.busy)
            signals = replace(signals, arrived=arrived.get(name, 0))
            state = self._states.get(name)
            if state is None:
                state = first_state(rule, signals.ready + signals.loading, now)
            self._take(name, scale(rule, state, signals, now), signals)
        self.asleep = frozenset(
            name
            for name, state in self._states.items()
            if not state.desired and can_sleep(spec.deployments[name].replicas)
        )
        return {name: state.desired for name, state in self._states.items()}

    def explained(self, status: SystemStatus) -> SystemStatus:
        """The status, with the reason of each count."""
        return replace(
            status,
            deployments={
                name: replace(one, scaled_because=self._states[name].reason) if name in self._states else one
                for name, one in status.deployments.items()
            },
        )

    def _take(self, name: str, state: ScalingState, signals: Signals) -> None:
        before = self._states.get(name)
        self._states[name] = state
        if before is not None and before.desired != state.desired:
            self._log.event(
                "scaled",
                deployment=name,
                before=before.desired,
                after=state.desired,
                reason=state.reason,
                inflight=signals.inflight,
                queued=signals.queued,
            )
            message = (
                f"from {before.desired} to {state.desired}: {state.reason} "
                f"({signals.inflight} in flight, {signals.queued} waiting)"
            )
            self._happened(Occurrence(kind="deployment", name=name, reason="scaled", message=message))

    def _signals(
        self, name: str, replicas: list[Replica], first: str | None, busy: frozenset[str]
    ) -> Signals:
        ready = [replica for replica in replicas if replica.state == "ready"]
        present = {replica.name for replica in replicas}
        begun = [one for one in busy if first and one.startswith(first) and one not in present]
        loading = [replica for replica in replicas if replica.state == "starting"]
        if ready:
            self._places[name] = max(replica.slots for replica in ready)
        used = [r.load.kv_used for r in ready if r.load is not None and r.load.kv_used is not None]
        return Signals(
            inflight=sum(self._fleet.inflight_at(replica.name) for replica in replicas),
            queued=self._fleet.queued_at(name),
            ready=len(ready),
            loading=len(loading) + len(begun),
            places=self._places.get(name, 0),
            kv_used=sum(used) / len(used) if used else None,
            ttft_p95_s=self._first_tokens.p95_s(name),
        )

    def _arrivals(self, spec: Spec) -> dict[str, int]:
        """New requests by deployment: those of an endpoint count for each of its routes that has weight."""
        found: dict[str, int] = {}
        for name, endpoint in spec.endpoints.items():
            total = self._fleet.arrived_at(name)
            new = total - self._arrived.get(name, total)
            self._arrived[name] = total
            for route in endpoint.routes:
                if route.weight > 0:
                    found[route.deployment] = found.get(route.deployment, 0) + new
        return found


def _ttft_slos(spec: Spec) -> Mapping[str, float]:
    """The strictest promise that any endpoint makes of a deployment."""
    found: dict[str, float] = {}
    for endpoint in spec.endpoints.values():
        slo_s = parse_duration_s(endpoint.slo.ttft_p95, param="slo.ttft_p95")
        for route in endpoint.routes if slo_s is not None else ():
            found[route.deployment] = min(slo_s or 0.0, found.get(route.deployment, slo_s or 0.0))
    return found


def _grouped(replicas: Iterable[Replica]) -> dict[str, list[Replica]]:
    found: dict[str, list[Replica]] = {}
    for replica in replicas:
        found.setdefault(replica.deployment, []).append(replica)
    return found
