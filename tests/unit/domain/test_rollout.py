from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pilothouse.domain.rollout import (
    ANSWERS,
    FIRST_TOKEN,
    Observation,
    Rollout,
    RolloutPolicy,
    advance,
    compare,
    end,
    observe,
    weights,
)

POLICY = RolloutPolicy(steps=(10, 50), step_pairs=5, margin=0.1, alpha=0.05, max_pairs=500)


def begun(policy: RolloutPolicy = POLICY) -> Rollout:
    rollout = Rollout(
        id="r1", endpoint="e", stable="old", candidate="new", policy=policy, author="k", started_at=0.0
    )
    return advance(rollout, 1.0, is_ready=True, failure="")


def seen(arm: Any, score: float = 1.0, **more: Any) -> Observation:
    return Observation(arm=arm, scores={ANSWERS: score}, **more)


def pairs(rollout: Rollout, count: int, *, stable: float = 1.0, candidate: float = 1.0) -> Rollout:
    for _ in range(count):
        for observation in (seen("stable", stable), seen("candidate", candidate)):
            rollout = observe(rollout, observation, 2.0)
        rollout = advance(rollout, 2.0, is_ready=True, failure="")
    return rollout


def test_it_waits_for_a_candidate_that_is_ready():
    waiting = replace(begun(), phase="waiting")

    assert advance(waiting, 2.0, is_ready=False, failure="") == waiting
    assert waiting.weight == 0
    assert advance(waiting, 2.0, is_ready=True, failure="").weight == 10


def test_an_equal_one_goes_step_by_step_and_is_promoted():
    rollout = begun()

    assert pairs(rollout, 4).weight == 10
    assert pairs(rollout, 5).weight == 50
    promoted = pairs(rollout, 100)
    assert promoted.phase == "promoting"
    assert promoted.weight == 100
    assert promoted.ended_at is None


SHADOWED = replace(POLICY, shadow_pairs=8)


def copies(rollout: Rollout, count: int, *, candidate: float = 1.0, **more: Any) -> Rollout:
    for _ in range(count):
        rollout = compare(rollout, seen("stable", **more), seen("candidate", candidate, **more), 2.0)
        rollout = advance(rollout, 2.0, is_ready=True, failure="")
    return rollout


def test_unseen_it_gets_no_requests_and_goes_on_to_the_first_step_with_what_was_learned():
    shadow = begun(SHADOWED)

    assert (shadow.phase, shadow.weight, shadow.is_active) == ("shadow", 0, True)
    assert copies(shadow, 7).phase == "shadow"
    canary = copies(shadow, 8)
    assert (canary.phase, canary.weight, canary.shadowed, canary.pairs) == ("canary", 10, 8, 8)
    assert canary.evidence[ANSWERS].log_e_fine > 0
    assert pairs(canary, 4).weight == 10, "the steps take their own pairs"
    assert pairs(canary, 5).weight == 50


def test_one_that_fails_unseen_is_rolled_back_before_it_had_a_request():
    rolled_back = copies(begun(replace(POLICY, shadow_pairs=100)), 100, candidate=0.0)

    assert rolled_back.phase == "rolled_back"
    assert rolled_back.pairs < 15
    assert all(point.weight == 0 for point in rolled_back.history)


def test_what_callers_saw_is_not_compared_in_the_shadow_nor_copies_after_it():
    shadow, canary = begun(SHADOWED), begun()

    assert observe(shadow, seen("candidate", 0.0), 2.0) == shadow
    assert compare(canary, seen("stable"), seen("candidate", 0.0), 2.0) == canary


def test_times_of_copies_speak_against_a_candidate_and_never_for_it():
    policy = replace(SHADOWED, shadow_pairs=40, ttft_slo_s=1.0)
    quick = copies(begun(policy), 40, ttft_ms=10.0, tpot_ms=1.0)

    assert quick.phase == "canary"
    assert quick.evidence[FIRST_TOKEN].pairs == 40
    assert quick.evidence[FIRST_TOKEN].log_e_fine == pytest.approx(0.0)
    assert quick.evidence[ANSWERS].log_e_fine > 1.0

    slow = begun(policy)
    for _ in range(40):
        slow = compare(slow, seen("stable", ttft_ms=10.0), seen("candidate", ttft_ms=5000.0), 2.0)
        slow = advance(slow, 2.0, is_ready=True, failure="")
    assert slow.phase == "rolled_back"
    assert FIRST_TOKEN in slow.reason


def test_a_score_that_only_one_of_both_has_is_no_pair():
    both = compare(begun(SHADOWED), seen("stable"), Observation(arm="candidate"), 2.0)

    assert both.pairs == 0
    assert not both.halves


def test_a_worse_one_is_rolled_back_and_says_in_what():
    rolled_back = pairs(begun(), 50, candidate=0.0)

    assert rolled_back.phase == "rolled_back"
    assert "`answers`: -1.000" in rolled_back.reason
    assert rolled_back.pairs < 15
    assert rolled_back.weight == 0


def test_undecided_at_the_end_is_rolled_back():
    policy = replace(POLICY, max_pairs=10)

    assert "undecided after 10" in pairs(begun(policy), 20).reason
    late = advance(begun(), 25 * 3600, is_ready=True, failure="")
    assert (late.phase, late.reason) == ("rolled_back", "undecided when its time was over")


def test_a_candidate_that_does_not_run_is_rolled_back():
    failed = advance(begun(), 2.0, is_ready=False, failure="the model does not fit")

    assert failed.phase == "rolled_back"
    assert "does not fit" in failed.reason
    assert advance(begun(), 2.0, is_ready=True, failure="one of two died").phase == "canary"


def test_each_of_the_few_is_compared_with_all_the_others_since():
    rollout = begun()
    for score in (1.0, 1.0, 0.0, 0.0):
        rollout = observe(rollout, seen("stable", score), 2.0)

    rollout = observe(rollout, seen("candidate"), 2.0)

    assert rollout.pairs == 1
    assert rollout.evidence[ANSWERS].difference == 0.5


def test_without_the_judges_that_were_declared_nothing_is_promoted():
    judged = begun(replace(POLICY, judges=("polite",)))

    assert pairs(judged, 100).phase == "canary"


def test_too_slow_is_what_takes_twice_the_usual_time():
    rollout = begun()
    for _ in range(20):
        rollout = observe(rollout, seen("stable", ttft_ms=100.0), 2.0)
    assert rollout.bounds_ms[FIRST_TOKEN] == 200.0

    for _ in range(60):
        rollout = observe(rollout, seen("stable", ttft_ms=100.0), 2.0)
        rollout = observe(rollout, seen("candidate", ttft_ms=250.0), 2.0)
        rollout = advance(rollout, 2.0, is_ready=True, failure="")

    assert rollout.phase == "rolled_back"
    assert FIRST_TOKEN in rollout.reason


def test_a_promised_time_goes_before_the_usual_one():
    rollout = begun(replace(POLICY, ttft_slo_s=1.0))
    for _ in range(30):
        rollout = observe(rollout, seen("stable", ttft_ms=100.0), 2.0)
        rollout = observe(rollout, seen("candidate", ttft_ms=900.0), 2.0)

    assert rollout.evidence[FIRST_TOKEN].difference == 0.0


def test_the_stable_route_shares_its_own_weight():
    rollout = begun()

    assert weights(rollout, {"old": 100}) == {"old": 9000, "new": 1000}
    assert weights(rollout, {"old": 60, "other": 40}) == {"other": 4000, "old": 5400, "new": 600}
    assert weights(replace(rollout, phase="promoting"), {"old": 100, "new": 0}) == {"old": 0, "new": 10000}
    assert weights(replace(rollout, phase="waiting"), {"old": 100})["new"] == 0


def test_what_ended_takes_in_nothing_more():
    aborted = end(begun(), "aborted", "by k", 3.0)

    assert observe(aborted, seen("candidate"), 4.0) == aborted
    assert advance(aborted, 99.0, is_ready=False, failure="dead") == aborted
    assert not aborted.is_active


def test_the_history_stays_short_and_ends_with_the_end():
    rollout = pairs(begun(replace(POLICY, max_pairs=400, margin=0.001, step_pairs=400)), 500)

    assert rollout.phase == "rolled_back"
    assert 10 <= len(rollout.history) <= 60
    assert rollout.history[-1].pairs == 400


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_stored_at_any_moment_it_goes_on_as_it_would_have(seed, cut):
    random = Random(seed)
    story = [seen(random.choice(["stable", "candidate"]), random.random()) for _ in range(80)]

    def run(rollout: Rollout, part: list[Observation]) -> Rollout:
        for observation in part:
            rollout = advance(observe(rollout, observation, 2.0), 2.0, is_ready=True, failure="")
        return rollout

    middle = msgspec.json.decode(msgspec.json.encode(run(begun(), story[:cut])), type=Rollout)

    assert run(middle, story[cut:]) == run(begun(), story)
