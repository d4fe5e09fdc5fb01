"""
A worker's memory: after 100,000 requests, and while a reader does not read.

One gateway worker on the mock. Its resident memory is taken after a warm-up of
10,000 requests and after 100,000, and its peak while one client asks for a
stream of 256 MiB and reads nothing of it; other requests go on meanwhile.

    python bench/memory.py [--quick] [--json]
"""

import socket
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from rig.instruments import body_file, load, mock
from rig.machine import peak_rss_bytes, rss_bytes
from rig.report import Figure, Report, options, publish, tell
from rig.worker import GatewayWorker, gateway_worker

MB = 1e6
WARM_REQUESTS = 10_000
STREAM_EVENTS, STREAM_EVENT_BYTES = 8192, 32 * 1024
STALL_S = 20.0


def main() -> None:
    given = options(__doc__ or "").parse_args()
    requests = 20_000 if given.quick else 100_000
    report = Report(
        bench="memory: one gateway worker, mock upstream",
        method=(
            f"resident memory; {requests:,} requests with 32 connections; then a stream of "
            f"{STREAM_EVENTS * STREAM_EVENT_BYTES / 2**20:.0f} MiB whose reader stalls for {STALL_S:.0f} s, "
            "beside 200 requests/s"
        ),
        figures=[*_after_many_requests(requests), *_with_a_stalled_reader()],
    )
    publish(report, given)


def _after_many_requests(requests: int) -> list[Figure]:
    with TemporaryDirectory() as folder, mock() as upstream, gateway_worker(upstream) as worker:
        body = body_file(Path(folder))
        fresh = rss_bytes(worker.pid)
        load(worker.port, body, requests=WARM_REQUESTS, headers=worker.headers)
        warm = rss_bytes(worker.pid)
        tell(f"after {WARM_REQUESTS:,} requests: {warm / MB:.1f} MB")
        result = load(worker.port, body, requests=requests, headers=worker.headers)
        full = rss_bytes(worker.pid)
        tell(f"after {requests:,} more: {full / MB:.1f} MB ({result.rate:.0f}/s, {result.failed} failed)")
    return [
        Figure(what="fresh", value=fresh / MB, unit="MB"),
        Figure(what=f"after {WARM_REQUESTS:,} requests", value=warm / MB, unit="MB"),
        Figure(what=f"after {requests:,} more", value=full / MB, unit="MB", goal="<= 64"),
        Figure(what="grown meanwhile (flat)", value=(full - warm) / MB, unit="MB", goal="<= 4"),
    ]


def _with_a_stalled_reader() -> list[Figure]:
    events = {"events": STREAM_EVENTS, "event_bytes": STREAM_EVENT_BYTES, "interval_us": 0}
    with (
        TemporaryDirectory() as folder,
        mock(**events) as upstream,
        gateway_worker(upstream, write_timeout_s=STALL_S + 60) as worker,
    ):
        body = body_file(Path(folder))
        load(worker.port, body, requests=WARM_REQUESTS, headers=worker.headers)
        before = rss_bytes(worker.pid)
        with _ask(worker, body_file(Path(folder), stream=True)) as stalled:
            stalled.recv(64)
            slowest_us = _others_meanwhile(worker, body)
            peak = peak_rss_bytes(worker.pid)
    return [
        Figure(what="before the stalled reader", value=before / MB, unit="MB"),
        Figure(what="peak with it", value=peak / MB, unit="MB", goal="<= 64"),
        Figure(what="worst p99 of the others meanwhile", value=slowest_us / 1000, unit="ms"),
    ]


def _others_meanwhile(worker: GatewayWorker, body: Path) -> float:
    """The worst p99, in microseconds, of other requests during the stall."""
    ends = time.monotonic() + STALL_S
    slowest_us = 0.0
    while time.monotonic() < ends:
        slowest_us = max(
            slowest_us, load(worker.port, body, seconds=2, rate=200, headers=worker.headers).p99_us
        )
    return slowest_us


def _ask(worker: GatewayWorker, body: Path) -> socket.socket:
    """Send a request with the smallest receive buffer, and leave the answer lying."""
    door = socket.socket()
    door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    door.connect(("127.0.0.1", worker.port))
    data = body.read_bytes()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\n{worker.headers[0]}\r\n"
    door.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return door


if __name__ == "__main__":
    main()
