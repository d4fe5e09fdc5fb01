from math import exp, isclose, log
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.canary import BETS, Evidence, verdict, weigh

MARGIN = 0.05


def seen(*differences: float, margin: float = MARGIN) -> Evidence:
    evidence = Evidence()
    for difference in differences:
        evidence = weigh(evidence, difference, margin=margin)
    return evidence


def decide(evidence: Evidence, alpha: float = 0.01) -> str:
    return verdict({"quality": evidence}, required=["quality"], alpha=alpha)


def test_nothing_seen_decides_nothing():
    assert decide(Evidence()) == "undecided"


def test_one_that_always_fails_is_rolled_back_within_ten_pairs():
    assert decide(seen(*[-1.0] * 10)) == "roll_back"


def test_one_that_never_differs_is_promoted():
    assert decide(seen(*[0.0] * 160)) == "promote"
    assert decide(seen(*[0.0] * 60)) == "undecided"


def test_one_that_is_better_is_promoted_sooner():
    assert decide(seen(*[0.0, 0.5] * 20)) == "promote"


def test_the_money_is_that_of_the_formula():
    evidence = seen(-1.0, 0.5, 0.0)
    worse = [(1 + bet) * (1 - bet * 0.5) for bet in BETS]
    fine = [
        (1 + b * (-1 + MARGIN)) * (1 + b * (0.5 + MARGIN)) * (1 + b * MARGIN)
        for b in (bet / (1 - MARGIN) for bet in BETS)
    ]

    assert isclose(exp(evidence.log_e_worse), sum(worse) / len(BETS))
    assert isclose(exp(evidence.log_e_fine), sum(fine) / len(BETS))
    assert isclose(evidence.mean_difference, -0.5 / 3)


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0.001, 0.5))
def test_each_game_is_fair_at_the_edge_of_its_claim(a, b, margin):
    """Of two outcomes whose mean is the claim's edge, the expected money is what it was."""
    for edge, name in ((0.0, "log_e_worse"), (-margin, "log_e_fine")):
        low, high = sorted((a, b))
        if not low < edge < high:
            continue
        chance = (edge - low) / (high - low)
        money = [exp(getattr(seen(value, margin=margin), name)) for value in (low, high)]

        assert isclose((1 - chance) * money[0] + chance * money[1], 1.0, rel_tol=1e-9)


def test_a_fault_in_one_score_is_enough_to_roll_back_and_all_required_ones_must_be_fine():
    bad, good = seen(*[-1.0] * 20), seen(*[0.0] * 200)

    assert verdict({"a": good, "b": bad}, required=["a"], alpha=0.01) == "roll_back"
    assert verdict({"a": good, "b": Evidence()}, required=["a", "b"], alpha=0.01) == "undecided"
    assert verdict({"a": good, "b": Evidence()}, required=["a"], alpha=0.01) == "promote"
    assert verdict({"a": good}, required=["a", "judge"], alpha=0.01) == "undecided"


def test_many_scores_share_the_chance_of_a_false_alarm():
    alarm = seen(*[-1.0] * 10)
    assert log(100) < alarm.log_e_worse < log(800)

    assert decide(alarm) == "roll_back"
    assert verdict({"a": alarm, **{str(n): Evidence() for n in range(7)}}, required=["a"], alpha=0.01) == (
        "undecided"
    )


@pytest.mark.parametrize(("drop", "wrong"), [(0.0, "roll_back"), (0.05, "promote")])
def test_watched_at_every_pair_it_is_seldom_wrong(drop, wrong):
    random = Random(7)
    mistakes = 0
    for _ in range(60):
        evidence = Evidence()
        while (decided := decide(evidence, alpha=0.05)) == "undecided":
            chance = random.random()
            difference = -1.0 if chance < 0.02 + drop else 1.0 if chance < 0.04 + drop else 0.0
            evidence = weigh(evidence, difference, margin=0.05)
        mistakes += decided == wrong

    assert mistakes <= 6
