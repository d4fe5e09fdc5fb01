"""
Batches beside live traffic: what the live requests notice, and what a kill loses.

Live requests stream at a constant rate, each counted from the moment it was due. Alone,
while a batch of 10,000 small requests runs, and alone again, so that a machine that
becomes slower or faster meanwhile decides nothing. Another batch has its controller
and all workers killed with -9 on the way; each of its lines must be in exactly one file.
The mock is the engine; then a smaller batch runs on the real one and is killed as well.

    python bench/batch.py [--quick] [--json]
"""

import contextlib
import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from rig.engine import artifact
from rig.instruments import Run, body_file, loading, mock
from rig.report import Figure, Report, figure, options, publish, ratios, tell
from rig.server import Server, server, wait_until

RATE = 20.0
"""Live requests a second."""
ALONE_S = 10.0
DELAY_US, EVENTS, INTERVAL_US = 20_000, 8, 5_000
REAL_LINES = 200
BATCH_S = 600.0
LOOK_S = 0.25
"""How often a batch is asked how far it is: seldom enough to be no load."""


def main() -> None:
    given = options(__doc__ or "").parse_args()
    count, rounds = (1000, 1) if given.quick else (10_000, 3)
    with TemporaryDirectory(prefix="ph-batch-") as folder:
        figures = [*on_mock(Path(folder), count, rounds), *on_engine(Path(folder), given.quick)]
    report = Report(
        bench="batches: beside live traffic, and through kill -9",
        method=(
            f"{rounds} rounds: {RATE:.0f} streamed live requests a second, alone for {ALONE_S:.0f} s "
            f"before and after, and beside a batch of {count:,} (mock: first token after "
            f"{DELAY_US // 1000} ms); then a batch with controller and "
            f"workers killed twice; real engine: {REAL_LINES} requests of 4 tokens, two "
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
            seen = [one_round(house, count, f"round {number + 1} of {rounds}") for number in range(rounds)]
            tell("a batch through kill -9")
            _, killed = run_batch(house, count, kill_at=(0.25, 0.6))
    alone, beside = [one.alone_ms for one in seen], [one.beside_ms for one in seen]
    yield figure("live TTFT p95, alone", alone, unit="ms")
    yield figure("live TTFT p95, beside a batch", beside, unit="ms")
    yield figure("live TTFT p95: beside / alone", ratios(beside, alone), unit="x", goal="<= 1.2")
    yield figure("requests of the batch, beside live traffic", [one.per_s for one in seen], unit="req/s")
    yield figure("requests of the batch, alone", [one.alone_per_s for one in seen], unit="req/s")
    yield figure("lost after kill -9", [count - len(killed)], goal="<= 0")
    yield figure("in the files twice after kill -9", [sum(killed.values()) - len(killed)], goal="<= 0")


class Round(NamedTuple):
    """What one round saw: the 95th percentile of live requests' times to the first token, and rates."""

    alone_ms: float
    beside_ms: float
    per_s: float
    alone_per_s: float


def one_round(house: Server, count: int, name: str) -> Round:
    tell(name)
    alone_per_s = count / run_batch(house, count)[0]
    before_ms = alone(house)
    with live(house) as run:
        per_s = count / run_batch(house, count)[0]
        beside_ms = first_token_ms(run)
    return Round((before_ms + alone(house)) / 2, beside_ms, per_s, alone_per_s)


def alone(house: Server) -> float:
    with live(house) as run:
        time.sleep(ALONE_S)
        return first_token_ms(run)


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
def live(house: Server) -> Iterator[Run]:
    """Live requests that stream, at a constant rate; `load` is small, and takes from nobody."""
    body = body_file(house.home.parent, stream=True, model="m")
    argv = ["--port", str(house.port), "--body", str(body), "--connections", "32", "--rate", str(RATE)]
    key = f"Authorization: Bearer {house.admin_key}"
    with loading([*argv, "--seconds", str(BATCH_S)], [key]) as run:
        yield run


def first_token_ms(run: Run) -> float:
    """The 95th percentile, each counted from when its request was due."""
    found = run.end()
    if found.failed:
        raise RuntimeError(f"{found.failed} live requests failed: {found.fault}")
    return found.first_byte_p95_us / 1000


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
    wait_until(
        "the batch ended",
        lambda: seen(house, batch).get("status") == "completed",
        timeout_s=BATCH_S,
        every_s=LOOK_S,
    )
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
