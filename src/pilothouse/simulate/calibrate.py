"""
Fits an engine's speed to requests that a real engine answered.

The requests are played again on the virtual engine, each from when it really began,
and the four times of an `EngineModel` are moved until first tokens and last ones
come when they came. No percentile is looked at: they do not tell the four times
apart. Judge the result on other traffic than it was fitted on.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from pilothouse.domain.errors import InvalidRequest
from pilothouse.simulate.replica import VirtualReplica
from pilothouse.simulate.scenario import EngineModel
from pilothouse.simulate.traffic import Request

TIMES = ("step_ms", "prefill_ms", "decode_ms", "request_ms")
_FIRST_STRIDE, _LAST_STRIDE = 1.0, 0.01
"""Of the logarithm of a time: from a factor of e to one of a hundredth."""
_MOST_ROUNDS = 60
_LEAST_MS, _LEAST_S = 1e-3, 1e-6
_MOST_REQUEST_MS = 50.0
"""What is outside of steps is small, whatever a coincidence says."""


Tokens = Annotated[int, Meta(ge=1, le=1_000_000)]


class Answered(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One request to one replica; times in seconds of one clock."""

    began: float
    """When the replica had it, not when it came to wait for a place."""
    prompt: Tokens
    output: Tokens
    first: float
    """When its first token came, and `ended`, its last."""
    ended: float


def fit(plays: Sequence[Sequence[Answered]], model: EngineModel) -> EngineModel:
    """
    The engine model under which every answer comes nearest to when it came.

    A pattern search: each time is tried larger and smaller, the best of all is taken,
    and the stride is halved when none is better. Deterministic.

    Args:
        plays: What one replica was asked, each time that it was; beginnings in order.
        model: Where to begin; its slots and batch stay.

    Raises:
        InvalidRequest: There is no answer, or more were under way at once than the model has slots.

    Source: Hooke and Jeeves, "Direct Search" (1961).
    """
    _check(plays, model)
    best = distance(plays, model)
    stride = _FIRST_STRIDE
    for _ in range(_MOST_ROUNDS):
        off, nearest = min(
            ((distance(plays, one), one) for one in _around(model, stride)), key=lambda pair: pair[0]
        )
        if off < best:
            model, best = nearest, off
            continue
        stride /= 2
        if stride < _LAST_STRIDE:
            break
    return model


def distance(plays: Sequence[Sequence[Answered]], model: EngineModel) -> float:
    """
    How far off an answer is, in the mean: of its wait for the first token and its writing after that,
    the logarithms of played over real, without sign: one request that was disturbed moves nothing.
    """
    off = []
    for play in plays:
        for answer, (first, ended) in zip(play, _played(play, model), strict=True):
            off.append(_apart(first - answer.began, answer.first - answer.began))
            if answer.output > 1:
                off.append(_apart(ended - first, answer.ended - answer.first))
    return sum(off) / len(off)


def _check(plays: Sequence[Sequence[Answered]], model: EngineModel) -> None:
    if not plays or not all(plays):
        raise InvalidRequest("there is no answer to fit to. fix: pilothouse bench --stream --answers FILE")
    for play in plays:
        changes = sorted([(one.began, 1) for one in play] + [(one.ended, -1) for one in play])
        most = max(accumulate(change for _, change in changes))
        if most > model.slots:
            raise InvalidRequest(
                f"{most} answers were under way at once, but the engine has {model.slots} slots: "
                "some waited, and that is not the engine's speed. fix: fewer at once, or say `slots`"
            )


def _apart(played_s: float, real_s: float) -> float:
    return abs(math.log(max(played_s, _LEAST_S) / max(real_s, _LEAST_S)))


def _played(play: Sequence[Answered], model: EngineModel) -> Iterator[tuple[float, float]]:
    """First and last token of each on the virtual engine."""
    replica = VirtualReplica("", 0, model, play[0].began)
    ends: dict[Request, float] = {}

    def until(now: float) -> None:
        while (at := replica.due()) <= now:
            for done in replica.happened(at)[1]:
                ends[done] = at + replica.request_s

    requests = []
    for answer in play:
        until(answer.began)
        requests.append(Request("", answer.began, answer.prompt, answer.output, 0))
        replica.begin(requests[-1], 0, answer.began)
    while len(ends) < len(requests):
        until(replica.due())
    return ((request.first_at, ends[request]) for request in requests)


def _around(model: EngineModel, stride: float) -> Iterator[EngineModel]:
    """Neighbours: each time alone, and those of a step together, for a machine that is slower in all."""
    for names in (*((name,) for name in TIMES), TIMES[:3]):
        for factor in (math.exp(stride), math.exp(-stride)):
            times = {name: max(getattr(model, name), _LEAST_MS) * factor for name in names}
            if times.get("request_ms", 0.0) <= _MOST_REQUEST_MS:
                yield replace(model, **times)
