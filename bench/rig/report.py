"""
How a bench reports: medians over rounds, ratios to a peer of the same round, goals, a table or JSON.

Absolute figures swing by a factor of two from hour to hour on a shared machine,
so ratios are taken within a round, and their spread is printed.
"""

import argparse
import json
import operator
import statistics
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from random import Random

from msgspec import Struct, to_builtins

from rig.machine import describe

_CLAIMS: dict[str, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le}


class Figure(Struct, frozen=True, kw_only=True):
    """One measured figure: the median of its samples and, where there is one, its goal (">= 0.22")."""

    what: str
    value: float
    unit: str = ""
    low: float = 0.0
    high: float = 0.0
    samples: int = 1
    goal: str = ""

    @property
    def verdict(self) -> str:
        if not self.goal:
            return ""
        claim, bound = self.goal.split()
        return "met" if _CLAIMS[claim](self.value, float(bound)) else "MISSED"

    @property
    def spread(self) -> str:
        """The least and the most of the samples, and how many there were."""
        if self.samples == 1:
            return ""
        count = f"n={self.samples}"
        return f"{number(self.low)} .. {number(self.high)}, {count}" if self.high else count


class Report(Struct, kw_only=True):
    """What a bench found: `peer` is what it was compared with. `docs/benchmarks.md` is made of these."""

    bench: str
    method: str
    figures: list[Figure]
    peer: str = ""
    machine: str = ""
    time: str = ""
    is_quick: bool = False
    is_part: bool = False
    """More figures belong to it, which it does not have."""


def figure(what: str, samples: Sequence[float], *, unit: str = "", goal: str = "") -> Figure:
    return Figure(
        what=what,
        value=statistics.median(samples),
        unit=unit,
        low=min(samples),
        high=max(samples),
        samples=len(samples),
        goal=goal,
    )


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours to theirs, round by round."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def upper_bound(samples: Sequence[float], *, seed: int = 1, rounds: int = 10_000) -> float:
    """
    One-sided 95% bound of the median, by bootstrap.

    Args:
        samples: One value a pair; 20 or more.

    Returns:
        The 95th percentile of the medians of `rounds` resamples.

    Source: the percentile method of Efron (1979).
    """
    random = Random(seed)
    medians = sorted(statistics.median(random.choices(samples, k=len(samples))) for _ in range(rounds))
    return medians[int(0.95 * rounds)]


def upper_bound_of_totals(
    ours: Sequence[float], theirs: Sequence[float], *, seed: int = 1, rounds: int = 2_000
) -> float:
    """
    One-sided 95% bound of the ratio of the totals of pairs, by bootstrap over the pairs.

    Args:
        ours: One value a pair; 20 or more.
        theirs: As many, in the same order.
    """
    random, pairs = Random(seed), list(zip(ours, theirs, strict=True))
    found: list[float] = []
    for _ in range(rounds):
        taken = random.choices(pairs, k=len(pairs))
        found.append(sum(a for a, _ in taken) / sum(b for _, b in taken))
    return sorted(found)[int(0.95 * rounds)]


def options(description: str) -> argparse.ArgumentParser:
    """The options that every bench has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--quick", action="store_true", help="short runs, to see a trend; not for quoting")
    return parser


def tell(text: str) -> None:
    """Progress, beside the result."""
    print(text, file=sys.stderr, flush=True)


def publish(report: Report, given: argparse.Namespace) -> None:
    """Print the report as the options of `options` say."""
    report.machine = describe()
    report.time = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    report.is_quick = given.quick
    if given.json:
        print(json.dumps(to_builtins(report)), flush=True)
        return
    print(f"\n{report.bench}\n{report.machine}\n{report.method}")
    if report.peer:
        print(f"peer: {report.peer}")
    width = max(len(line.what) for line in report.figures)
    for line in report.figures:
        goal = f"goal {line.goal}: {line.verdict}" if line.goal else ""
        value = f"{number(line.value):>10} {line.unit:<9}"
        print(f"  {line.what:{width}}  {value} {line.spread:<34} {goal}".rstrip())


def number(value: float) -> str:
    """Three digits that mean something, without an exponent."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 1000 else f"{value:.1f}" if size >= 100 else f"{value:.4g}"
