"""
What a crash costs, and what sleep does: the real program on the real engine.

Replicas, the controller and the supervisor are killed with -9 under load. Each
request has a connection of its own and no answer begins before it is whole, so
every one that is not answered with 200 counts as failed. Then a deployment is
woken from zero, by one request and by fifty at once.

    python bench/recovery.py [--quick] [--json]
"""

import contextlib
import json
import os
import signal
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from msgspec import Struct

from rig.askers import Askers, asking
from rig.client import Door
from rig.engine import artifact
from rig.machine import free_port
from rig.report import Figure, Report, figure, options, publish, tell
from rig.server import finish, start, stop, wait_until

CLIENTS, HELD, REPLICAS = 4, 50, 2
OPTIONS = {"context_tokens": 512, "slots": 4}
HI: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0, "max_tokens": 2}


def main() -> None:
    given = options(__doc__ or "").parse_args()
    kills, wakes = (1, 2) if given.quick else (5, 5)
    with TemporaryDirectory(prefix="ph-recovery-") as folder:
        spec = Path(folder) / "spec.json"
        spec.write_text(json.dumps(declared(artifact().path)))
        house = _House(Path(folder) / "home", spec)
        try:
            figures = [*house.lose_replicas(kills), *house.lose_processes(kills), *house.wake(wakes)]
        finally:
            house.end()
    report = Report(
        bench="recovery: kill -9 under load, and waking from zero, real engine",
        method=(
            f"SmolLM2, {REPLICAS} replicas of 4 slots, {CLIENTS} clients, a new connection for each; "
            f"{kills} kills of each kind, {wakes} wakes; refused are connections while nobody listened"
        ),
        figures=figures,
    )
    publish(report, given)


def declared(model: str) -> dict[str, Any]:
    awake = {"model": "smollm2", "engine_options": OPTIONS, "replicas": {"min": REPLICAS, "max": REPLICAS}}
    asleep = {
        "model": "smollm2",
        "engine_options": OPTIONS,
        "replicas": {"min": 0, "max": 1, "scale_to_zero_after": "2s"},
    }
    return {
        "version": 1,
        "models": {"smollm2": {"source": f"file:{model}", "licence": "Apache-2.0"}},
        "deployments": {"awake": awake, "asleep": asleep},
        "endpoints": {name: {"routes": [{"deployment": name}]} for name in ("awake", "asleep")},
    }


class _Lost(Struct, frozen=True, kw_only=True):
    """Of one kill, in seconds from it."""

    closed_s: float
    """From the first connection that was refused to the last one."""
    ready_s: float
    """Until all replicas are ready, by the word of the admin API."""
    answers_s: float
    """And until the clients have new answers, one each and one more."""


class _House:
    def __init__(self, home: Path, spec: Path) -> None:
        self._home, self._spec, self._port = home, spec, free_port()
        self._server = start(home, config=spec, port=self._port)
        wait_until("all replicas are ready", lambda: len(self._ready("awake")) == REPLICAS, timeout_s=120)

    def lose_replicas(self, kills: int) -> list[Figure]:
        back = []
        with asking(self._server, "awake", at_once=CLIENTS, max_tokens=8) as askers:
            for _ in range(kills):
                time.sleep(1.0)
                victim = min(self._ready("awake"))
                os.kill(victim, signal.SIGKILL)
                back.append(
                    wait_until("two run again", lambda v=victim: self._is_whole(without=v), timeout_s=60)
                )
                tell(f"replica killed: two again after {back[-1]:.2f} s, {dict(askers.outcomes)}")
        return [
            Figure(what="a replica killed: answered requests", value=askers.answered),
            Figure(what="a replica killed: failed requests", value=askers.failed, goal="<= 0"),
            figure("a replica killed: back to two", back, unit="s", goal="<= 5"),
        ]

    def lose_processes(self, kills: int) -> list[Figure]:
        figures = []
        for role in ("controller", "supervisor"):
            engines, lost = self._ready("awake"), []
            with asking(self._server, "awake", at_once=CLIENTS, max_tokens=8) as askers:
                for _ in range(kills):
                    time.sleep(1.0)
                    lost.append(self._kill(role, askers))
                    tell(f"{role} killed: {lost[-1]}, {dict(askers.outcomes)}")
            kept = len(self._ready("awake") & engines)
            figures += [
                Figure(what=f"the {role} killed: answered requests", value=askers.answered),
                Figure(what=f"the {role} killed: lost or failed requests", value=askers.failed, goal="<= 0"),
                Figure(
                    what=f"the {role} killed: connections refused meanwhile", value=askers.outcomes["refused"]
                ),
                Figure(what=f"the {role} killed: engines not adopted", value=REPLICAS - kept, goal="<= 0"),
                figure(f"the {role} killed: nobody listened", [one.closed_s for one in lost], unit="s"),
                figure(f"the {role} killed: all ready again", [one.ready_s for one in lost], unit="s"),
                figure(
                    f"the {role} killed: all ready and answers again",
                    [one.answers_s for one in lost],
                    unit="s",
                ),
            ]
        return figures

    def wake(self, wakes: int) -> list[Figure]:
        door, first = Door(self._server.url, key=self._server.admin_key), []
        for _ in range(wakes):
            self._until_asleep()
            began = time.monotonic()
            next(iter(door.stream("/v1/chat/completions", {**HI, "model": "asleep"})))
            first.append(time.monotonic() - began)
            tell(f"woken: first token after {first[-1]:.2f} s")
        self._until_asleep()

        def is_answered(_: int) -> bool:
            with contextlib.suppress(RuntimeError, OSError):
                return bool(door.ask("POST", "/v1/chat/completions", {**HI, "model": "asleep"}))
            return False

        with ThreadPoolExecutor(HELD) as pool:
            answered = sum(pool.map(is_answered, range(HELD)))
        return [
            figure("from zero to the first token", first, unit="s", goal="<= 3"),
            Figure(what="held requests answered, of 50 at once", value=answered, goal=f">= {HELD}"),
        ]

    def end(self) -> None:
        stop(self._home)
        finish(self._server.process)

    def _kill(self, role: str, askers: Askers) -> "_Lost":
        pid = self._server.state()["pids"][role]
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        if role == "supervisor":
            finish(self._server.process)
            self._start_again()
        else:
            wait_until("it is a new one", lambda: self._controller() not in (0, pid), timeout_s=60)
        wait_until("all are ready", lambda: len(self._ready("awake")) == REPLICAS, timeout_s=60)
        ready_s = time.monotonic() - began
        before = askers.answered  # each may have one that was answered already
        wait_until("answers come", lambda: askers.answered > before + CLIENTS, timeout_s=60)
        refused = [at for at in askers.refused_at if at >= began]
        return _Lost(
            closed_s=max(refused) - min(refused) if refused else 0.0,
            ready_s=ready_s,
            answers_s=time.monotonic() - began,
        )

    def _start_again(self) -> None:
        """As a service manager would: again and again, for the dead one's workers may still hold the port."""
        ends = time.monotonic() + 60
        while True:
            try:
                self._server = start(self._home, config=self._spec, port=self._port)
            except RuntimeError:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.2)
            else:
                return

    def _controller(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int(self._server.state()["pids"]["controller"])
        return 0

    def _ready(self, deployment: str) -> set[int]:
        """Processes of its ready replicas; none while the admin API is away."""
        with contextlib.suppress(OSError, urllib.error.URLError, ValueError):
            items = self._server.get("/admin/v1/replicas")["items"]
            return {
                one["pid"] for one in items if one["deployment"] == deployment and one["state"] == "ready"
            }
        return set()

    def _is_whole(self, *, without: int) -> bool:
        ready = self._ready("awake")
        return len(ready) == REPLICAS and without not in ready

    def _until_asleep(self) -> None:
        def is_asleep() -> bool:
            with contextlib.suppress(OSError, urllib.error.URLError, ValueError):
                items = self._server.get("/admin/v1/replicas")["items"]
                return all(one["deployment"] != "asleep" or one["state"] == "stopped" for one in items)
            return False

        wait_until("it sleeps", is_asleep, timeout_s=60)


if __name__ == "__main__":
    main()
