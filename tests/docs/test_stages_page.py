"""The table of what a stage costs says what the bench wrote down."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "what-a-stage-costs.md"
SHOWN_FROM = 4.6
"""Loops a request; what costs less is in the row of all others."""


def test_the_page_has_the_figures_of_the_bench() -> None:
    costs: dict[str, float] = json.loads((ROOT / "bench" / "stages.json").read_text())
    rows = dict(re.findall(r"^\| `?([\w/ ]+?)`? \| (\d+) \|", PAGE.read_text(), re.MULTILINE))
    shown = {name: round(cost) for name, cost in costs.items() if cost >= SHOWN_FROM}
    total = round(sum(costs.values()))

    assert {name: int(value) for name, value in rows.items()} == {
        **shown,
        "all others": total - sum(shown.values()),
        "all": total,
    }
