"""A replica that fails is left alone for a while, and retries are paid for."""

from timeit import timeit

from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.breaker import (
    EJECTED_MOST_S,
    EJECTED_S,
    FAILURES,
    HEALTHY,
    RETRIES_SAVED,
    RETRY_SHARE,
    Health,
    RetryBudget,
    after_failure,
    after_success,
    probed,
)


def failed(times: float, *, now: float = 100.0, team: str = "a") -> Health:
    health = HEALTHY
    for _ in range(int(times)):
        health = after_failure(health, team, now)
    return health


def test_some_failures_in_a_row_eject():
    assert failed(FAILURES - 1).admits("a", 100.0)
    assert not failed(FAILURES).admits("a", 100.0)


def test_one_probe_is_sent_after_the_pause():
    ejected = failed(FAILURES)
    later = 100.0 + EJECTED_S

    assert not ejected.admits("a", later - 0.01)
    assert ejected.admits("a", later)
    assert not probed(ejected, later).admits("a", later + 1)


def test_a_probe_that_fails_doubles_the_pause_up_to_a_bound():
    health, pauses = failed(FAILURES), []
    for _ in range(8):
        now = health.until
        health = after_failure(probed(health, now), "a", now)
        pauses.append(health.until - now)

    assert pauses[:3] == [2 * EJECTED_S, 4 * EJECTED_S, 8 * EJECTED_S]
    assert pauses[-1] == EJECTED_MOST_S


def test_a_probe_that_succeeds_brings_it_back_at_once():
    assert after_success(probed(failed(FAILURES), 105.0), "a") is HEALTHY


def test_a_probe_that_was_lost_blocks_nothing_for_good():
    lost = probed(failed(FAILURES), 105.0)

    assert lost.admits("a", lost.until)


def test_a_healthy_replica_needs_no_probe():
    assert probed(HEALTHY, 1.0) is HEALTHY


def test_one_that_fails_every_third_time_stays():
    health = HEALTHY
    for _ in range(1000):
        health = after_success(after_success(after_failure(health, "a", 1.0), "a"), "a")

    assert not health.is_ejected


def test_one_that_fails_three_times_of_four_goes():
    health = HEALTHY
    for _ in range(20):
        for _ in range(3):
            health = after_failure(health, "a", 1.0)
        health = after_success(health, "a") if not health.is_ejected else health

    assert health.is_ejected


def test_a_team_whose_requests_fail_takes_no_replica_from_others():
    poisoned = failed(50, team="poison")

    assert not poisoned.admits("poison", 100.0)
    assert poisoned.admits("other", 100.0)
    assert not after_success(poisoned, "other").admits("poison", 100.0)


def test_what_fails_for_a_second_team_is_closed_to_all():
    broken = after_failure(failed(50, team="a"), "b", 100.0)

    assert not any(broken.admits(team, 100.0) for team in ("a", "b", "c"))
    assert after_success(probed(broken, broken.until), "c") is HEALTHY


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_a_team_that_never_failed_alone_is_never_shut_out_alone(outcomes):
    health, failing = HEALTHY, set()
    for team, is_ok in outcomes:
        if is_ok:
            health = after_success(health, team)
        else:
            health = after_failure(health, team, 1.0)
            failing.add(team)
        if len(failing) < 2:
            assert all(health.admits(other, 1.0) for other in "abc" if other not in failing)
        assert health.is_ejected == (not health.admits(health.team or "a", 0.0))


def test_a_success_costs_under_a_microsecond():
    least = min(timeit(lambda: after_success(HEALTHY, "a"), number=10_000) for _ in range(5))

    assert least / 10_000 < 1e-6


def test_retries_are_a_share_of_requests():
    budget = RetryBudget()
    at_the_start = sum(budget.take() for _ in range(100))

    for _ in range(100):
        budget.request()

    assert at_the_start == RETRIES_SAVED
    assert sum(budget.take() for _ in range(100)) == min(RETRIES_SAVED, 100 * RETRY_SHARE)
