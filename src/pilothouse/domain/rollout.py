"""
A rollout: a candidate beside what serves now, until it is promoted or rolled back.

As a shadow, where that is asked for, it answers copies that nobody sees; then, as a
canary, it answers some of the requests.

Pure: observations and time in, the next state out. All of it is one value that
is stored whole, so a controller that dies in the middle goes on from it. What
the workers serve follows from `weights` alone.
"""

from collections.abc import Mapping
from statistics import median
from typing import Literal

from msgspec import Struct, field
from msgspec.structs import replace

from pilothouse.domain.canary import (
    Evidence,
    Verdict,
    promote_bound,
    rollback_bound,
    unpraised,
    verdict,
    weigh,
)

RolloutPhase = Literal["waiting", "shadow", "canary", "promoting", "promoted", "rolled_back", "aborted"]
Arm = Literal["stable", "candidate"]

ACTIVE: tuple[RolloutPhase, ...] = ("waiting", "shadow", "canary", "promoting")
ANSWERS = "answers"
"""The score of whether a request was answered at all."""
FIRST_TOKEN, NEXT_TOKEN = "first_token", "next_token"
FAULTS = frozenset(
    {
        "upstream_error",
        "engine_unavailable",
        "overloaded",
        "deadline_exceeded",
        "internal",
        "context_length_exceeded",
    }
)
"""Outcomes that speak against who answered. A refusal by policy, and a caller who left, say nothing."""
_LEARN = 20
"""Times of what serves now, from whose median the bound of "fast enough" is taken when no SLO says it."""
_TOLERANCE = 2.0
"""Times that median is too slow: on shared processors chance alone moves times by tens of per cent."""
_POINTS = 60
"""Of the history that is drawn; beyond it every second one goes."""


class RolloutPolicy(Struct, frozen=True, kw_only=True):
    """How it is decided, as declared when it began: later edits change the next rollout."""

    shadow_pairs: int = 0
    """Requests that the candidate answers unseen before it gets any; 0 is none."""
    steps: tuple[int, ...] = (5, 25, 50)
    step_pairs: int = 50
    margin: float = 0.02
    alpha: float = 0.01
    max_pairs: int = 10_000
    max_duration_s: float | None = 24 * 3600.0
    ttft_slo_s: float | None = None
    judges: tuple[str, ...] = ()
    """Scores without which nothing is promoted."""


class Observation(Struct, frozen=True, kw_only=True):
    """What one request showed. Scores are 0..1; times are None where there are none."""

    arm: Arm
    scores: dict[str, float] = field(default_factory=dict)
    ttft_ms: float | None = None
    tpot_ms: float | None = None


class HalfPair(Struct, frozen=True):
    """Scores that wait for their counterpart: the sum and number of each arm's."""

    stable: float = 0.0
    stables: int = 0
    candidate: float = 0.0
    candidates: int = 0


class Point(Struct, frozen=True):
    """The evidence at one moment: by score, the logarithms of both e-values."""

    time: float
    pairs: int
    weight: int
    evidence: dict[str, tuple[float, float]]


class Rollout(Struct, frozen=True, kw_only=True):
    id: str
    endpoint: str
    stable: str
    """The deployment that serves when it begins."""
    candidate: str
    policy: RolloutPolicy
    author: str
    started_at: float
    phase: RolloutPhase = "waiting"
    reason: str = ""
    """Why it is in this phase; a sentence."""
    changed_at: float = 0.0
    ended_at: float | None = None
    step: int = 0
    shadowed: int = 0
    """Pairs of the shadow, once it is over."""
    step_began: int = 0
    """Pairs when the present step began."""
    evidence: dict[str, Evidence] = field(default_factory=dict)
    halves: dict[str, HalfPair] = field(default_factory=dict)
    learned: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Times of what serves now, while the bound is being learned."""
    bounds_ms: dict[str, float] = field(default_factory=dict)
    history: tuple[Point, ...] = ()

    @property
    def is_active(self) -> bool:
        return self.phase in ACTIVE

    @property
    def pairs(self) -> int:
        known = self.evidence.get(ANSWERS)
        return known.pairs if known else 0

    @property
    def weight(self) -> int:
        """Per cent of the requests that the candidate gets."""
        if self.phase == "canary":
            return self.policy.steps[min(self.step, len(self.policy.steps) - 1)]
        return 100 if self.phase == "promoting" else 0

    @property
    def required(self) -> tuple[str, ...]:
        """Times and opinions count for a promotion where half of the requests have them: a few never end."""
        others = [
            name
            for name, one in self.evidence.items()
            if 2 * one.pairs >= self.pairs and name != ANSWERS and name not in self.policy.judges
        ]
        return (ANSWERS, *self.policy.judges, *others)

    @property
    def log_rollback_at(self) -> float:
        """What the logarithm of any score's money against "no worse" must reach."""
        return rollback_bound(self.policy.alpha, len(self.evidence))

    @property
    def log_promote_at(self) -> float:
        """What those of all required scores against "worse by the margin" must reach."""
        return promote_bound(self.policy.alpha)

    @property
    def verdict(self) -> Verdict:
        return verdict(self.evidence, required=self.required, alpha=self.policy.alpha)


def observe(rollout: Rollout, seen: Observation, now: float) -> Rollout:
    """Take in one request; those that come when nothing is compared change nothing."""
    if rollout.phase != "canary":
        return rollout
    rollout, scores = _with_times(rollout, seen)
    before = rollout.pairs
    for name, score in scores.items():
        rollout = _paired(rollout, name, seen.arm, score)
    return _drawn(rollout, now) if rollout.pairs > before else rollout


def compare(rollout: Rollout, stable: Observation, candidate: Observation, now: float) -> Rollout:
    """Take in one request that both answered, the candidate unseen; it is a pair by itself."""
    if rollout.phase != "shadow":
        return rollout
    rollout, ours = _with_times(rollout, stable)
    rollout, theirs = _with_times(rollout, candidate)
    evidence = dict(rollout.evidence)
    for name in sorted(ours.keys() & theirs.keys()):
        difference = theirs[name] - ours[name]
        evidence[name] = weigh(evidence.get(name, Evidence()), difference, margin=rollout.policy.margin)
    return _drawn(replace(rollout, evidence=evidence), now)


def advance(rollout: Rollout, now: float, *, is_ready: bool, failure: str) -> Rollout:
    """
    Decide, from the evidence so far and how the candidate is.

    Args:
        is_ready: A replica of the candidate is ready.
        failure: Why none is and none will be soon; "" when that is not so.
    """
    if rollout.phase not in ("waiting", "shadow", "canary"):
        return rollout
    limit_s = rollout.policy.max_duration_s
    if failure and not is_ready:
        return end(rollout, "rolled_back", f"the candidate does not run: {failure}", now)
    if limit_s is not None and now - rollout.started_at >= limit_s:
        return end(rollout, "rolled_back", "undecided when its time was over", now)
    if rollout.phase == "waiting":
        if not is_ready:
            return rollout
        first: RolloutPhase = "shadow" if rollout.policy.shadow_pairs else "canary"
        return replace(rollout, phase=first, reason="", changed_at=now)
    return _judged(rollout, now)


def end(rollout: Rollout, phase: RolloutPhase, reason: str, now: float) -> Rollout:
    """The state in which nothing is compared any more."""
    ended_at = None if phase == "promoting" else now
    return replace(
        _drawn(rollout, now, is_last=True), phase=phase, reason=reason, changed_at=now, ended_at=ended_at
    )


def weights(rollout: Rollout, routes: Mapping[str, int]) -> dict[str, int]:
    """
    Weights by deployment, of all routes of the endpoint; the stable one shares its own.

    Args:
        routes: As declared.
    """
    share = rollout.weight
    found = {name: weight * 100 for name, weight in routes.items() if name != rollout.candidate}
    own = routes.get(rollout.stable, 0) or 1
    found[rollout.stable] = own * (100 - share)
    found[rollout.candidate] = own * share
    return found


def _judged(rollout: Rollout, now: float) -> Rollout:
    decided = rollout.verdict
    if decided == "roll_back":
        name = max(rollout.evidence, key=lambda name: rollout.evidence[name].log_e_worse)
        difference = rollout.evidence[name].mean_difference
        reason = f"worse in `{name}`: {difference:+.3f} on average over {rollout.evidence[name].pairs} pairs"
        return end(rollout, "rolled_back", reason, now)
    if rollout.pairs >= rollout.policy.max_pairs:
        return end(rollout, "rolled_back", f"undecided after {rollout.pairs} pairs", now)
    if rollout.phase == "shadow":
        return rollout if rollout.pairs < rollout.policy.shadow_pairs else _shown(rollout, now)
    if rollout.pairs - rollout.step_began < rollout.policy.step_pairs:
        return rollout
    if rollout.step + 1 < len(rollout.policy.steps):
        return replace(rollout, step=rollout.step + 1, step_began=rollout.pairs, changed_at=now)
    if decided == "promote":
        return end(rollout, "promoting", f"not worse by {rollout.policy.margin}: {rollout.pairs} pairs", now)
    return rollout


def _shown(rollout: Rollout, now: float) -> Rollout:
    """
    From the shadow to the first step.

    A copy is only sent where a place is free, so its times flatter: what they showed
    in its favour is not taken along, only what they showed against it.
    """
    evidence = {
        name: unpraised(one) if name in (FIRST_TOKEN, NEXT_TOKEN) else one
        for name, one in rollout.evidence.items()
    }
    pairs = rollout.pairs
    return replace(
        rollout, phase="canary", changed_at=now, shadowed=pairs, step_began=pairs, evidence=evidence
    )


def _with_times(rollout: Rollout, seen: Observation) -> tuple[Rollout, dict[str, float]]:
    """Its scores, those of its times among them: fast enough is 1, too slow is 0."""
    scores = dict(seen.scores)
    for name, value in ((FIRST_TOKEN, seen.ttft_ms), (NEXT_TOKEN, seen.tpot_ms)):
        if value is None:
            continue
        bound = rollout.bounds_ms.get(name)
        if bound is None and name == FIRST_TOKEN and rollout.policy.ttft_slo_s is not None:
            bound = rollout.policy.ttft_slo_s * 1000
        if bound is not None:
            scores[name] = 1.0 if value <= bound else 0.0
        elif seen.arm == "stable":
            rollout = _learned(rollout, name, value)
    return rollout, scores


def _learned(rollout: Rollout, name: str, value: float) -> Rollout:
    """The bound is fixed before anything is compared with it, so that it takes no side."""
    times = (*rollout.learned.get(name, ()), value)
    if len(times) < _LEARN:
        return replace(rollout, learned={**rollout.learned, name: times})
    left = {key: one for key, one in rollout.learned.items() if key != name}
    return replace(rollout, learned=left, bounds_ms={**rollout.bounds_ms, name: _TOLERANCE * median(times)})


def _paired(rollout: Rollout, name: str, arm: Arm, score: float) -> Rollout:
    """
    One pair is the candidate's mean against that of the others since the last pair.

    With 5 % of the requests, each of the candidate's is compared with about 19: that
    takes a third fewer of them than one against one. Which arm a request goes to is
    decided without looking at it, so the mean of each is fair.
    """
    half = rollout.halves.get(name, HalfPair())
    if arm == "stable":
        half = replace(half, stable=half.stable + score, stables=half.stables + 1)
    else:
        half = replace(half, candidate=half.candidate + score, candidates=half.candidates + 1)
    if not half.stables or not half.candidates:
        return replace(rollout, halves={**rollout.halves, name: half})
    difference = half.candidate / half.candidates - half.stable / half.stables
    known = rollout.evidence.get(name, Evidence())
    evidence = {**rollout.evidence, name: weigh(known, difference, margin=rollout.policy.margin)}
    return replace(rollout, evidence=evidence, halves={**rollout.halves, name: HalfPair()})


def _drawn(rollout: Rollout, now: float, *, is_last: bool = False) -> Rollout:
    """A point for the picture: all at first, then fewer and fewer."""
    history = rollout.history
    gap = max(1, history[-1].pairs // (_POINTS // 2)) if history else 1
    if history and not is_last and rollout.pairs - history[-1].pairs < gap:
        return rollout
    evidence = {
        name: (round(one.log_e_worse, 3), round(one.log_e_fine, 3)) for name, one in rollout.evidence.items()
    }
    kept = history if len(history) < _POINTS else history[::2]
    return replace(rollout, history=(*kept, Point(now, rollout.pairs, rollout.weight, evidence)))
