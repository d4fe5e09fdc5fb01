"""
Releases by the thousand, each watched after every pair: how often is the canary wrong?

Simulated: the production code weighs pairs of yes-or-no scores. A prompt flips by
chance in 3 of 100 pairs, and a worse candidate fails in so many more. A release
that is undecided after its last pair is rolled back.

    python bench/canary.py [--quick] [--json] [--seed N]
"""

import statistics
from collections.abc import Iterator
from random import Random

from msgspec import Struct

from pilothouse.domain.canary import Evidence, Verdict, verdict, weigh
from rig.report import Figure, Report, options, publish, tell

FLIPS = 0.03
MARGIN = 0.02
ALPHA = 0.01
MAX_PAIRS = 10_000


class Release(Struct, frozen=True):
    decision: Verdict
    pairs: int


def release(drop: float, random: Random) -> Release:
    evidence = Evidence()
    for difference in differences(drop, random):
        evidence = weigh(evidence, difference, margin=MARGIN)
        decision = verdict({"quality": evidence}, required=["quality"], alpha=ALPHA)
        if decision != "undecided":
            return Release(decision, evidence.pairs)
    return Release("roll_back", MAX_PAIRS)


def differences(drop: float, random: Random) -> Iterator[float]:
    fails, mends = FLIPS / 2 + drop, FLIPS / 2
    for _ in range(MAX_PAIRS):
        chance = random.random()
        yield -1.0 if chance < fails else 1.0 if chance < fails + mends else 0.0


def share(releases: list[Release], decision: Verdict) -> float:
    return 100 * sum(one.decision == decision for one in releases) / len(releases)


def wrong(what: str, releases: list[Release], decision: Verdict) -> Figure:
    return Figure(what=what, value=share(releases, decision), unit="%", samples=len(releases), goal="<= 1")


def pairs(what: str, releases: list[Release], *, goal: str = "") -> Figure:
    taken = [one.pairs for one in releases]
    return Figure(
        what=what,
        value=statistics.median(taken),
        low=min(taken),
        high=max(taken),
        samples=len(taken),
        goal=goal,
    )


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same figures")
    given = parser.parse_args()
    count = 200 if given.quick else 2000
    found: dict[float, list[Release]] = {}
    for drop in (0.0, MARGIN, 0.05, 0.10):
        random = Random(f"{given.seed}:{drop}")
        found[drop] = [release(drop, random) for _ in range(count)]
        tell(f"a drop of {drop}: done")
    report = Report(
        bench="canary: decisions of simulated releases, watched at every pair",
        method=f"{count} releases each, margin {MARGIN}, alpha {ALPHA}, at most {MAX_PAIRS} pairs, "
        f"{FLIPS:.0%} of the prompts flip by chance, seed {given.seed}",
        figures=[
            wrong("an equal model is rolled back", found[0.0], "roll_back"),
            wrong("a drop of the margin is promoted", found[MARGIN], "promote"),
            wrong("a drop of 5 points is promoted", found[0.05], "promote"),
            pairs("pairs to decide: equal", found[0.0]),
            pairs("pairs to decide: a drop of the margin", found[MARGIN]),
            pairs("pairs to decide: a drop of 5 points", found[0.05], goal="<= 600"),
            pairs("pairs to decide: a drop of 10 points", found[0.10]),
        ],
    )
    publish(report, given)


if __name__ == "__main__":
    main()
