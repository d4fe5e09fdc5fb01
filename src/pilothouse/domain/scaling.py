"""
How many replicas a deployment should have, from what it does now.

Pure: the same rule, state, signals and time give the same decision, in
production and in a simulation. Up is decided in seconds, down in minutes: a
replica too many costs a little, one too few costs every caller. A replica that
loads counts as one that runs, so a slow start never starts another.
"""

from math import ceil

from msgspec import Struct
from msgspec.structs import replace

from pilothouse.domain.duration import parse_duration_s
from pilothouse.domain.schedule import window_at
from pilothouse.domain.spec import ReplicaRange


class ScalingRule(Struct, frozen=True, kw_only=True):
    """What is declared, as it holds at one moment."""

    least: int = 1
    """Replicas of a deployment that is awake; 0 is the same as 1, but it begins asleep."""
    most: int = 1
    sleeps_after_s: float | None = None
    """Idle for so long, it goes to zero; None is never."""
    target_inflight: int = 0
    """Requests that one replica should have; 0 is 80 % of its places."""
    ttft_slo_s: float | None = None
    """What 95 % of first tokens must come within."""


class Signals(Struct, frozen=True, kw_only=True):
    """What one deployment does now."""

    inflight: int = 0
    """Requests that hold a place in an engine."""
    queued: int = 0
    """Requests that wait for a place; those held for a deployment that sleeps too."""
    arrived: int = 0
    """Requests since the signals before: short ones come and go unseen between two looks."""
    ready: int = 0
    loading: int = 0
    """Replicas that are on their way to their first token."""
    places: int = 0
    """Requests that one replica answers at once; 0 is not known yet."""
    kv_used: float | None = None
    """Mean over the ready replicas, 0..1."""
    ttft_p95_s: float | None = None
    """Of the last half minute; None with too few to say."""


class ScalingState(Struct, frozen=True, kw_only=True):
    """What one decision hands to the next. Times are those of `now`."""

    desired: int
    changed_at: float
    active_at: float
    """When it last had work, or was loading."""
    above_since: float | None = None
    """Since when more was needed than is there."""
    below_since: float | None = None
    """Since when less would do."""
    peak: int = 0
    """The most that was needed since then."""
    reason: str = ""
    """Why `desired` is what it is: a word."""


class ScalingPace(Struct, frozen=True, kw_only=True):
    """How calm the decisions are. Seconds, or shares of 1."""

    up_after_s: float = 3.0
    """So long must more be needed: a burst that the places swallow starts nothing."""
    up_again_s: float = 15.0
    """Between two steps up for slowness: the last one must show first."""
    down_after_s: float = 120.0
    """So long must less be enough, and so long nothing be changed: a start costs seconds of a processor."""
    fullness: float = 0.8
    """Of its places, what a replica should use when no target is declared."""
    slack: float = 0.7
    """Down only when the rest would be used to no more than this share of its target."""
    kv_high: float = 0.9
    """Above it, engines begin to throw out what they will need again."""


PACE = ScalingPace()


def can_sleep(replicas: ReplicaRange) -> bool:
    """Whether requests may find it without a replica and wake it."""
    ranges = [(replicas.min, replicas.max), *((w.min, w.max) for w in replicas.schedule)]
    return any(most > 0 for _, most in ranges) and (
        replicas.scale_to_zero_after != "never" or any(least == 0 for least, _ in ranges)
    )


def rule_at(replicas: ReplicaRange, unix_s: float, *, ttft_slo_s: float | None = None) -> ScalingRule:
    """The rule that holds at that moment: in a window that asks for replicas nothing sleeps."""
    window = window_at(replicas.schedule, unix_s)
    sleeps_after_s = parse_duration_s(replicas.scale_to_zero_after, param="scale_to_zero_after")
    return ScalingRule(
        least=window.min if window else replicas.min,
        most=window.max if window else replicas.max,
        sleeps_after_s=None if window and window.min else sleeps_after_s,
        target_inflight=replicas.target_inflight,
        ttft_slo_s=ttft_slo_s,
    )


def first_state(rule: ScalingRule, running: int, now: float) -> ScalingState:
    """Where it begins, with what runs already: after a crash of the controller that is what was wanted."""
    desired = min(max(running, rule.least), rule.most)
    return ScalingState(desired=desired, changed_at=now, active_at=now, reason="declared")


def scale(
    rule: ScalingRule,
    state: ScalingState,
    signals: Signals,
    now: float,
    *,
    pace: ScalingPace = PACE,
) -> ScalingState:
    """The next state. Call it as often as you like: nothing depends on how often."""
    is_used = signals.inflight + signals.queued + signals.arrived > 0
    if is_used or signals.loading:
        state = replace(state, active_at=now)
    bounded = _bounded(rule, state.desired, is_used=is_used)
    if bounded != state.desired:
        return _changed(state, bounded, now, "woken" if not state.desired and is_used else "declared")
    if not bounded:
        return state
    idle_s = 0.0 if is_used or signals.loading else now - max(state.active_at, state.changed_at)
    if rule.sleeps_after_s is not None and idle_s >= rule.sleeps_after_s:
        return _changed(state, 0, now, "idle")
    need, reason, at_once = _need(rule, state, signals, now, pace)
    if need > state.desired:
        since = now if state.above_since is None else state.above_since
        if at_once or now - since >= pace.up_after_s:
            return _changed(state, need, now, reason)
        return replace(state, above_since=since, below_since=None)
    return _down(rule, replace(state, above_since=None), signals, now, pace)


def _bounded(rule: ScalingRule, desired: int, *, is_used: bool) -> int:
    if desired == 0 and not is_used and (rule.least == 0 or rule.sleeps_after_s is not None):
        return 0
    return min(max(desired, rule.least, 1), rule.most)


def _need(
    rule: ScalingRule, state: ScalingState, signals: Signals, now: float, pace: ScalingPace
) -> tuple[int, str, bool]:
    """How many would do, why, and whether there is no time to watch it for a while."""
    load = signals.inflight + signals.queued
    target = _target(rule, signals, pace)
    need, reason = ceil(load / target) if target else state.desired, "load"
    # Twice what it can hold: waiting to see only makes the queue longer.
    at_once = bool(signals.places) and load >= 2 * signals.places * state.desired
    if load and not signals.loading and now - state.changed_at >= pace.up_again_s and need <= state.desired:
        slow = _is_over(signals.ttft_p95_s, rule.ttft_slo_s)
        if slow or _is_over(signals.kv_used, pace.kv_high):
            need, reason, at_once = state.desired + 1, "ttft" if slow else "kv_used", True
    return min(max(need, rule.least, 1), rule.most), reason, at_once


def _down(
    rule: ScalingRule, state: ScalingState, signals: Signals, now: float, pace: ScalingPace
) -> ScalingState:
    """One that loads is never ended for lack of work: what it has cost is paid, its use is to come."""
    load = signals.inflight + signals.queued
    target = _target(rule, signals, pace) * pace.slack
    enough = max(ceil(load / target) if target else state.desired, rule.least, 1)
    if enough >= state.desired or signals.loading or not _is_calm(rule, state, signals, pace):
        return replace(state, below_since=None, peak=0)
    since = now if state.below_since is None else state.below_since
    peak = max(state.peak, enough)
    if now - max(since, state.changed_at) >= pace.down_after_s:
        return _changed(state, peak, now, "load")
    return replace(state, below_since=since, peak=peak)


def _is_calm(rule: ScalingRule, state: ScalingState, signals: Signals, pace: ScalingPace) -> bool:
    """Whether one fewer would still keep the promises."""
    if rule.ttft_slo_s is not None and _is_over(signals.ttft_p95_s, rule.ttft_slo_s * pace.slack):
        return False
    held = (signals.kv_used or 0.0) * state.desired
    return held <= pace.kv_high * pace.slack * (state.desired - 1)


def _target(rule: ScalingRule, signals: Signals, pace: ScalingPace) -> float:
    """0 while nobody knows what one replica can do: then nothing is concluded from its load."""
    if rule.target_inflight or not signals.places:
        return float(rule.target_inflight)
    return max(1.0, signals.places * pace.fullness)


def _is_over(value: float | None, bound: float | None) -> bool:
    return value is not None and bound is not None and value > bound


def _changed(state: ScalingState, desired: int, now: float, reason: str) -> ScalingState:
    return ScalingState(desired=desired, changed_at=now, active_at=state.active_at, reason=reason)
