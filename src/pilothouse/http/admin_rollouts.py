"""Rollouts: begin, look, promote, abort; and the evidence that each stands on."""

import re
from typing import Annotated

import msgspec
from litestar import get, post
from litestar.params import JSONBody
from litestar.types import ControllerRouterHandler
from msgspec import Meta, Struct

from pilothouse.domain.canary import Verdict
from pilothouse.domain.errors import InvalidRequest, NotFound
from pilothouse.domain.model_name import split_reference
from pilothouse.domain.rollout import Point, Rollout, RolloutPhase, RolloutPolicy
from pilothouse.domain.spec import Spec
from pilothouse.http.access import Asked, needs
from pilothouse.http.paging import Id, Limit
from pilothouse.http.plane import Plane, plane_of
from pilothouse.http.views import Items


class StartBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of `to` and `model`."""

    endpoint: Annotated[str, Meta(max_length=63)]
    to: Annotated[str, Meta(max_length=63)] | None = None
    """A deployment that is declared."""
    model: Annotated[str, Meta(max_length=127)] | None = None
    """NAME or NAME@VERSION of a declared model: a deployment like the present one is made for it."""


class ScoreView(Struct, frozen=True, kw_only=True):
    """Any `log_e_worse` of `log_rollback_at` rolls back; a promotion takes all required `log_e_fine`."""

    pairs: int
    mean_difference: float
    log_e_worse: float
    log_e_fine: float
    is_required: bool


class RolloutView(Struct, frozen=True, kw_only=True):
    id: str
    endpoint: str
    stable: str
    candidate: str
    phase: RolloutPhase
    reason: str
    weight: int
    """Per cent of the requests that the candidate gets; 0 once it ended, and the spec's routes say it."""
    step: int
    pairs: int
    shadowed: int
    """Those of them that nobody saw, once that phase is over."""
    verdict: Verdict
    log_rollback_at: float
    log_promote_at: float
    scores: dict[str, ScoreView]
    policy: RolloutPolicy
    author: str
    started_at: float
    changed_at: float
    ended_at: float | None
    history: tuple[Point, ...]


@get("/rollouts", opt=needs("rollouts.read"))
async def list_rollouts(request: Asked, limit: Limit = 100) -> Items[RolloutView]:
    """Newest first."""
    return Items([rollout_view(one) for one in await plane_of(request).rollouts.all(limit=limit)])


@get("/rollouts/{endpoint:str}", opt=needs("rollouts.read"))
async def get_rollout(request: Asked, endpoint: Id) -> RolloutView:
    """The one under way, else the last."""
    return rollout_view(await plane_of(request).rollouts.newest(endpoint))


@post("/rollouts", opt=needs("rollouts.write"), status_code=201)
async def start_rollout(request: Asked, data: JSONBody[StartBody]) -> RolloutView:
    """The candidate gets requests as soon as a replica of it is ready."""
    plane, author = plane_of(request), request.user.author
    if (data.to is None) == (data.model is None):
        raise InvalidRequest(
            "say what is rolled out: either a deployment (`to`, --to NAME) "
            "or a model (`model`, --model NAME@VERSION)",
            param="to",
        )
    candidate = data.to if data.to is not None else await _deploy(plane, data, author)
    return rollout_view(await plane.rollouts.start(data.endpoint, candidate, author=author))


@post("/rollouts/{endpoint:str}/promote", opt=needs("rollouts.write"), status_code=200)
async def promote_rollout(request: Asked, endpoint: Id) -> RolloutView:
    """Let the candidate serve all now, whatever the evidence says."""
    return rollout_view(await plane_of(request).rollouts.promote(endpoint, author=request.user.author))


@post("/rollouts/{endpoint:str}/abort", opt=needs("rollouts.write"), status_code=200)
async def abort_rollout(request: Asked, endpoint: Id) -> RolloutView:
    """End it: from the next snapshot on nothing goes to the candidate."""
    return rollout_view(await plane_of(request).rollouts.abort(endpoint, author=request.user.author))


async def _deploy(plane: Plane, data: StartBody, author: str) -> str:
    """The deployment for a model, declared like the one that serves; the same again is the same."""
    model = data.model or ""
    made = ""

    def change(spec: Spec) -> Spec:
        nonlocal made
        if data.endpoint not in spec.endpoints:
            raise NotFound(f"no endpoint {data.endpoint!r} is declared; see: pilothouse get endpoints")
        if split_reference(model)[0] not in spec.models:
            raise NotFound(f"no model {model!r} is declared; add it under `models` first")
        routes = spec.endpoints[data.endpoint].routes
        stable = max(routes, key=lambda route: route.weight).deployment
        made = re.sub(r"[^A-Za-z0-9._-]", "-", f"{data.endpoint}-{model}")[:63]
        deployment = msgspec.structs.replace(spec.deployments[stable], model=model)
        return msgspec.structs.replace(spec, deployments={**spec.deployments, made: deployment})

    await plane.specs.edit(change, expected_revision=None, author=author)
    return made


def rollout_view(rollout: Rollout) -> RolloutView:
    required = rollout.required
    return RolloutView(
        id=rollout.id,
        endpoint=rollout.endpoint,
        stable=rollout.stable,
        candidate=rollout.candidate,
        phase=rollout.phase,
        reason=rollout.reason,
        weight=rollout.weight,
        step=rollout.step,
        pairs=rollout.pairs,
        shadowed=rollout.shadowed,
        verdict=rollout.verdict,
        log_rollback_at=rollout.log_rollback_at,
        log_promote_at=rollout.log_promote_at,
        scores={
            name: ScoreView(
                pairs=one.pairs,
                mean_difference=round(one.mean_difference, 4),
                log_e_worse=round(one.log_e_worse, 3),
                log_e_fine=round(one.log_e_fine, 3),
                is_required=name in required,
            )
            for name, one in sorted(rollout.evidence.items())
        },
        policy=rollout.policy,
        author=rollout.author,
        started_at=rollout.started_at,
        changed_at=rollout.changed_at,
        ended_at=rollout.ended_at,
        history=rollout.history,
    )


ROUTES: list[ControllerRouterHandler] = [
    list_rollouts,
    get_rollout,
    start_rollout,
    promote_rollout,
    abort_rollout,
]
