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


class Report(Struct, kw_only=True):
    """What a bench found. `peer` is what it was compared with; the README of figures quotes `method`."""

    bench: str
    method: str
    figures: list[Figure]
    peer: str = ""
    machine: str = ""


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


def publish(report: Report, *, as_json: bool) -> None:
    report.machine = describe()
    if as_json:
        whole = to_builtins(report)
        for shown, held in zip(whole["figures"], report.figures, strict=True):
            shown["verdict"] = held.verdict
        print(json.dumps(whole))
        return
    print(f"\n{report.bench}\n{report.machine}\n{report.method}")
    if report.peer:
        print(f"peer: {report.peer}")
    width = max(len(line.what) for line in report.figures)
    for line in report.figures:
        spread = f"{number(line.low)} .. {number(line.high)}, n={line.samples}" if line.samples > 1 else ""
        goal = f"goal {line.goal}: {line.verdict}" if line.goal else ""
        print(f"  {line.what:{width}}  {number(line.value):>10} {line.unit:<12} {spread:<34} {goal}".rstrip())


def number(value: float) -> str:
    """Three digits that mean something, without an exponent."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 1000 else f"{value:.1f}" if size >= 100 else f"{value:.4g}"
