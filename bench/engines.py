"""
Each engine that is installed here: what Pilothouse adds to it, and what it costs to have and to lose it.

The whole program serves one replica. A pair is the same streamed requests once through the gateway and
once straight to the engine, by its own protocol, each on a new connection; pairs are interleaved and
change their order, and are one request by each way, for a machine that is shared changes its speed
within seconds: a short one for the first token, a longer one for the CPU of a token, where the gateway's
is charged with every process of Pilothouse and the engine, the direct one with the engine alone. What
Pilothouse does once a second falls into some pairs and not into others, so that ratio is one of totals.
It is taken with a model that people might serve, and with a toy, whose tokens cost so little that any
program beside it shows. Then the engine is killed with -9 under load.

    python bench/engines.py [--engine NAME] [--part PART] [--firsts N] [--pairs N] [--toys N] [--kills N]

An engine is one row of `rig/rows.py`; one with two protocols has two, `NAME, PROTOCOL`. A part takes a few
minutes alone on the machine, and `page.py` puts the parts of an engine together.
"""

import contextlib
import itertools
import json
import os
import signal
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from msgspec import Struct
from msgspec.structs import replace

from pilothouse.app.engines import engine_drivers
from rig.askers import asking
from rig.client import Door
from rig.machine import cpu_s, family
from rig.report import Figure, Report, figure, options, publish, tell, upper_bound, upper_bound_of_totals
from rig.rows import DEADLINE_S, ENDPOINT, ROWS, Row, openai
from rig.server import Server, server, wait_until

TOKENS, CLIENTS = 24, 2
FIRST_TOKENS = 2
"""Of an answer whose first is timed: the shorter, the closer are the two of a pair."""
READY_S = 300.0
COMMON = (
    "one at a time, a new connection for each, the request path compiled (`make fast`); a ratio is one of "
    "totals; a bound is the 95th percentile of what bootstrapped pairs give; memory is the proportional "
    "share (PSS) of all its processes"
)
SLACK_S = 1.0
"""What an answer may come later than its deadline: the deadline is the gateway's, the clock the client's."""


class Part(Struct, frozen=True, kw_only=True):
    """`of`: the option that says how many; `method`: what is done with so many `{0}`, on the model `{1}`."""

    of: str
    method: str
    usual: int
    quick: int
    takes_toy: bool = False


PARTS = {
    "first-token": Part(
        of="firsts",
        method=(
            f"the first token: {{0}} interleaved pairs of a streamed answer of {FIRST_TOKENS} tokens, {{1}}"
        ),
        usual=400,
        quick=40,
        takes_toy=True,
    ),
    "cpu": Part(
        of="pairs",
        method=f"CPU, memory: {{0}} interleaved pairs of a streamed answer of {TOKENS} tokens, {{1}}",
        usual=80,
        quick=10,
    ),
    "toy-cpu": Part(
        of="toys",
        method=f"a toy's CPU: {{0}} interleaved pairs of a streamed answer of {TOKENS} tokens, {{1}}",
        usual=200,
        quick=20,
        takes_toy=True,
    ),
    "kill": Part(
        of="kills",
        method=f"{{0}} kills under {CLIENTS} clients whose deadline is {DEADLINE_S} s, {{1}}",
        usual=3,
        quick=1,
    ),
}


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--engine", default="", help="one engine alone, or one row: `NAME, PROTOCOL`")
    parser.add_argument("--part", choices=PARTS, action="append", help="one alone; may be given again")
    for name, part in PARTS.items():
        parser.add_argument(
            f"--{part.of}", type=int, default=0, help=f"of {name}: {part.usual}, with --quick {part.quick}"
        )
    given = parser.parse_args()
    for row in ROWS:
        if given.engine in ("", row.engine, row.name):
            if engine_drivers()[row.engine].installed().ok:
                publish(_measured(row, given), given)
            else:
                tell(f"{row.engine} is not installed: pilothouse engine install {row.engine}")


def _measured(row: Row, given: Any) -> Report:
    methods: list[str] = []
    figures: list[Figure] = []
    for name, part in PARTS.items():
        if (given.part and name not in given.part) or (name == "toy-cpu" and row.small is None):
            continue
        count = getattr(given, part.of) or (part.quick if given.quick else part.usual)
        model = row.small if part.takes_toy and row.small else row.model
        with TemporaryDirectory(prefix="ph-engines-") as folder:
            spec = Path(folder) / "spec.json"
            spec.write_text(json.dumps(row.spec(model)))
            with server(Path(folder) / "home", config=spec) as running:
                bench = _Bench(running, row)
                run = {
                    "first-token": bench.first_tokens,
                    "cpu": bench.costs,
                    "toy-cpu": bench.toy_costs,
                    "kill": bench.kills,
                }[name]
                figures += run(count)
        methods.append(part.method.format(count, model.about))
    return Report(
        bench=f"engines: {row.name}",
        method="; ".join([*methods, COMMON]),
        peer="the same engine process, asked directly by its own protocol",
        figures=figures,
        is_part=bool(given.part),
    )


class _Bench:
    def __init__(self, running: Server, row: Row) -> None:
        self._server, self._row = running, row
        self._numbers = itertools.count()
        self._engine: dict[str, Any] = {}
        """Of the replica that runs now."""
        self._doors: list[Door] = []
        """The gateway's, and the engine's own."""
        self._starts = [self._start_s()]

    def _start_s(self) -> float:
        """From the birth of the engine's process to ready, which is its first token."""
        gone = self._engine.get("pid")
        wait_until("the engine is ready", lambda: self._find(without=gone), timeout_s=READY_S)
        took_s = time.time() - psutil.Process(self._engine["pid"]).create_time()
        tell(f"{self._row.name}: ready {took_s:.2f} s after its start")
        return took_s

    def first_tokens(self, pairs: int) -> list[Figure]:
        """What Pilothouse adds to the wait for one."""
        self._first_pair(0)  # warms both
        waits = []
        for number in range(pairs):
            waits.append(self._first_pair(number))
            if number % 100 == 99:
                tell(f"{number + 1} of {pairs} pairs of first tokens")
        added = [1000 * (ours - theirs) for ours, theirs in waits]
        return [
            figure("first token, directly", [1000 * theirs for _, theirs in waits], unit="ms"),
            figure("added to it by Pilothouse", added, unit="ms", goal="<= 2"),
            Figure(what="that wait's 95% bound", value=upper_bound(added), unit="ms", samples=pairs),
        ]

    def costs(self, pairs: int) -> list[Figure]:
        """CPU seconds a token, by both ways."""
        memory = Figure(what="memory of the engine", value=self._memory_bytes() / 1e6, unit="MB")
        return [*self._costs(pairs, goal="<= 1.05"), memory]

    def toy_costs(self, pairs: int) -> list[Figure]:
        """Likewise; what is missed with a toy is no goal."""
        return [replace(one, what=f"toy: {one.what}") for one in self._costs(pairs)]

    def _costs(self, pairs: int, *, goal: str = "") -> list[Figure]:
        for side in (0, 1):  # warm both
            max(self._ask(side, TOKENS))
        own, ours, theirs = [], [], []
        for number in range(pairs):
            for side in _order(number):
                before, engine_before = self._own_cpu_s(), cpu_s(self._engine["pid"])
                tokens = max(self._ask(side, TOKENS))
                engine = (cpu_s(self._engine["pid"]) - engine_before) / tokens
                if side:
                    theirs.append(engine)
                else:
                    own.append((self._own_cpu_s() - before) / tokens)
                    ours.append(own[-1] + engine)
            if number % 20 == 19:
                tell(f"{number + 1} of {pairs} pairs: {sum(ours) / sum(theirs):.3f}")
        ratio, bound = sum(ours) / sum(theirs), upper_bound_of_totals(ours, theirs)
        return [
            figure("CPU a token, directly", [1000 * one for one in theirs], unit="ms"),
            figure("CPU a token of Pilothouse's own processes", [1000 * one for one in own], unit="ms"),
            Figure(
                what="CPU a token: through Pilothouse / directly",
                value=ratio,
                unit="x",
                samples=pairs,
                goal=goal,
            ),
            Figure(what="that ratio's 95% bound", value=bound, unit="x", samples=pairs),
        ]

    def kills(self, kills: int) -> list[Figure]:
        """Healthy again after each, and how long it and the new processes took to start."""
        back: list[float] = []
        with asking(self._server, ENDPOINT, at_once=CLIENTS, max_tokens=16) as askers:
            for _ in range(kills):
                time.sleep(1.0)
                began, before = time.monotonic(), askers.answered
                os.kill(self._engine["pid"], signal.SIGKILL)
                self._starts.append(self._start_s())
                wait_until("answers come", lambda seen=before: askers.answered > seen + CLIENTS, timeout_s=60)
                back.append(time.monotonic() - began)
                tell(f"killed: healthy after {back[-1]:.2f} s, {dict(askers.outcomes)}")
        refused = sum(count for what, count in askers.outcomes.items() if what.isdigit() and what != "200")
        return [
            figure("killed: healthy again", back, unit="s"),
            Figure(what="killed: answered meanwhile", value=askers.answered),
            Figure(what="killed: refused with a typed error meanwhile", value=refused),
            Figure(what="killed: hung up without an answer", value=askers.outcomes["lost"], goal="<= 0"),
            Figure(
                what="killed: the slowest answer of all",
                value=askers.slowest_s,
                unit="s",
                goal=f"<= {DEADLINE_S + SLACK_S:.0f}",
            ),
            figure("start to the first token", self._starts, unit="s"),
        ]

    def _memory_bytes(self) -> int:
        return sum(process.memory_full_info().pss for process in family(self._engine["pid"]))

    def _first_pair(self, number: int) -> list[float]:
        """Seconds to the first token, through the gateway and directly."""
        waits = [0.0, 0.0]
        for side in _order(number):
            began = time.monotonic()
            pieces = self._ask(side, FIRST_TOKENS)
            next(pieces)
            waits[side] = time.monotonic() - began
            for _ in pieces:
                pass
        return waits

    def _ask(self, side: int, tokens: int) -> Iterator[int]:
        """One streamed answer, through the gateway (0) or by the engine's own door (1)."""
        prompt = f"{next(self._numbers):06}. Once"
        ask = self._row.ask if side else openai(ENDPOINT)
        return ask(self._doors[side], prompt, tokens)

    def _own_cpu_s(self) -> float:
        """Of every process of Pilothouse."""
        pids = self._server.state()["pids"]
        return sum(
            cpu_s(pid, alone=True) for pid in (pids["supervisor"], pids["controller"], *pids["workers"])
        )

    def _direct(self) -> Door:
        """The engine's own door, with the token that was made for it."""
        tokens = list((self._server.home / "run").rglob("*.token"))
        return Door(self._engine["address"], key=tokens[0].read_text().strip() if tokens else "")

    def _find(self, *, without: int | None) -> bool:
        """Whether there is a ready replica with another process; it is the one from then on."""
        with contextlib.suppress(OSError, urllib.error.URLError, ValueError):
            for item in self._server.get("/admin/v1/replicas")["items"]:
                if item["state"] == "ready" and item["pid"] != without:
                    self._engine = item
                    self._doors = [Door(self._server.url, key=self._server.admin_key), self._direct()]
                    return True
        return False


def _order(number: int) -> tuple[int, int]:
    return (0, 1) if number % 2 else (1, 0)


if __name__ == "__main__":
    main()
