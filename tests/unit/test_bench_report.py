"""What the benches claim follows from what they measured: medians, goals, the bootstrapped bound."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("rig.report")


def test_a_figure_is_the_median_with_its_spread(report: ModuleType):
    figure = report.figure("rate", [3.0, 1.0, 10.0], unit="req/s")

    assert (figure.value, figure.spread) == (3.0, "1 .. 10, n=3")


@pytest.mark.parametrize(
    ("goal", "value", "verdict"),
    [
        ("<= 3", 3.0, "met"),
        ("<= 3", 3.1, "MISSED"),
        (">= 0.22", 0.2, "MISSED"),
        (">= 1.0", 1.2, "met"),
        ("", 9.0, ""),
    ],
)
def test_a_goal_is_met_or_missed(report: ModuleType, goal: str, value: float, verdict: str):
    assert report.Figure(what="x", value=value, goal=goal).verdict == verdict


def test_ratios_are_taken_round_by_round(report: ModuleType):
    assert report.ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]


def test_the_bound_lies_above_the_median_and_within_the_samples(report: ModuleType):
    samples = [1 + number / 100 for number in range(25)]

    bound = report.upper_bound(samples)

    assert 1.12 < bound <= 1.24


def test_the_bound_of_equal_samples_is_that_sample(report: ModuleType):
    assert report.upper_bound([1.02] * 20) == 1.02


def test_the_bound_of_totals_weighs_a_pair_by_its_size(report: ModuleType):
    ours, theirs = [1.01, 2.04] * 20, [1.0, 2.0] * 20

    bound = report.upper_bound_of_totals(ours, theirs)

    assert sum(ours) / sum(theirs) < bound < 1.02


@pytest.mark.parametrize(("value", "text"), [(12345.6, "12,346"), (123.456, "123.5"), (0.012345, "0.01235")])
def test_a_number_shows_the_digits_that_mean_something(report: ModuleType, value: float, text: str):
    assert report.number(value) == text


def test_a_lost_and_a_doubled_record_are_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCH))
    crash = importlib.import_module("crash")

    found = crash.make_report(crash.Stored(["a", "b"], counted=3), ["a", "b", "c"], [1.0], cut=0)

    verdicts = {figure.what: (figure.value, figure.verdict) for figure in found.figures if figure.goal}
    assert verdicts == {
        "acknowledged records lost": (1, "MISSED"),
        "records doubled": (0, "met"),
        "rollups less records": (1, "MISSED"),
    }


def test_parts_of_a_bench_become_one_section(monkeypatch: pytest.MonkeyPatch, report: ModuleType):
    monkeypatch.syspath_prepend(str(BENCH))
    page = importlib.import_module("page")

    def part(what: str, value: float, method: str) -> object:
        return report.Report(
            bench="engines: x", method=method, figures=[report.Figure(what=what, value=value)]
        )

    whole = page.joined([part("a", 1.0, "m; 2 pairs"), part("b", 2.0, "m; 3 kills"), part("a", 4.0, "m")])

    assert [(line.what, line.value) for line in whole.figures] == [("a", 4.0), ("b", 2.0)]
    assert whole.method == "m; 2 pairs; 3 kills"


def test_a_part_leaves_the_other_figures_of_its_section_and_says_of_when_they_are(
    monkeypatch: pytest.MonkeyPatch, report: ModuleType
):
    monkeypatch.syspath_prepend(str(BENCH))
    page = importlib.import_module("page")

    def section(time: str, method: str, **figures: float) -> str:
        lines = [report.Figure(what=what.replace("_", " "), value=value) for what, value in figures.items()]
        return page.section(
            report.Report(bench="engines: x", method=method, figures=lines, time=time, machine="here")
        )

    text = section("1 UTC", "by day", cpu_a_token=1.0, first=2.0, killed=3.0)
    text = page.with_rest(section("tuesday", "by night", cpu_a_token=4.0), text)
    text = page.with_rest(section("friday", "at noon", first=5.0), text)

    assert page._rows(text) == {
        "first": "| first | 5 |  |  |  |",
        "cpu a token": "| cpu a token | 4 |  |  |  |",
        "killed": "| killed | 3 |  |  |  |",
    }
    assert [line for line in text.splitlines() if "easured" in line] == [
        "Measured friday on here.",
        "From an earlier run: `cpu a token`; measured tuesday: by night.",
        "From an earlier run: `killed`; measured 1 UTC: by day.",
    ]
    assert page.with_rest(text, "") == text
