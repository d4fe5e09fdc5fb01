from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pilothouse.domain.scaling import (
    PACE,
    ScalingRule,
    ScalingState,
    Signals,
    can_sleep,
    first_state,
    rule_at,
    scale,
)
from pilothouse.domain.schedule import DAY_S
from pilothouse.domain.spec import ReplicaRange, ScheduleWindow

RULE = ScalingRule(least=1, most=4)
SLEEPER = ScalingRule(least=1, most=4, sleeps_after_s=600.0)
MONDAY = 4 * DAY_S


def load(inflight: int = 0, **more: Any) -> Signals:
    return Signals(inflight=inflight, **{"ready": 1, "places": 10, **more})


class Watched:
    """Decides each second, as production does."""

    def __init__(self, rule: ScalingRule, running: int = 1) -> None:
        self.rule = rule
        self.now = 1000.0
        self.state = first_state(rule, running, self.now)

    def pass_by(self, seconds: float, signals: Signals) -> int:
        for _ in range(int(seconds)):
            self.now += 1
            self.state = scale(self.rule, self.state, signals, self.now)
        return self.state.desired


def test_a_burst_that_the_places_swallow_starts_nothing():
    watched = Watched(RULE)

    assert watched.pass_by(PACE.up_after_s, load(10)) == 1
    assert watched.pass_by(1, load(0)) == 1
    assert watched.pass_by(PACE.up_after_s, load(10)) == 1


def test_load_that_lasts_gets_the_replicas_it_needs_in_one_step():
    watched = Watched(RULE)

    assert watched.pass_by(PACE.up_after_s + 1, load(16, queued=2)) == 3
    assert watched.state.reason == "load"


def test_a_queue_of_twice_the_places_waits_for_nothing():
    assert Watched(RULE).pass_by(1, load(10, queued=10)) == 3


def test_never_more_than_the_most():
    assert Watched(RULE).pass_by(10, load(10, queued=1000)) == 4


def test_a_declared_target_goes_before_the_places():
    assert Watched(ScalingRule(least=1, most=4, target_inflight=2)).pass_by(10, load(6)) == 3


def test_a_replica_that_loads_counts_as_one_that_runs():
    watched = Watched(RULE)
    watched.pass_by(4, load(10))

    assert watched.state.desired == 2
    assert watched.pass_by(300, load(10, loading=1)) == 2


def test_fewer_only_after_a_long_calm_and_to_what_the_calm_needed_at_most():
    watched = Watched(RULE, running=4)

    assert watched.pass_by(PACE.down_after_s / 2, load(8)) == 4
    assert watched.pass_by(PACE.down_after_s / 2 + 1, load(1)) == 2
    assert watched.pass_by(PACE.down_after_s + 1, load(1)) == 1


def test_load_at_the_edge_of_a_step_does_not_flap():
    watched = Watched(RULE, running=2)

    for inflight in (7, 9) * 200:
        watched.pass_by(1, load(inflight))

    assert watched.state.desired == 2
    assert watched.state.changed_at == 1000.0


def test_one_that_loads_is_never_ended_for_lack_of_work():
    watched = Watched(replace(RULE, sleeps_after_s=10.0), running=2)

    assert watched.pass_by(1000, load(0, loading=1)) == 2


def test_first_tokens_slower_than_promised_get_one_more_at_a_time():
    watched = Watched(replace(RULE, ttft_slo_s=2.0))
    slow = load(3, ttft_p95_s=2.5)

    assert watched.pass_by(PACE.up_again_s, slow) == 2
    assert watched.state.reason == "ttft"
    assert watched.pass_by(60, load(3, ttft_p95_s=2.5, loading=1)) == 2
    assert watched.pass_by(1, slow) == 3


def test_slowness_without_work_is_not_answered():
    assert Watched(replace(RULE, ttft_slo_s=2.0)).pass_by(100, load(0, ttft_p95_s=9.0)) == 1


def test_a_full_cache_of_keys_and_values_gets_one_more():
    watched = Watched(RULE)

    assert watched.pass_by(PACE.up_again_s, load(3, kv_used=0.95)) == 2
    assert watched.state.reason == "kv_used"


def test_one_that_would_be_missed_is_kept():
    slow = Watched(replace(RULE, ttft_slo_s=2.0), running=2)
    full = Watched(RULE, running=2)

    assert slow.pass_by(1000, load(1, ttft_p95_s=1.5)) == 2
    assert full.pass_by(1000, load(1, kv_used=0.5)) == 2


def test_without_requests_it_sleeps_and_the_next_wakes_it_at_once():
    watched = Watched(SLEEPER)
    watched.pass_by(1, load(1))

    assert watched.pass_by(599, load(0)) == 1
    assert watched.pass_by(1, load(0)) == 0
    assert watched.state.reason == "idle"
    assert watched.pass_by(1, Signals(queued=1)) == 1
    assert watched.state.reason == "woken"


def test_a_request_that_came_and_went_between_two_looks_keeps_it_awake():
    watched = Watched(SLEEPER)
    watched.pass_by(599, load(0))
    watched.pass_by(1, load(0, arrived=1))

    assert watched.pass_by(599, load(0)) == 1


def test_the_time_to_load_is_not_idleness():
    watched = Watched(SLEEPER, running=0)
    watched.pass_by(2000, load(0, loading=1, ready=0))

    assert watched.pass_by(599, load(0)) == 1


def test_with_a_least_of_zero_it_begins_asleep():
    watched = Watched(ScalingRule(least=0, most=2), running=0)

    assert watched.pass_by(10, Signals()) == 0
    assert watched.pass_by(1, Signals(arrived=1)) == 1
    assert watched.pass_by(10_000, load(0)) == 1


def test_a_most_of_zero_is_switched_off():
    assert Watched(ScalingRule(least=0, most=0), running=1).pass_by(10, Signals(queued=5)) == 0


def test_new_bounds_hold_at_once():
    watched = Watched(RULE, running=4)

    watched.rule = ScalingRule(least=1, most=2)
    assert watched.pass_by(1, load(10, loading=1)) == 2
    watched.rule = ScalingRule(least=3, most=4)
    assert watched.pass_by(1, load(0)) == 3


def test_while_nobody_knows_what_a_replica_can_do_nothing_is_concluded_from_load():
    assert Watched(RULE, running=0).pass_by(100, Signals(queued=50, loading=1)) == 1


def test_after_a_crash_it_begins_with_what_runs():
    assert first_state(RULE, 3, 0.0).desired == 3
    assert first_state(RULE, 9, 0.0).desired == 4
    assert first_state(ScalingRule(least=0, most=4), 0, 0.0).desired == 0


def test_in_a_window_other_bounds_hold_and_nothing_sleeps():
    window = ScheduleWindow(days=("mon",), hours="08:00-18:00", min=2, max=3)
    replicas = ReplicaRange(min=0, max=1, scale_to_zero_after="5m", schedule=(window,))

    at_work, at_night = rule_at(replicas, MONDAY + 9 * 3600), rule_at(replicas, MONDAY)

    assert (at_work.least, at_work.most, at_work.sleeps_after_s) == (2, 3, None)
    assert (at_night.least, at_night.most, at_night.sleeps_after_s) == (0, 1, 300.0)


def test_who_can_sleep_says_so():
    assert can_sleep(ReplicaRange(scale_to_zero_after="1h"))
    assert can_sleep(ReplicaRange(min=0))
    assert not can_sleep(ReplicaRange())
    assert not can_sleep(ReplicaRange(min=0, max=0))


SIGNALS = st.builds(
    Signals,
    inflight=st.integers(0, 50),
    queued=st.integers(0, 50),
    arrived=st.integers(0, 3),
    ready=st.integers(0, 4),
    loading=st.integers(0, 2),
    places=st.sampled_from([0, 1, 4, 10]),
    kv_used=st.none() | st.floats(0, 1),
    ttft_p95_s=st.none() | st.floats(0, 10),
)
RULES = st.builds(
    lambda least, more, sleeps: ScalingRule(
        least=least, most=least + more, sleeps_after_s=sleeps, ttft_slo_s=1.0
    ),
    st.integers(0, 3),
    st.integers(0, 3),
    st.none() | st.just(30.0),
)


@given(RULES, st.lists(st.tuples(SIGNALS, st.floats(0.01, 100)), max_size=30))
def test_whatever_comes_the_bounds_hold_and_nothing_that_loads_is_ended(rule, story):
    now = 0.0
    state: ScalingState = first_state(rule, 0, now)
    for signals, pause in story:
        before, now = state, now + pause
        state = scale(rule, before, signals, now)

        can_be_zero = rule.least == 0 or rule.sleeps_after_s is not None
        assert state.desired <= rule.most
        assert state.desired >= (0 if can_be_zero else rule.least)
        assert not (signals.loading and state.desired < before.desired)
        assert scale(rule, before, signals, now) == state
