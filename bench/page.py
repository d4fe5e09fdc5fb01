"""
Write `docs/benchmarks.md` from the benches' own JSON, so that no figure is typed by hand.

    python bench/all.py --json > results.jsonl
    python bench/page.py < results.jsonl            # the whole page
    python bench/page.py --update < some.jsonl      # only the sections of these, the others stay

Reports of one bench are its parts, and become one section. Where that is a part still, the figures that
it does not have stay as they were, and the section says of when they are and how they were measured.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import structs

from rig.report import Report, number

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"

_EARLIER = "From an earlier run: "

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
    sections: dict[str, str] = {}
    if "--update" in sys.argv[1:]:
        kept = PAGE.read_text().split("\n## ")[1:]
        sections = {heading(text): text for text in (f"## {one.rstrip()}\n" for one in kept)}
    for report in map(joined, parts.values()):
        text = section(report)
        former = sections.get(heading(text), "") if report.is_part else ""
        sections[heading(text)] = with_rest(text, former)
    PAGE.write_text("\n".join([INTRODUCTION, *sections.values()]))


def joined(parts: Sequence[Report]) -> Report:
    """Parts of one bench as one report: a figure of a later one takes the place of an earlier one's."""
    figures = {line.what: line for part in parts for line in part.figures}
    methods = dict.fromkeys(words for part in parts for words in part.method.split("; "))
    is_part = all(part.is_part for part in parts)
    return structs.replace(
        parts[-1], method="; ".join(methods), figures=list(figures.values()), is_part=is_part
    )


def with_rest(text: str, former: str) -> str:
    """A section, with those rows of the one before it that it does not have, and where they come from."""
    rows, before = _rows(text), _rows(former)
    left = {what: row for what, row in before.items() if what not in rows}
    if not left:
        return text
    told = [line for line in former.splitlines() if line.startswith(_EARLIER)]
    are_older = {what for line in told for what in _names(line)}
    method = former.splitlines()[2].removesuffix(".")
    measured = next(line for line in former.splitlines() if line.startswith("Measured "))
    time = measured.removeprefix("Measured ").partition(" on ")[0]
    newer = ", ".join(f"`{one}`" for one in left if one not in are_older)
    now = f"{_EARLIER}{newer}; measured {time}: "
    notes = [f"{now}{method}."] if left.keys() - are_older else []
    for line in told:
        if named := [what for what in _names(line) if what in left]:
            words = line.partition("; ")[2]
            notes.append(f"{_EARLIER}{', '.join(f'`{one}`' for one in named)}; {words}")
    last = list(rows.values())[-1]
    return "\n".join([text.replace(last, "\n".join([last, *left.values()])), *(f"{one}\n" for one in notes)])


def _rows(text: str) -> dict[str, str]:
    """Of a section's table, by their figures."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines[1:]}


def _names(line: str) -> list[str]:
    return [one.strip("`") for one in line.removeprefix(_EARLIER).partition("; ")[0].split(", `")]


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
