"""
Batches beside live traffic: what the live requests notice, and what a kill loses.

Live requests stream at a constant rate, each counted from the moment it was due. First
alone, then while a batch of 10,000 small requests runs. A second batch has its controller
and all workers killed with -9 on the way; each of its lines must be in exactly one file.
The mock is the engine; then a smaller batch runs on the real one and is killed as well.

    python bench/batch.py [--quick] [--json]
"""

import contextlib
import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import Any

from rig.client import Door
from rig.engine import artifact
from rig.instruments import mock
from rig.report import Figure, Report, figure, options, publish, ratios, tell
from rig.server import Server, server, wait_until

RATE = 20.0
"""Live requests a second."""
ALONE_S = 10.0
DELAY_US, EVENTS, INTERVAL_US = 20_000, 8, 5_000
REAL_LINES = 200
BATCH_S = 600.0


def main() -> None:
    given = options(__doc__ or "").parse_args()
    count, rounds = (1000, 1) if given.quick else (10_000, 3)
    with TemporaryDirectory(prefix="ph-batch-") as folder:
        figures = [*on_mock(Path(folder), count, rounds), *on_engine(Path(folder), given.quick)]
    report = Report(
        bench="batches: beside live traffic, and through kill -9",
        method=(
            f"{rounds} rounds: {RATE:.0f} streamed live requests a second, alone for {ALONE_S:.0f} s and "
            f"beside a batch of {count:,} (mock: first token after {DELAY_US // 1000} ms); then a batch with "
            f"controller and workers killed twice; real engine: {REAL_LINES} requests of 4 tokens, two "
            "slots, killed once"
        ),
        peer="the same live traffic without a batch",
        figures=figures,
    )
    publish(report, given)


def on_mock(folder: Path, count: int, rounds: int) -> Iterator[Figure]:
    with mock(delay_us=DELAY_US, events=EVENTS, interval_us=INTERVAL_US) as port:
        reach = {
            "base_url": f"http://127.0.0.1:{port}/v1",
            "allow_private_network": True,
            "max_inflight": 64,
        }
        spec = {
            "version": 1,
            "deployments": {"m": {"provider_model": "mock", "engine": "openai", "engine_options": reach}},
            "endpoints": {"m": {"routes": [{"deployment": "m"}]}},
        }
        with running(folder / "mock", spec) as house:
            alone, beside, rates = [], [], []
            for number in range(rounds):
                tell(f"round {number + 1} of {rounds}")
                with live(house) as waits:
                    time.sleep(ALONE_S)
                alone.append(p95(waits))
                with live(house) as waits:
                    rates.append(count / run_batch(house, count)[0])
                beside.append(p95(waits))
            tell("a batch through kill -9")
            _, killed = run_batch(house, count, kill_at=(0.25, 0.6))
    yield figure("live TTFT p95, alone", [wait * 1000 for wait in alone], unit="ms")
    yield figure("live TTFT p95, beside a batch", [wait * 1000 for wait in beside], unit="ms")
    yield figure("live TTFT p95: beside / alone", ratios(beside, alone), unit="x", goal="<= 1.2")
    yield figure("requests of the batch", rates, unit="req/s")
    yield figure("lost after kill -9", [count - len(killed)], goal="<= 0")
    yield figure("in the files twice after kill -9", [sum(killed.values()) - len(killed)], goal="<= 0")


def on_engine(folder: Path, is_quick: bool) -> Iterator[Figure]:
    count = REAL_LINES // 4 if is_quick else REAL_LINES
    tell("the real engine")
    engine = {"context_tokens": 512, "slots": 2}
    spec = {
        "version": 1,
        "models": {"m": {"source": f"file:{artifact().path}"}},
        "deployments": {"m": {"model": "m", "engine_options": engine}},
        "endpoints": {"m": {"routes": [{"deployment": "m"}]}},
    }
    with running(folder / "real", spec) as house:
        took_s, killed = run_batch(house, count, kill_at=(0.4,))
    yield figure("real engine: requests of the batch, with a kill", [count / took_s], unit="req/s")
    yield figure("real engine: lost after kill -9", [count - len(killed)], goal="<= 0")


@contextmanager
def running(home: Path, spec: dict[str, Any]) -> Iterator[Server]:
    file = home.with_suffix(".json")
    file.write_text(json.dumps(spec))
    with server(home, config=file) as house:
        yield house


@contextmanager
def live(house: Server) -> Iterator[list[float]]:
    """Seconds to the first token of each live request, from when it was due."""
    door = Door(house.url, key=house.admin_key)
    body = {"model": "m", "max_tokens": 8, "messages": [{"role": "user", "content": "live"}]}
    waits: list[float] = []
    ending = threading.Event()

    def ask(due: float) -> None:
        events = door.stream("/v1/chat/completions", body)
        for event in events:
            if any(choice["delta"].get("content") for choice in event["choices"]):
                waits.append(time.monotonic() - due)
                break
        for _ in events:
            pass

    def go_on() -> None:
        asking: list[threading.Thread] = []
        due = time.monotonic()
        while not ending.is_set():
            time.sleep(max(0.0, due - time.monotonic()))
            asking.append(threading.Thread(target=ask, args=(due,)))
            asking[-1].start()
            due += 1 / RATE
        for thread in asking:
            thread.join()

    beat = threading.Thread(target=go_on)
    beat.start()
    try:
        yield waits
    finally:
        ending.set()
        beat.join()


def p95(waits: list[float]) -> float:
    return quantiles(waits, n=20)[-1]


def run_batch(house: Server, count: int, *, kill_at: tuple[float, ...] = ()) -> tuple[float, Counter[str]]:
    """The seconds that it took, and how often each line's id stands in its files."""
    began = time.monotonic()
    wish = {
        "input_file_id": upload(house, count),
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    batch = call(house, "POST", "/v1/batches", json.dumps(wish).encode())["id"]
    for share in kill_at:
        wait_until(
            f"{share:.0%} is done", lambda share=share: done(house, batch) > share * count, timeout_s=BATCH_S
        )
        pids = house.state()["pids"]
        for pid in (pids["controller"], *pids["workers"]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    wait_until("the batch ended", lambda: seen(house, batch).get("status") == "completed", timeout_s=BATCH_S)
    took_s = time.monotonic() - began
    ended = seen(house, batch)
    ids: Counter[str] = Counter()
    for name in ("output_file_id", "error_file_id"):
        if ended.get(name):
            content = raw(house, "GET", f"/v1/files/{ended[name]}/content")
            ids.update(json.loads(line)["custom_id"] for line in content.splitlines())
    return took_s, ids


def seen(house: Server, batch: str) -> dict[str, Any]:
    """As it is now; nothing while somebody was just killed."""
    try:
        return call(house, "GET", f"/v1/batches/{batch}")
    except (OSError, urllib.error.URLError, ValueError):
        return {}


def done(house: Server, batch: str) -> int:
    return int(seen(house, batch).get("request_counts", {}).get("completed", 0))


def upload(house: Server, count: int) -> str:
    messages = [{"role": "user", "content": "Say a word."}]
    body = {"model": "m", "max_tokens": 4, "messages": messages}
    lines = b"".join(
        json.dumps(
            {"custom_id": f"c{n}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        ).encode()
        + b"\n"
        for n in range(count)
    )
    edge = b"--bench-edge\r\nContent-Disposition: form-data; name="
    data = (
        edge + b'"purpose"\r\n\r\nbatch\r\n'
        + edge + b'"file"; filename="in.jsonl"\r\n\r\n' + lines + b"\r\n--bench-edge--\r\n"
    )  # fmt: skip
    kind = "multipart/form-data; boundary=bench-edge"
    return str(json.loads(raw(house, "POST", "/v1/files", data, kind=kind))["id"])


def call(house: Server, method: str, path: str, data: bytes | None = None) -> dict[str, Any]:
    return dict(json.loads(raw(house, method, path, data)))


def raw(
    house: Server, method: str, path: str, data: bytes | None = None, *, kind: str = "application/json"
) -> bytes:
    headers = {"Authorization": f"Bearer {house.admin_key}", "Content-Type": kind}
    request = urllib.request.Request(house.url + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())


if __name__ == "__main__":
    main()
