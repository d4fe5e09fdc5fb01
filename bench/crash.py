"""
kill -9 under load, again and again: is an acknowledged record ever lost or doubled?

The real program on the mock. Clients ask, streaming and not, and write down the
`x-request-id` of each answer that they saw to its end. Meanwhile the worker, the
controller and the supervisor are killed in turn. At the end every id written
down must stand in the store once, and the minute rollups must count as many
requests as there are records.

    python bench/crash.py [--quick] [--json] [--kills N]
"""

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import psutil

from rig.instruments import CHAT, mock
from rig.machine import free_port
from rig.report import Figure, Report, figure, options, publish, tell
from rig.server import Server, finish, start, stop, wait_until

CLIENTS = 16
PACE_S = 0.01
"""Pause of a client between two requests: load enough that each kill meets requests in flight."""
ROLES = ("worker", "controller", "supervisor")
SPEC = """\
version: 1
deployments:
  mock:
    engine: openai
    provider_model: mock
    engine_options: {base_url: "http://127.0.0.1:PORT/v1", allow_private_network: true}
endpoints:
  mock:
    routes: [{deployment: mock}]
"""


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--kills", type=int, default=0, help="by default 50, with --quick 9")
    given = parser.parse_args()
    kills = given.kills or (9 if given.quick else 50)
    with (
        TemporaryDirectory(prefix="ph-crash-") as folder,
        mock(delay_us=3000, events=5, interval_us=2000) as upstream,
    ):
        spec = Path(folder) / "spec.yaml"
        spec.write_text(SPEC.replace("PORT", str(upstream)))
        crash = _Crash(Path(folder) / "home", spec)
        try:
            report = crash.run(kills)
        finally:
            crash.end()
    publish(report, given)


class Clients:
    """Clients in a thread of their own; `acknowledged` are the ids of answers seen to the end."""

    def __init__(self, port: int, key: str) -> None:
        self.acknowledged: list[str] = []
        self.cut = 0
        self._port, self._key = port, key
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="clients")
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join(30)

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(stream=bool(number % 2)) for number in range(CLIENTS)))

    async def _client(self, *, stream: bool) -> None:
        body = msgspec.json.encode({**CHAT, "stream": stream})
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {self._key}\r\n"
        request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        while not self._stop.is_set():
            try:
                await self._ask_on_one_connection(request)
            except (OSError, EOFError, ValueError, TimeoutError):
                self.cut += 1
                await asyncio.sleep(0.05)

    async def _ask_on_one_connection(self, request: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            while not self._stop.is_set():
                writer.write(request)
                async with asyncio.timeout(30):
                    status, request_id = await _read_answer(reader)
                if status == 200:
                    self.acknowledged.append(request_id)
                await asyncio.sleep(PACE_S)
        finally:
            writer.close()


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, str]:
    """Status and request id of one answer, read to its end. A stream that was cut is a ValueError."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status = int(head.split(" ", 2)[1])
    headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int((await reader.readuntil(b"\r\n"))[:-2], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
        if b"data: [DONE]" not in body:
            raise ValueError("the stream ended in an error")
    else:
        await reader.readexactly(int(headers["content-length"]))
    return status, headers["x-request-id"]


class _Crash:
    def __init__(self, home: Path, spec: Path) -> None:
        self._home, self._spec, self._port = home, spec, free_port()
        self._server = start(home, config=spec, port=self._port)
        self._clients = Clients(self._port, self._server.admin_key)
        self._random = random.Random(1)

    def run(self, kills: int) -> Report:
        outages = []
        for number in range(kills):
            self._wait_for_progress()
            time.sleep(self._random.uniform(0.2, 1.0))
            role = ROLES[number % len(ROLES)]
            outages.append(self._kill(role))
            tell(f"kill {number + 1} of {kills}: {role}, answers again after {outages[-1]:.2f} s")
        self._wait_for_progress()
        self._clients.end()
        acknowledged = self._clients.acknowledged
        self._wait_for_drain(set(acknowledged))
        return make_report(self._store(), acknowledged, outages, cut=self._clients.cut)

    def end(self) -> None:
        self._clients.end()
        stop(self._home)
        finish(self._server.process)

    def _kill(self, role: str) -> float:
        """Kill one process; seconds until answers come again."""
        pids = self._server.state()["pids"]
        pid = pids["workers"][0] if role == "worker" else pids[role]
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        if role == "supervisor":
            finish(self._server.process)
            self._server = self._start_again()
        else:
            wait_until(f"the {role} is a new one", lambda: pid not in self._pids(), timeout_s=30)
        self._wait_for_progress()
        return time.monotonic() - began

    def _start_again(self) -> Server:
        """As a service manager would: again and again, for the dead one's workers still hold the port."""
        ends = time.monotonic() + 60
        while True:
            try:
                return start(self._home, config=self._spec, port=self._port)
            except RuntimeError:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.2)

    def _pids(self) -> set[int]:
        with contextlib.suppress(OSError, ValueError):
            pids = self._server.state()["pids"]
            return {
                pid
                for pid in (pids["supervisor"], pids["controller"], *pids["workers"])
                if psutil.pid_exists(pid)
            }
        return set()

    def _wait_for_progress(self) -> None:
        before = len(self._clients.acknowledged)
        wait_until(
            "clients get answers", lambda: len(self._clients.acknowledged) > before + CLIENTS, timeout_s=60
        )

    def _wait_for_drain(self, acknowledged: set[str]) -> None:
        """Until all are in the store, or for half a minute: what is missing then is lost."""
        with contextlib.suppress(TimeoutError):
            wait_until(
                "all is drained", lambda: acknowledged <= set(self._store().ids), timeout_s=30, every_s=1.0
            )

    def _store(self) -> "Stored":
        path = next(path for path in self._home.iterdir() if path.suffix in (".db", ".sqlite", ".sqlite3"))
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
            ids = [row[0] for row in database.execute("SELECT id FROM records")]
            counted = database.execute("SELECT sum(requests) FROM usage_minutes").fetchone()[0] or 0
        return Stored(ids, counted)


class Stored(msgspec.Struct):
    """What the store holds: the ids of records, and how many requests the rollups count."""

    ids: list[str]
    counted: int


def make_report(stored: Stored, acknowledged: list[str], outages: list[float], *, cut: int) -> Report:
    kept = set(stored.ids)
    lost = [request_id for request_id in acknowledged if request_id not in kept]
    doubled = len(stored.ids) - len(kept) + len(acknowledged) - len(set(acknowledged))
    figures: list[Figure] = [
        Figure(what="acknowledged answers", value=len(acknowledged)),
        Figure(what="answers cut by a kill, or refused", value=cut),
        Figure(what="records kept", value=len(stored.ids)),
        Figure(what="acknowledged records lost", value=len(lost), goal="<= 0"),
        Figure(what="records doubled", value=doubled, goal="<= 0"),
        Figure(what="rollups less records", value=abs(stored.counted - len(stored.ids)), goal="<= 0"),
    ]
    for number, role in enumerate(ROLES):
        if samples := outages[number :: len(ROLES)]:
            figures.append(figure(f"answers again after the {role} was killed", samples, unit="s"))
    return Report(
        bench="crash: kill -9 under load, mock upstream",
        method=(
            f"{len(outages)} kills, {CLIENTS} clients, half of them streaming; an answer counts as "
            "acknowledged when its last byte (or [DONE]) was read"
        ),
        figures=figures,
    )


if __name__ == "__main__":
    main()
