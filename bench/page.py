"""
Write `docs/benchmarks.md` from the benches' own JSON, so that no figure is typed by hand.

    python bench/all.py --json > results.jsonl
    python bench/page.py < results.jsonl            # the whole page
    python bench/page.py --update < some.jsonl      # only the sections of these, the others stay

Reports of one bench are its parts, and become one section.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import structs

from rig.report import Report, number

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"

INTRODUCTION = """\
<!-- Written by bench/page.py from the benches' output: run `make bench ARGS=--json`, never edit. -->

# Benchmarks

What was measured, against what, and how. Run it on your machine: `make bench`. The method stands in \
[bench/README.md](../bench/README.md); each bench prints its peer and the ratio. Ratios are taken \
within a round, for absolute figures of a shared machine swing by a factor of two from hour to hour.

A figure is the median of its samples; the spread is the least and the most of them. A missed goal is \
shown as missed.
"""


def main() -> None:
    reports = [msgspec.json.decode(line, type=Report) for line in sys.stdin if line.startswith("{")]
    if any(report.is_quick for report in reports):
        sys.exit("a quick run shows a trend and is not for quoting: run the benches without --quick")
    parts: dict[str, list[Report]] = {}
    for report in reports:
        parts.setdefault(report.bench, []).append(report)
    sections = {heading(text): text for text in (section(joined(some)) for some in parts.values())}
    if "--update" in sys.argv[1:]:
        kept = PAGE.read_text().split("\n## ")[1:]
        sections = {heading(text): text for text in (f"## {one.rstrip()}\n" for one in kept)} | sections
    PAGE.write_text("\n".join([INTRODUCTION, *sections.values()]))


def joined(parts: Sequence[Report]) -> Report:
    """Parts of one bench as one report: a figure of a later one takes the place of an earlier one's."""
    figures = {line.what: line for part in parts for line in part.figures}
    methods = dict.fromkeys(words for part in parts for words in part.method.split("; "))
    return structs.replace(parts[-1], method="; ".join(methods), figures=list(figures.values()))


def heading(text: str) -> str:
    return text.partition("\n")[0]


def section(report: Report) -> str:
    title, _, about = report.bench.partition(": ")
    lines = [f"## {title.capitalize()}: {about}", "", f"{report.method}.", ""]
    if report.peer:
        lines += [f"Peer: {report.peer}.", ""]
    lines += ["| figure | median | spread | goal | |", "|---|--:|---|---|---|"]
    for line in report.figures:
        value = f"{number(line.value)} {line.unit}".strip()
        lines.append(f"| {line.what} | {value} | {line.spread} | {line.goal} | {line.verdict} |")
    return "\n".join([*lines, "", f"Measured {report.time} on {report.machine}.", ""])


if __name__ == "__main__":
    main()
