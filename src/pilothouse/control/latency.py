"""
First tokens of the last half minute, by deployment: from the workers' histograms.

The counts are cumulative, so the difference of two looks is what happened in
between; a percentile of it is exact to a bucket, and interpolated within.
"""

from collections import deque

from pilothouse.control.fleet import Fleet
from pilothouse.domain.percentile import bucket_percentile
from pilothouse.kit.metrics import Registry

METRIC = "pilothouse_time_to_first_token_seconds"
LOOK_S = 5.0
"""Merging what all workers counted takes a millisecond: not at every round of the loop."""
LOOKS = 7
FEWEST = 20
"""First tokens, below which 95 % of them is one unlucky caller."""

Counts = dict[str, list[int]]


class FirstTokens:
    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._looks: deque[Counts] = deque(maxlen=LOOKS)
        self._next_at = 0.0
        self._bounds: tuple[float, ...] = ()

    def follow(self, now: float) -> None:
        """Take a look when one is due."""
        if now >= self._next_at:
            self._next_at = now + LOOK_S
            self._looks.append(self._counts())

    def p95_s(self, deployment: str) -> float | None:
        """None with too few to say."""
        if len(self._looks) < 2:
            return None
        last = self._looks[-1].get(deployment, [])
        first = self._looks[0].get(deployment, [0] * len(last))
        counts = [max(0, b - a) for a, b in zip(first, last, strict=True)]
        return bucket_percentile(self._bounds, counts, 0.95) if sum(counts) >= FEWEST else None

    def _counts(self) -> Counts:
        dumps = [report.metrics for report in self._fleet.reports.values() if report.metrics]
        family = Registry.merged(dumps).families.get(METRIC)
        if family is None:
            return {}
        self._bounds = family.bounds
        found: Counts = {}
        for (_, deployment), series in family.series.items():
            known = found.get(deployment, [0] * len(series.buckets))
            found[deployment] = [a + b for a, b in zip(known, series.buckets, strict=True)]
        return found
