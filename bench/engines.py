"""
Each engine that is installed here: what Pilothouse adds to it, and what it costs to have and to lose it.

The whole program serves one replica. A pair is the same streamed requests once through the gateway and
once straight to the engine, by its own protocol, each on a new connection; pairs are interleaved and
change their order. The gateway's runs are charged with every process of Pilothouse and the engine, the
direct ones with the engine alone. Then the engine is killed with -9 under load.

    python bench/engines.py [--engine NAME] [--quick] [--json] [--pairs N] [--kills N]

An engine is one row of `rig/rows.py`.
"""

import contextlib
import itertools
import json
import os
import signal
import time
import urllib.error
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from msgspec import Struct

from pilothouse.app.engines import engine_drivers
from rig.askers import asking
from rig.client import Door
from rig.machine import cpu_s, family
from rig.report import Figure, Report, figure, options, publish, ratios, tell, upper_bound
from rig.rows import DEADLINE_S, ENDPOINT, ROWS, Row, openai
from rig.server import Server, server, wait_until

TOKENS, REQUESTS, CLIENTS = 48, 4, 2
READY_S = 300.0
SLACK_S = 1.0
"""What an answer may come later than its deadline: the deadline is the gateway's, the clock the client's."""


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--engine", default="", help="one engine alone")
    parser.add_argument(
        "--pairs", type=int, default=0, help="interleaved pairs; by default 20, with --quick 4"
    )
    parser.add_argument("--kills", type=int, default=0, help="by default 3, with --quick 1")
    given = parser.parse_args()
    for row in ROWS:
        if given.engine in ("", row.engine):
            if engine_drivers()[row.engine].installed().ok:
                publish(_measured(row, given.pairs or (4 if given.quick else 20), given), given)
            else:
                tell(f"{row.engine} is not installed: pilothouse engine install {row.engine}")


def _measured(row: Row, pairs: int, given: Any) -> Report:
    kills = given.kills or (1 if given.quick else 3)
    with TemporaryDirectory(prefix="ph-engines-") as folder:
        spec = Path(folder) / "spec.json"
        spec.write_text(json.dumps(row.spec()))
        with server(Path(folder) / "home", config=spec) as running:
            bench = _Bench(running, row)
            starts = [bench.start_s()]
            figures = [*bench.compare(pairs), bench.memory(), *bench.kill(kills, starts)]
    return Report(
        bench=f"engines: {row.engine}",
        method=(
            f"{row.model}; {pairs} interleaved pairs of {REQUESTS} streamed answers of up to {TOKENS} "
            "tokens, one at a time, a new connection for each; the bound is the 95th percentile of "
            "bootstrapped medians of the pairs' ratios; memory is the proportional share (PSS) of all its "
            f"processes; {kills} kills under {CLIENTS} clients whose deadline is {DEADLINE_S} s"
        ),
        peer="the same engine process, asked directly by its own protocol",
        figures=[*figures, figure("start to the first token", starts, unit="s")],
    )


class _Run(Struct):
    """What some requests took: seconds to the first piece of each, and CPU seconds a token of all."""

    first_s: list[float]
    cpu_s_per_token: float


class _Bench:
    def __init__(self, running: Server, row: Row) -> None:
        self._server, self._row = running, row
        self._numbers = itertools.count()
        self._engine: dict[str, Any] = {}
        """Of the replica that runs now."""

    def start_s(self) -> float:
        """From the birth of the engine's process to ready, which is its first token."""
        gone = self._engine.get("pid")
        wait_until("the engine is ready", lambda: self._find(without=gone), timeout_s=READY_S)
        took_s = time.time() - psutil.Process(self._engine["pid"]).create_time()
        tell(f"{self._row.engine}: ready {took_s:.2f} s after its start")
        return took_s

    def compare(self, pairs: int) -> list[Figure]:
        gateway, engine = Door(self._server.url, key=self._server.admin_key), self._direct()
        through: list[_Run] = []
        bare: list[_Run] = []
        ours = (through, lambda prompt: openai(ENDPOINT)(gateway, prompt, TOKENS), True)
        theirs = (bare, lambda prompt: self._row.ask(engine, prompt, TOKENS), False)
        for _, ask, charge_all in (ours, theirs):  # warm both
            self._run(ask, charge_all=charge_all)
        for number in range(pairs):
            for runs, ask, charge_all in (ours, theirs) if number % 2 else (theirs, ours):
                runs.append(self._run(ask, charge_all=charge_all))
            tell(f"pair {number + 1} of {pairs}")
        costs = ratios([run.cpu_s_per_token for run in through], [run.cpu_s_per_token for run in bare])
        added = [
            1000 * (a - b)
            for ours_, theirs_ in zip(through, bare, strict=True)
            for a, b in zip(ours_.first_s, theirs_.first_s, strict=True)
        ]
        return [
            figure("first token, directly", [1000 * s for run in bare for s in run.first_s], unit="ms"),
            figure("added to it by Pilothouse", added, unit="ms", goal="<= 2"),
            figure("CPU a token, directly", [1000 * run.cpu_s_per_token for run in bare], unit="ms"),
            figure("CPU a token: through Pilothouse / directly", costs, unit="x", goal="<= 1.05"),
            Figure(what="that ratio's 95% bound", value=upper_bound(costs), unit="x", samples=pairs),
        ]

    def memory(self) -> Figure:
        used = sum(process.memory_full_info().pss for process in family(self._engine["pid"]))
        return Figure(what="memory of the engine", value=used / 1e6, unit="MB")

    def kill(self, kills: int, starts: list[float]) -> list[Figure]:
        """Healthy again after each; `starts` gets how long the new processes took."""
        back: list[float] = []
        with asking(self._server, ENDPOINT, at_once=CLIENTS, max_tokens=16) as askers:
            for _ in range(kills):
                time.sleep(1.0)
                began, before = time.monotonic(), askers.answered
                os.kill(self._engine["pid"], signal.SIGKILL)
                starts.append(self.start_s())
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
        ]

    def _run(self, ask: Any, *, charge_all: bool) -> _Run:
        first: list[float] = []
        tokens = 0
        before = self._cpu_s(charge_all=charge_all)
        for _ in range(REQUESTS):
            began = time.monotonic()
            pieces = ask(f"{next(self._numbers):06}. Once")
            said = next(pieces)
            first.append(time.monotonic() - began)
            tokens += max([said, *pieces])
        return _Run(first, (self._cpu_s(charge_all=charge_all) - before) / tokens)

    def _cpu_s(self, *, charge_all: bool) -> float:
        used = cpu_s(self._engine["pid"])
        if charge_all:
            pids = self._server.state()["pids"]
            used += sum(
                cpu_s(pid, alone=True) for pid in (pids["supervisor"], pids["controller"], *pids["workers"])
            )
        return used

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
                    return True
        return False


if __name__ == "__main__":
    main()
