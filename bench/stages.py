"""
What each stage of the request path costs, and whether one has become twice as dear.

One gateway worker under the profiler, interpreted, on the mock, in a closed loop;
processor time of its thread by file, for a file is a stage. The profiler makes all of it
slower, so figures are not microseconds but loops: how often a fixed loop of a few
lines runs in that time, on the same machine under the same profiler. That holds
on other machines too. `stages.json` has what they were; --check fails when a
stage that counts has doubled, and --update writes it anew.

    python bench/stages.py [--check] [--update] [--json]
"""

import json
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from rig.instruments import body_file, load, mock
from rig.report import Figure, Report, options, publish, tell
from rig.worker import gateway_worker

BASELINE = Path(__file__).with_name("stages.json")
SOURCE = "/pilothouse/"
LEAST_LOOPS = 3.0
"""Stages below it are noise: half a microsecond or so."""
DOUBLED = 2.0
WARM_REQUESTS = 500
REQUESTS = 5_000
"""The same number always: what is done once is a part of each stage's cost."""


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--check", action="store_true", help="fail when a stage has doubled")
    parser.add_argument("--update", action="store_true", help="write stages.json anew")
    given = parser.parse_args()
    stages = measure()
    before: dict[str, float] = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    publish(_report(stages, before), given)
    if given.update:
        BASELINE.write_text(
            json.dumps({name: round(cost, 2) for name, cost in stages.items()}, indent=1) + "\n"
        )
    if given.check and (dear := doubled(stages, before)):
        for line in dear:
            tell(line)
        sys.exit(1)


def measure() -> dict[str, float]:
    """Loops a request by stage, the dearest first."""
    with TemporaryDirectory() as folder, mock() as upstream:
        out = Path(folder) / "profile.json"
        with gateway_worker(upstream, program=("-m", "rig.profiled", str(out)), compiled=False) as worker:
            body = body_file(Path(folder), kind="numbered")
            warm = load(worker.port, body, requests=WARM_REQUESTS, headers=worker.headers)
            result = load(worker.port, body, requests=REQUESTS, headers=worker.headers)
        found = json.loads(out.read_text())
    if result.failed or warm.failed:
        raise RuntimeError(f"{result.failed + warm.failed} requests failed: {result.fault or warm.fault}")
    answered = result.answered + warm.answered
    costs: dict[str, float] = {}
    for file, seconds in found["seconds"].items():
        name = file.partition(SOURCE)[2].removesuffix(".py") if SOURCE in file else "libraries"
        if name != "libraries" or "rig" not in file:
            costs[name] = costs.get(name, 0.0) + seconds * 1e6 / answered / found["loop_us"]
    return dict(sorted(costs.items(), key=lambda item: -item[1]))


def doubled(stages: dict[str, float], before: dict[str, float]) -> list[str]:
    """
    What to say of each stage that costs twice what it did. New ones have no past.

    A machine that slows down between the loop and the requests makes every stage
    dearer alike: what the median stage gained is put down to the machine.
    """
    counted = {name: was for name, was in before.items() if name in stages and was >= LEAST_LOOPS}
    usual = max(1.0, median(stages[name] / was for name, was in counted.items())) if counted else 1.0
    return [
        f"{name} costs {stages[name]:.1f} loops a request and did {was:.1f}, the median stage {usual:.2f}x. "
        "fix: make it cheaper, or say why and run bench/stages.py --update"
        for name, was in before.items()
        if name in stages and stages[name] > DOUBLED * max(was, LEAST_LOOPS) * usual
    ]


def _report(stages: dict[str, float], before: dict[str, float]) -> Report:
    figures = [Figure(what="all stages", value=sum(stages.values()), unit="loops")]
    for name, cost in stages.items():
        if cost >= LEAST_LOOPS / 3:
            was = f" (was {before[name]:.1f})" if name in before else " (new)"
            figures.append(Figure(what=name + was, value=cost, unit="loops"))
    return Report(
        bench="stages: processor time of a request by stage, one worker on the mock, under the profiler",
        method="a closed loop with 32 connections; in runs of a fixed loop under the same profiler",
        peer="the same stages as stages.json has them",
        figures=figures,
    )


if __name__ == "__main__":
    main()
