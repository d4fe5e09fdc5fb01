"""
What workers lose that know only their own requests, where `least_load` chooses among replicas.

The production policy in a simulation: requests come at random to any of some
workers, four replicas serve eight each at full speed and more of them slower, at
0.8 of what they can. Each worker goes by its own requests in flight; or adds to
those what the engines had half a second ago, as a snapshot could tell; or knows
all there is to know. The figure is the wait for a place at full speed: how many
requests the 99th of a hundred finds where it is sent.

    python bench/balance.py [--quick] [--json]
"""

import heapq
import statistics
from dataclasses import dataclass
from random import Random
from typing import Literal

from pilothouse.domain.routing import least_load
from rig.report import Figure, Report, figure, options, publish

REPLICAS, WIDE, USED = 4, 8, 0.8
TOLD_EVERY_S = 0.5
View = Literal["own", "told", "all"]
WORDS: dict[View, str] = {
    "own": "own requests alone (as it is)",
    "told": "and the engines' load of half a second ago",
    "all": "all requests of all workers, at once",
}


@dataclass(slots=True)
class _Replica:
    load: int
    which: int
    free: int = 1_000_000


def main() -> None:
    given = options(__doc__ or "").parse_args()
    runs, requests = (3, 20_000) if given.quick else (7, 60_000)
    figures: list[Figure] = []
    for workers in (1, 2, 4, 8):
        for view, words in WORDS.items():
            samples = [_run(workers, view, Random(seed), requests) for seed in range(runs)]
            figures.append(figure(f"{workers} workers, {words}: p99 beside", [p99 for p99, _ in samples]))
            figures.append(figure("busiest replica above the mean", [above for _, above in samples]))
    publish(
        Report(
            bench="balance: least_load in several workers, simulated",
            method=(
                f"{runs} runs of {requests:,} requests, {REPLICAS} replicas of {WIDE}, {USED} of their rate; "
                "services of 1 s in the mean; the production policy"
            ),
            peer="the same policy that knows everything",
            figures=figures,
        ),
        given,
    )


def _run(workers: int, view: View, random: Random, requests: int) -> tuple[float, float]:
    """Requests in flight where each was sent, at the 99th percentile; mean of the busiest less the mean."""
    now, told_at = 0.0, 0.0
    ends: list[tuple[float, int, int]] = []
    there = [0] * REPLICAS
    own = [[0] * REPLICAS for _ in range(workers)]
    told = [0] * REPLICAS
    beside: list[int] = []
    above: list[float] = []
    for _ in range(requests):
        now += random.expovariate(USED * REPLICAS * WIDE)
        while ends and ends[0][0] <= now:
            _, which, whose = heapq.heappop(ends)
            there[which] -= 1
            own[whose][which] -= 1
        if now - told_at >= TOLD_EVERY_S:
            told, told_at = list(there), now
        worker = random.randrange(workers)
        if view == "own":
            loads = own[worker]
        elif view == "told":
            loads = [a + b for a, b in zip(told, own[worker], strict=True)]
        else:
            loads = there
        chosen = least_load([_Replica(load, n) for n, load in enumerate(loads)], random.random())
        which = chosen.which if chosen is not None else 0
        there[which] += 1
        own[worker][which] += 1
        slower = max(1.0, there[which] / WIDE)
        heapq.heappush(ends, (now + random.expovariate(1.0) * slower, which, worker))
        beside.append(there[which])
        above.append(max(there) - sum(there) / REPLICAS)
    return float(sorted(beside)[int(0.99 * len(beside))]), statistics.mean(above)


if __name__ == "__main__":
    main()
