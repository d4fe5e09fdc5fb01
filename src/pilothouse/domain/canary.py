"""
Whether a candidate is worse, or fine: two betting e-processes, watched at every pair.

One bets against "it is no worse", the other against "it is worse by the margin or
more". Each is money won by a gambler for whom the claim, if true, is a fair game
at best: so the chance that it ever grows beyond 1/alpha is at most alpha, however
often one looks, and one may stop whenever one likes. A score is any number in
0..1: answered or failed, fast enough or not, a judge's opinion, a thumb.

Source: Waudby-Smith and Ramdas, Estimating means of bounded random variables by
betting (2024); Ville's inequality (1939).
"""

from collections.abc import Iterable, Mapping
from functools import cache
from math import exp, log, log1p
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

BETS = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9)
"""Shares of the money staked on each pair, side by side: nobody knows beforehand which grows fastest."""

Verdict = Literal["promote", "roll_back", "undecided"]

_START = (0.0,) * len(BETS)


class Evidence(Struct, frozen=True):
    """What pairs of one score have shown so far."""

    pairs: int = 0
    difference: float = 0.0
    """Sum over the pairs of the candidate's score less that of what runs now."""
    worse: tuple[float, ...] = _START
    """Logarithm of the money by bet, against "no worse"."""
    fine: tuple[float, ...] = _START
    """The same against "worse by the margin or more"."""

    @property
    def mean_difference(self) -> float:
        return self.difference / self.pairs if self.pairs else 0.0

    @property
    def log_e_worse(self) -> float:
        return _log_mean_exp(self.worse)

    @property
    def log_e_fine(self) -> float:
        return _log_mean_exp(self.fine)


def weigh(evidence: Evidence, difference: float, *, margin: float) -> Evidence:
    """
    Take in one more pair.

    Args:
        difference: -1..1. Score of the candidate less that of what runs now, on the
            same request or on another that chance chose.
        margin: 0..1, above 0. A drop of so much or more must not be promoted.
    """
    worse, fine = _gains(difference, margin)
    return Evidence(
        evidence.pairs + 1,
        evidence.difference + difference,
        tuple([a + b for a, b in zip(evidence.worse, worse, strict=True)]) if difference else evidence.worse,
        tuple([a + b for a, b in zip(evidence.fine, fine, strict=True)]),
    )


def unpraised(evidence: Evidence) -> Evidence:
    """As if nothing had been shown in its favour yet. What was shown against it stays."""
    return replace(evidence, fine=_START)


def verdict(evidence: Mapping[str, Evidence], *, required: Iterable[str], alpha: float) -> Verdict:
    """
    What all scores together say now.

    Rolled back when any of them is shown to be worse, at alpha shared by all of
    them; promoted when each required one is shown to be fine, at alpha each: a
    candidate that is worse in one of them must fool that one.

    Args:
        evidence: By score.
        required: Those without which nothing is promoted.
        alpha: 0..1. Most chance of rolling back an equal candidate, and of
            promoting one that is worse by the margin in any required score.
    """
    alarm, bound = rollback_bound(alpha, len(evidence)), promote_bound(alpha)
    if any(one.log_e_worse >= alarm for one in evidence.values()):
        return "roll_back"
    needed = [evidence.get(name) for name in required]
    if needed and all(one is not None and one.log_e_fine >= bound for one in needed):
        return "promote"
    return "undecided"


def rollback_bound(alpha: float, scores: int) -> float:
    """Logarithm of the money at which one of so many scores rolls back."""
    return log(max(1, scores) / alpha)


def promote_bound(alpha: float) -> float:
    """Logarithm of the money that each required score needs for a promotion."""
    return log(1 / alpha)


@cache
def _won(gain: float, most_lost: float) -> tuple[float, ...]:
    """Logarithm of the factor by bet; `most_lost` is the worst that a pair can cost."""
    return tuple(log1p(bet / most_lost * gain) for bet in BETS)


def _gains(difference: float, margin: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if difference in (-1.0, 0.0, 1.0):  # scores of yes and no, nearly always
        return _won(-difference, 1.0), _won(difference + margin, 1.0 - margin)
    return _won.__wrapped__(-difference, 1.0), _won.__wrapped__(difference + margin, 1.0 - margin)


def _log_mean_exp(logs: tuple[float, ...]) -> float:
    most = max(logs)
    return most + log(sum([exp(one - most) for one in logs]) / len(logs))
