"""What commands print."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.cli.output import Output
from pilothouse.cli.text import ago, clean, dollars, size, span

ROWS = [("smollm2-0", "ready", ["a", "b"], None), ("with [red]markup[/red]", "failed", [], "why")]


def test_a_table_has_its_columns_and_no_cut_names_when_piped(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 300

    Output(is_json=False).table(None, ("name", "state"), [(long, "ready")])

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "STATE"]
    assert lines[1].split() == [long, "ready"]


def test_the_routes_of_an_endpoint_are_words_and_no_python(capsys: pytest.CaptureFixture[str]) -> None:
    routes = [{"deployment": "a", "weight": 95}, {"deployment": "b", "weight": 5}]

    Output(is_json=False).facts(None, {"routes": routes})

    assert capsys.readouterr().out.strip() == "routes  deployment a weight 95, deployment b weight 5"


def test_text_of_others_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    Output(is_json=False).table(None, ("name", "state", "list", "reason"), ROWS)

    assert "with [red]markup[/red]" in capsys.readouterr().out


def test_json_is_the_value_on_one_line_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(is_json=True)

    out.line("for people")
    out.table({"items": [1]}, ("name",), [("x",)])

    assert json.loads(capsys.readouterr().out) == {"items": [1]}


@given(st.text())
def test_what_is_printed_cannot_steer_the_terminal(text: str) -> None:
    shown = clean(text)

    assert all(char in "\n\t" or (ord(char) >= 32 and not 127 <= ord(char) < 160) for char in shown)
    shown.encode()


def test_an_escape_sequence_loses_its_escape() -> None:
    assert clean("a\x1b[2Jb\rc\ud800") == "a[2Jbc?"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (98_360_000, "98.4 MB"), (2_500_000_000, "2.5 GB"), (None, "-")],
)
def test_sizes_are_read_at_a_glance(value: float | None, text: str) -> None:
    assert size(value) == text


def test_times_are_in_their_largest_unit() -> None:
    assert [span(s) for s in (0.4, 59, 61, 7200, 200_000)] == ["0s", "59s", "1m", "2h", "2d"]
    assert ago(90.0, now=100.0) == "10s"
    assert ago(0.0) == "-"


def test_costs_below_a_cent_are_not_rounded_away() -> None:
    assert [dollars(n) for n in (0, 1_230_000, 1_234)] == ["$0.00", "$1.23", "$0.0012"]
