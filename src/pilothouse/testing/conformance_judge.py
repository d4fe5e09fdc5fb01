"""
What every `ports.judge.Judge` does.

Subclass `JudgeConformance` in a test file and give it the fixtures `judge`,
`good` (an answer worth 1) and `bad` (one worth 0).
"""

import time

import pytest

from pilothouse.ports.judge import MAX_CHARS, Judge

STRANGE = [
    "",
    " ",
    "\x00",
    "\ud800",
    "{" * 5000,
    "[" * 100_000,
    '"' * 1000,
    "a" * (10 * MAX_CHARS),
    "1" * 30_000,
]


class JudgeConformance:
    def test_it_has_a_name(self, judge: Judge) -> None:
        assert judge.name

    def test_a_good_answer_is_worth_one_and_needs_no_reason(self, judge: Judge, good: str) -> None:
        assert (judge.score(good).value, judge.score(good).reason) == (1.0, "")

    def test_a_bad_answer_is_worth_nothing_and_says_why(self, judge: Judge, bad: str) -> None:
        score = judge.score(bad)

        assert score.value == 0.0
        assert score.reason

    def test_the_same_answer_is_worth_the_same(self, judge: Judge, good: str, bad: str) -> None:
        assert judge.score(good) == judge.score(good)
        assert judge.score(bad) == judge.score(bad)

    @pytest.mark.parametrize("answer", STRANGE, ids=range(len(STRANGE)))
    def test_no_answer_makes_it_raise_or_wait(self, judge: Judge, answer: str) -> None:
        began = time.process_time()

        assert 0.0 <= judge.score(answer).value <= 1.0
        assert time.process_time() - began < 0.5
