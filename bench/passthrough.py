"""
What the other protocols cost a request of OpenAI's: the same worker with all of them, and with none.

One has every route and codec; the other never imports those of Anthropic, Ollama, KServe, Responses
and moderations (`rig.openai_only`). The same request, whole and streamed, passes through both to the
mock. Processor time is taken in short turns, one after the other on the same core, and compared turn
by turn; instructions are counted on a simulated processor (valgrind), where there is one.

    python bench/passthrough.py [--quick] [--json] [--turns N]
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from pilothouse.app import compiled
from rig.counted import can_count, counted
from rig.instruments import LoadResult, body_file, load, mock
from rig.machine import on_cpu_us
from rig.report import Figure, Report, figure, options, publish, ratios, tell, upper_bound
from rig.worker import GatewayWorker, gateway_worker

PROGRAMS = {
    "OpenAI alone": ("-m", "rig.openai_only"),
    "all protocols": ("-m", "pilothouse.app.worker"),
}
ALONE, ALL = PROGRAMS
WAYS = {"request": False, "streamed request": True}
EVENTS = 20
"""Of a streamed answer."""
GOAL = "<= 1.02"
REQUESTS = 1_000
"""Of one turn: about 0.1 s of processor time."""
WARM = 300
COUNTED = 400
"""Requests on the simulated processor."""


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--turns", type=int, default=0, help="of each worker; by default 60, with --quick 10")
    given = parser.parse_args()
    turns = given.turns or (10 if given.quick else 60)
    figures: list[Figure] = []
    with TemporaryDirectory() as folder, mock(events=EVENTS, interval_us=0) as upstream:
        bodies = {way: body_file(Path(folder), stream=stream) for way, stream in WAYS.items()}
        took = time_turns(upstream, bodies, turns)
        for way in WAYS:
            pairs = ratios(took[way, ALL], took[way, ALONE])
            figures += [figure(f"{way}: CPU, {name}", took[way, name], unit="us") for name in PROGRAMS]
            figures.append(figure(f"{way}: CPU, all protocols / OpenAI alone", pairs, unit="x"))
            bound = upper_bound(pairs)
            figures.append(Figure(what="that ratio's 95% bound", value=bound, unit="x", samples=turns))
        if can_count():
            figures += count_instructions(upstream, bodies, Path(folder))
    state = "compiled (make fast)" if compiled.default_folder().exists() else "interpreted"
    report = Report(
        bench="passthrough: what the other protocols cost a request of OpenAI's",
        method=f"the request path {state}; {turns} turns of {REQUESTS} requests for each of two workers "
        f"of the same sources, alternating on one core, 32 connections, streams of {EVENTS} events; "
        f"instructions in user space by callgrind, {COUNTED} requests",
        peer="the same worker without the routes and codecs of the other protocols",
        figures=figures,
    )
    publish(report, given)


def time_turns(upstream: int, bodies: dict[str, Path], turns: int) -> dict[tuple[str, str], list[float]]:
    """Microseconds of processor time a request, turn by turn, by way and worker."""
    took: dict[tuple[str, str], list[float]] = {(way, name): [] for way in bodies for name in PROGRAMS}
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(gateway_worker(upstream, program=program))
            for name, program in PROGRAMS.items()
        }
        for worker in workers.values():
            for body in bodies.values():
                _ask(worker, body, WARM)
        for turn in range(turns):
            order: Sequence[str] = list(PROGRAMS) if turn % 2 else list(reversed(PROGRAMS))
            for way, body in bodies.items():
                for name in order:
                    before_us = on_cpu_us(workers[name].pid)
                    answered = _ask(workers[name], body, REQUESTS).answered
                    took[way, name].append((on_cpu_us(workers[name].pid) - before_us) / answered)
            tell(f"turn {turn + 1} of {turns}")
    return took


def count_instructions(upstream: int, bodies: dict[str, Path], folder: Path) -> list[Figure]:
    found: dict[tuple[str, str], float] = {}
    for name, program in PROGRAMS.items():
        with counted(upstream, folder / f"{program[1]}.out", program=program) as measured:
            for way, body in bodies.items():
                _ask(measured.worker, body, WARM)
                with measured.counting(COUNTED) as counts:
                    _ask(measured.worker, body, COUNTED)
                found[way, name] = counts.each
                tell(f"{way}, {name}: {found[way, name]:,.0f} instructions")
    figures: list[Figure] = []
    for way in bodies:
        figures += [
            Figure(what=f"{way}: instructions, {name}", value=found[way, name] / 1000, unit="thousand")
            for name in PROGRAMS
        ]
        ratio = found[way, ALL] / found[way, ALONE]
        what = f"{way}: instructions, all protocols / OpenAI alone"
        figures.append(Figure(what=what, value=ratio, unit="x", goal=GOAL))
    return figures


def _ask(worker: GatewayWorker, body: Path, requests: int) -> LoadResult:
    """
    Raises:
        RuntimeError: One failed.
    """
    result = load(worker.port, body, requests=requests, headers=worker.headers)
    if result.failed:
        raise RuntimeError(f"{result.failed} requests failed: {result.fault}")
    return result


if __name__ == "__main__":
    main()
