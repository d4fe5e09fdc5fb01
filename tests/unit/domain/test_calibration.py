"""A threshold is chosen by what it does to labelled pairs, and what was seen has a bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.calibration import Scored, choose_threshold, line_at, upper_bound

PAIRS = [
    Scored(0.99, agrees=True, same=True),
    Scored(0.92, agrees=True, same=True),
    Scored(0.91, agrees=False, same=False),
    Scored(0.90, agrees=True, same=False),
    Scored(0.80, agrees=True, same=True),
    Scored(0.30, agrees=True, same=False),
]


def test_a_line_counts_right_and_wrong_hits():
    line = line_at(PAIRS, 0.90)

    assert (line.hits, line.wrong) == (3, 1)
    assert line.precision == pytest.approx(2 / 3)
    assert line.recall == pytest.approx(2 / 3)
    assert line.wrong_rate == pytest.approx(1 / 3)
    assert line.wrong_rate < line.wrong_rate_below <= 1


def test_without_the_rules_more_is_hit():
    assert line_at(PAIRS, 0.90, guarded=False).wrong == 2


def test_the_threshold_with_the_most_right_hits_among_the_allowed_is_chosen():
    chosen = choose_threshold(PAIRS, [0.79, 0.90, 0.91, 0.95], most_wrong=0.0)

    assert chosen is not None
    assert chosen.threshold == 0.91


def test_where_none_is_good_enough_none_is_chosen():
    bad = [Scored(1.0, agrees=True, same=False), Scored(0.9, agrees=True, same=True)]

    assert choose_threshold(bad, [0.5, 0.95], most_wrong=0.0) is None


@pytest.mark.parametrize(("events", "trials", "bound"), [(0, 100, 0.0295), (1, 100, 0.0466), (5, 5, 1.0)])
def test_the_bound_is_that_of_clopper_and_pearson(events, trials, bound):
    assert upper_bound(events, trials) == pytest.approx(bound, abs=5e-4)


@given(st.integers(0, 50), st.integers(1, 200))
def test_the_bound_is_above_what_was_seen_and_falls_with_more_trials(events, more):
    trials = events + more

    assert events / trials <= upper_bound(events, trials) <= 1
    assert upper_bound(events, trials + 10) <= upper_bound(events, trials)
