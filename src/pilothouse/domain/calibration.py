"""
The threshold of a semantic cache, chosen on labelled pairs, with a bound on what was seen.

A pair is two questions and whether one answer serves both. A wrong hit is a pair
that would be answered with another's answer; how often that can be, given how
often it was seen, is bounded above.

Source: Clopper and Pearson, "The use of confidence or fiducial limits", 1934.
"""

from collections.abc import Sequence
from math import comb

from msgspec import Struct

CONFIDENCE = 0.95


class Scored(Struct, frozen=True):
    """One labelled pair: how near, whether the marks agree, and whether one answer serves both."""

    score: float
    agrees: bool
    same: bool
    kind: str = ""


class Line(Struct, frozen=True, kw_only=True):
    """What a threshold does to the pairs. Rates are shares of 1."""

    threshold: float
    hits: int
    wrong: int
    precision: float
    """Of the hits, those that are right; 1 when there is none."""
    recall: float
    """Of the pairs that one answer serves, those that are hit."""
    wrong_rate: float
    """Of the pairs that need two answers, those that are hit."""
    wrong_rate_below: float
    """Upper bound of that rate, at 95 % confidence."""


def line_at(pairs: Sequence[Scored], threshold: float, *, guarded: bool = True) -> Line:
    """Count the pairs at this threshold, with the rules (`domain.likeness`) or without."""
    hit = [pair for pair in pairs if pair.score >= threshold and (pair.agrees or not guarded)]
    wrong = sum(1 for pair in hit if not pair.same)
    same = sum(1 for pair in pairs if pair.same)
    different = len(pairs) - same
    return Line(
        threshold=threshold,
        hits=len(hit),
        wrong=wrong,
        precision=1 - wrong / len(hit) if hit else 1.0,
        recall=(len(hit) - wrong) / same if same else 0.0,
        wrong_rate=wrong / different if different else 0.0,
        wrong_rate_below=upper_bound(wrong, different),
    )


def choose_threshold(
    pairs: Sequence[Scored], candidates: Sequence[float], *, most_wrong: float
) -> Line | None:
    """The threshold with the most right hits whose rate of wrong ones is at most that, if there is one."""
    lines = [line_at(pairs, threshold) for threshold in candidates]
    allowed = [line for line in lines if line.wrong_rate <= most_wrong and line.hits]
    return max(allowed, key=lambda line: (line.recall, line.threshold), default=None)


def upper_bound(events: int, trials: int, *, confidence: float = CONFIDENCE) -> float:
    """
    The largest rate at which so few events in so many trials are not yet unlikely (one-sided).

    None seen in 100 is below 0.0295 at 95 % confidence.
    """
    if events >= trials:
        return 1.0
    low, high = events / trials, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _at_most(events, trials, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _at_most(events: int, trials: int, rate: float) -> float:
    """Probability of at most so many events."""
    return sum(comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(events + 1))
