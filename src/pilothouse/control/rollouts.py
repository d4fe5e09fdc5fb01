"""
Rollouts: begun, watched, and ended, by people or by the evidence.

The state is in the store and decides nothing by being in memory: what the
workers serve follows from it at each publication. A promotion changes the spec,
like any other change of what runs; done twice it is done once.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from pilothouse.control.evidence import Evidence
from pilothouse.control.transact import Transact
from pilothouse.domain.duration import parse_duration_s
from pilothouse.domain.errors import Conflict, InvalidRequest, NotFound, PilothouseError
from pilothouse.domain.events import Occurrence
from pilothouse.domain.rollout import Rollout, RolloutPhase, RolloutPolicy, end, weights
from pilothouse.domain.snapshot import Shadow
from pilothouse.domain.spec import EndpointSpec, RouteSpec, Spec
from pilothouse.domain.status import DeploymentStatus, SystemStatus
from pilothouse.kit.clock import Clock
from pilothouse.kit.ids import new_id
from pilothouse.kit.log import Log
from pilothouse.ports.store import StoredSpec, UnitOfWork

TICK_S = 0.5

Change = Callable[[Spec], Spec]
Edit = Callable[[Change, str], Awaitable[StoredSpec]]
"""Change the spec, in the name of an author."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a rollout looks at and acts on, beside the store."""

    spec: Callable[[], Spec]
    edit: Edit
    system: Callable[[], SystemStatus]
    """What the control loop last saw."""
    changed: Callable[[], None]
    """Called when what is served must be published anew."""
    retried: Callable[[], Mapping[tuple[str, str], int]]
    """How many attempts failed and were answered by another, by endpoint and deployment, so far."""
    happened: Callable[[Occurrence], None]


class Rollouts:
    def __init__(
        self,
        transact: Transact,
        evidence: Evidence,
        around: Surroundings,
        *,
        clock: Clock,
        log: Log,
    ) -> None:
        self.active: Mapping[str, Rollout] = {}
        """By endpoint, as they last were."""
        self._has_feedback = True
        """There may be feedback that was not taken into account: also when this controller starts."""
        self._transact = transact
        self._evidence = evidence
        self._around = around
        self._known_retries: Mapping[tuple[str, str], int] | None = None
        self._clock = clock
        self._log = log

    def expect_feedback(self) -> None:
        """There is some that was not taken into account."""
        self._has_feedback = True

    async def load(self) -> None:
        """What was under way when the last controller ended."""
        self._follow(await self._transact(lambda unit: unit.rollouts.active()))

    def shares(self, endpoint: str, routes: Mapping[str, int]) -> Mapping[str, int]:
        """Weights by deployment that are published instead of the declared ones."""
        rollout = self.active.get(endpoint)
        return routes if rollout is None or not rollout.weight else weights(rollout, routes)

    def shadow(self, endpoint: str) -> Shadow | None:
        """Who answers copies of the endpoint's requests now."""
        rollout = self.active.get(endpoint)
        if rollout is None or rollout.phase != "shadow":
            return None
        return Shadow(rollout.stable, rollout.candidate)

    @property
    def kept_awake(self) -> frozenset[str]:
        """Deployments that must not sleep: they are being compared."""
        return frozenset(name for one in self.active.values() for name in (one.stable, one.candidate))

    async def start(self, endpoint: str, candidate: str, *, author: str) -> Rollout:
        """
        Begin: the candidate gets requests as soon as it is ready.

        Raises:
            NotFound: No such endpoint or deployment.
            Conflict: One is under way, or it is what serves already.
        """
        spec = self._around.spec()
        declared = _endpoint(spec, endpoint)
        if candidate not in spec.deployments:
            raise NotFound(f"no deployment {candidate[:64]!r} is declared; add it under `deployments` first")
        stable = max(declared.routes, key=lambda route: route.weight).deployment
        if stable == candidate:
            raise Conflict(f"{candidate} serves {endpoint} already")
        rollout = Rollout(
            id=new_id("ro_"),
            endpoint=endpoint,
            stable=stable,
            candidate=candidate,
            policy=_policy(declared),
            author=author,
            started_at=self._clock.now(),
            reason="waiting for a replica of the candidate that is ready",
        )

        def begin(unit: UnitOfWork) -> list[Rollout]:
            active = unit.rollouts.active()
            if any(one.endpoint == endpoint for one in active):
                raise Conflict(
                    f"a rollout of {endpoint} is under way; "
                    f"see: pilothouse rollout status {endpoint}, or abort it first"
                )
            unit.rollouts.put(rollout)
            return [*active, rollout]

        self._follow(await self._transact(begin))
        self._tell(rollout)
        return rollout

    async def promote(self, endpoint: str, *, author: str) -> Rollout:
        """
        Let the candidate serve all, whatever the evidence says.

        Raises:
            NotFound: Nothing is under way.
            Conflict: No replica of the candidate is ready.
        """
        rollout = self._active(endpoint)
        if not self._states().get(rollout.candidate, (False, ""))[0]:
            raise Conflict(f"no replica of {rollout.candidate} is ready; nothing would be served")
        await self._end(endpoint, "promoting", f"promoted by {author}")
        await self.tick()
        return await self.newest(endpoint)

    async def abort(self, endpoint: str, *, author: str) -> Rollout:
        """End it; from the next snapshot on nothing goes to the candidate. NotFound: nothing is under way."""
        self._active(endpoint)
        return await self._end(endpoint, "aborted", f"aborted by {author}")

    async def newest(self, endpoint: str) -> Rollout:
        """The one under way, else the last. NotFound: there was none."""
        rollout = await self._transact(lambda unit: unit.rollouts.newest(endpoint))
        if rollout is None:
            raise NotFound(f"there was no rollout of {endpoint[:64]!r}; see: pilothouse rollout start --help")
        return rollout

    async def all(self, *, limit: int) -> list[Rollout]:
        """Newest first."""
        return await self._transact(lambda unit: unit.rollouts.all(limit=limit))

    async def tick(self) -> None:
        """Take in what is new, decide, and finish what was decided. Call it again and again."""
        if not self.active and not self._has_feedback:
            self._known_retries = None
            return
        has_feedback, self._has_feedback = self._has_feedback, False
        states, retried = self._states(), self._new_retries()
        try:
            rollouts, left = await self._transact(
                lambda unit: self._evidence.advance(unit, states, has_feedback=has_feedback, retried=retried)
            )
        except PilothouseError:
            self._has_feedback |= has_feedback
            raise
        self._has_feedback |= left
        self._follow(rollouts)
        for rollout in rollouts:
            await self._finish(rollout)

    async def _finish(self, rollout: Rollout) -> None:
        """Whoever changed the routes meanwhile wants something else: then it ends."""
        declared = self._around.spec().endpoints.get(rollout.endpoint)
        if rollout.phase == "promoting":
            try:
                await self._around.edit(lambda spec: promoted(spec, rollout), f"rollout:{rollout.id}")
            except (NotFound, InvalidRequest) as exc:  # the spec does not allow it any more
                await self._end(rollout.endpoint, "aborted", str(exc))
            else:
                await self._end(rollout.endpoint, "promoted", rollout.reason)
        elif rollout.is_active and (
            declared is None or all(route.deployment != rollout.stable for route in declared.routes)
        ):
            await self._end(
                rollout.endpoint, "aborted", f"the spec does not route to {rollout.stable} any more"
            )
        elif not rollout.is_active:
            self._tell(rollout)

    async def _end(self, endpoint: str, phase: RolloutPhase, reason: str) -> Rollout:
        def work(unit: UnitOfWork) -> tuple[Rollout, list[Rollout]]:
            active = {one.endpoint: one for one in unit.rollouts.active()}
            if endpoint not in active:
                raise NotFound(f"no rollout of {endpoint[:64]!r} is under way; see: pilothouse get rollouts")
            ended = active[endpoint] = end(active[endpoint], phase, reason, self._clock.now())
            unit.rollouts.put(ended)
            return ended, list(active.values())

        ended, active = await self._transact(work, urgent=True)
        self._follow(active)
        self._tell(ended)
        return ended

    def _follow(self, rollouts: list[Rollout]) -> None:
        before = {name: (one.phase, one.weight) for name, one in self.active.items()}
        self.active = {one.endpoint: one for one in rollouts if one.is_active}
        self._evidence.watched = frozenset(self.active)
        if before != {name: (one.phase, one.weight) for name, one in self.active.items()}:
            self._around.changed()

    def _tell(self, rollout: Rollout) -> None:
        self._log.event(
            "rollout",
            endpoint=rollout.endpoint,
            candidate=rollout.candidate,
            phase=rollout.phase,
            reason=rollout.reason,
            pairs=rollout.pairs,
        )
        self._around.happened(
            Occurrence(
                kind="endpoint",
                name=rollout.endpoint,
                reason=f"rollout_{rollout.phase}",
                message=f"{rollout.candidate}: {rollout.reason}",
                is_warning=rollout.phase == "rolled_back",
            )
        )

    def _active(self, endpoint: str) -> Rollout:
        if endpoint not in self.active:
            raise NotFound(f"no rollout of {endpoint[:64]!r} is under way; see: pilothouse get rollouts")
        return self.active[endpoint]

    def _new_retries(self) -> dict[tuple[str, str], int]:
        """Since the last look; the first one only begins to count."""
        total, known = self._around.retried(), self._known_retries
        self._known_retries = total
        if known is None:
            return {}
        return {key: new for key, count in total.items() if (new := count - known.get(key, 0)) > 0}

    def _states(self) -> dict[str, tuple[bool, str]]:
        """Of all that is declared: at what was declared just now the control loop did not look yet."""
        seen = self._around.system().deployments
        return {
            name: _state(seen[name]) if name in seen else (False, "")
            for name in self._around.spec().deployments
        }


def _state(seen: DeploymentStatus) -> tuple[bool, str]:
    return seen.ready > 0, seen.message or seen.reason if seen.phase == "failed" else ""


def promoted(spec: Spec, rollout: Rollout) -> Spec:
    """
    The spec in which the candidate has the stable one's place.

    Raises:
        NotFound: The endpoint or the candidate is not declared any more.
    """
    declared = _endpoint(spec, rollout.endpoint)
    if rollout.candidate not in spec.deployments:
        raise NotFound(f"the deployment {rollout.candidate} is not declared any more")
    routes: dict[str, RouteSpec] = {}
    for route in declared.routes:
        name = rollout.candidate if route.deployment == rollout.stable else route.deployment
        known = routes.get(name)
        routes[name] = replace(route, deployment=name, weight=route.weight + (known.weight if known else 0))
    endpoint = replace(declared, routes=list(routes.values()))
    return replace(spec, endpoints={**spec.endpoints, rollout.endpoint: endpoint})


def _endpoint(spec: Spec, name: str) -> EndpointSpec:
    if name not in spec.endpoints:
        raise NotFound(f"no endpoint {name[:64]!r} is declared; see: pilothouse get endpoints")
    return spec.endpoints[name]


def _policy(declared: EndpointSpec) -> RolloutPolicy:
    given = declared.rollout
    return RolloutPolicy(
        shadow_pairs=given.shadow_pairs,
        steps=given.steps,
        step_pairs=given.step_pairs,
        margin=given.margin,
        alpha=given.alpha,
        max_pairs=given.max_pairs,
        max_duration_s=parse_duration_s(given.max_duration, param="rollout.max_duration"),
        ttft_slo_s=parse_duration_s(declared.slo.ttft_p95, param="slo.ttft_p95"),
        judges=tuple(declared.judges),
    )
