"""
The whole program for half an hour: the database stopped for a third of it, the controller killed twice.

`pilothouse up` on the mock, with every policy that this version has on, under a
constant rate of requests. From the first third to the second another process
holds the database's write lock (`BEGIN EXCLUSIVE` on SQLite), so that every
write of the controller fails or waits, as when a database is down. The
controller is killed (`kill -9`) once while the database is stopped and once
after it. Then: no client saw an error, the workers' memory is flat, and each
acknowledged request has exactly one record.

    python bench/soak.py [--minutes 30] [--rate 200] [--quick] [--json]
"""

import argparse
import os
import signal
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct, field

from rig.house import House, house
from rig.instruments import LoadResult, body_file, load, mock
from rig.machine import rss_bytes
from rig.report import Figure, Report, options, publish, tell
from rig.server import wait_until

MB = 1e6
SLICE_S = 10.0
"""Load runs in slices, so that the memory is looked at between them."""
DRAINED_S = 180.0
"""The journal holds what the database missed: so long may it take to be written."""


class Soak(Struct):
    """What was seen."""

    answered: int = 0
    failed: int = 0
    faults: list[str] = field(default_factory=list)
    p99_us: float = 0.0
    rss: list[int] = field(default_factory=list)
    kills: int = 0
    stopped_s: float = 0.0

    def follow(self, result: LoadResult) -> None:
        self.answered += result.answered
        self.failed += result.failed
        self.p99_us = max(self.p99_us, result.p99_us)
        if result.fault:
            self.faults.append(result.fault)


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--minutes", type=float, default=0.0, help="by default 30, with --quick 1.5")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second (default: 200)")
    given = parser.parse_args()
    minutes = given.minutes or (1.5 if given.quick else 30.0)
    publish(run(minutes, given), given)


def run(minutes: float, given: argparse.Namespace) -> Report:
    total_s = minutes * 60
    with TemporaryDirectory() as folder, mock() as upstream, house(upstream) as served:
        body = body_file(Path(folder), kind="numbered")
        before = _records(served)
        seen = Soak()
        faults = threading.Thread(target=_break, args=(served, seen, total_s))
        faults.start()
        ends = time.monotonic() + total_s
        while (left_s := ends - time.monotonic()) > 0:
            seconds = min(SLICE_S, max(left_s, 2.0))
            seen.follow(
                load(
                    served.port,
                    body,
                    seconds=seconds,
                    rate=given.rate,
                    headers=served.headers,
                    connections=16,
                )
            )
            seen.rss.append(max(rss_bytes(pid) for pid in served.workers))
            tell(f"{total_s - left_s:5.0f} s: {seen.answered:,} answered, {seen.failed} failed, "
                 f"{seen.rss[-1] / MB:.1f} MB")  # fmt: skip
        faults.join()
        lost, doubled = _compare(served, before, seen.answered)
    return _report(minutes, given.rate, seen, lost=lost, doubled=doubled, on=served.policies)


def _break(served: House, seen: Soak, total_s: float) -> None:
    """The faults, at fixed parts of the time."""
    time.sleep(total_s / 3)
    tell("the database is stopped")
    began = time.monotonic()
    with closing(
        sqlite3.connect(served.server.home / "pilothouse.db", timeout=60, isolation_level=None)
    ) as held:
        held.execute("BEGIN EXCLUSIVE")
        time.sleep(total_s / 6)
        _kill_controller(served, seen)
        time.sleep(total_s / 6)
        held.execute("ROLLBACK")
    seen.stopped_s = time.monotonic() - began
    tell("the database is back")
    time.sleep(total_s / 6)
    _kill_controller(served, seen)


def _kill_controller(served: House, seen: Soak) -> None:
    os.kill(served.server.state()["pids"]["controller"], signal.SIGKILL)
    seen.kills += 1
    tell("the controller is killed")


def _records(served: House) -> Counter[str]:
    """How often each record is in the database, read beside the server."""
    address = f"file:{served.server.home / 'pilothouse.db'}?mode=ro"
    with closing(sqlite3.connect(address, uri=True, timeout=30)) as database:
        return Counter(row[0] for row in database.execute("SELECT id FROM records"))


def _compare(served: House, before: Counter[str], answered: int) -> tuple[int, int]:
    """Records that are missing, and those that are there twice."""

    def is_drained() -> bool:
        return sum(_records(served).values()) - sum(before.values()) >= answered

    try:
        wait_until("all records are in the database", is_drained, timeout_s=DRAINED_S, every_s=1.0)
    except TimeoutError as exc:
        tell(str(exc))
    found = _records(served)
    new = sum(found.values()) - sum(before.values())
    return max(0, answered - new), sum(1 for count in found.values() if count > 1) + max(0, new - answered)


def _report(minutes: float, rate: float, seen: Soak, *, lost: int, doubled: int, on: list[str]) -> Report:
    warm = seen.rss[max(0, len(seen.rss) // 10)]
    for fault in seen.faults[:5]:
        tell(f"fault: {fault}")
    return Report(
        bench=f"soak: the whole program on the mock, {minutes:g} minutes; on: {', '.join(on) or 'records'}",
        method=(
            f"{rate:.0f} requests/s; another process holds the database's write lock for a third of it; "
            "the controller is killed while it does, and once after"
        ),
        figures=[
            Figure(what="requests answered", value=seen.answered),
            Figure(what="errors that clients saw", value=seen.failed, goal="<= 0"),
            Figure(what="records lost", value=lost, goal="<= 0"),
            Figure(what="records that nobody asked for, or twice", value=doubled, goal="<= 0"),
            Figure(what="worker's memory, early", value=warm / MB, unit="MB"),
            Figure(
                what="grown to the most (flat)", value=(max(seen.rss) - warm) / MB, unit="MB", goal="<= 10"
            ),
            Figure(what="database stopped", value=seen.stopped_s, unit="s"),
            Figure(what="controller killed", value=seen.kills, unit="times"),
            Figure(what="worst p99 of a slice", value=seen.p99_us / 1000, unit="ms"),
        ],
    )


if __name__ == "__main__":
    main()
