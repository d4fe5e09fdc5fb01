"""The C instruments from Python: a mock upstream for a `with` block, and one run of load."""

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from build import build
from rig.machine import LOAD_CORE, free_port, pinned

CHAT: dict[str, Any] = {
    "model": "mock",
    "messages": [
        {"role": "system", "content": "You are a keeper of a lighthouse. You answer in two sentences."},
        {"role": "user", "content": "What did the night bring, and what did you write in the book about it?"},
    ],
    "temperature": 0.7,
    "max_tokens": 256,
}
"""The request of every gateway bench: 266 bytes."""


class LoadResult(msgspec.Struct):
    """What `load` prints; times in microseconds. `count` is of the window, `answered` of the whole run."""

    count: int
    answered: int
    failed: int
    rate: float
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    first_byte_p50_us: float
    first_byte_p95_us: float
    first_byte_p99_us: float
    events: int
    event_rate: float
    fault: str


@contextmanager
def mock(
    *, delay_us: int = 0, events: int = 100, interval_us: int = 10_000, event_bytes: int = 300
) -> Iterator[int]:
    """An upstream that runs for the block; gives its port."""
    port = free_port()
    options = {"port": port, "delay-us": delay_us, "events": events, "interval-us": interval_us}
    argv = [str(build("mock")), "--event-bytes", str(event_bytes)]
    for name, value in options.items():
        argv += [f"--{name}", str(value)]
    with running(pinned(LOAD_CORE, argv)) as process:
        if process.stdout is None or process.stdout.readline() != b"listening\n":
            raise RuntimeError("the mock did not start")
        yield port


@contextmanager
def running(argv: Sequence[str], **options: object) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that ends with the block, whether it likes to or not."""
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for end in (process.stdout, process.stderr):
            if end:
                end.close()


def load(
    port: int,
    body: Path,
    *,
    seconds: float = 3.0,
    connections: int = 32,
    rate: float = 0.0,
    requests: int = 0,
    headers: Sequence[str] = (),
    path: str = "/v1/chat/completions",
) -> LoadResult:
    """One run; a warm-up of a second is not in the window, but in `answered`."""
    argv = ["--port", str(port), "--body", str(body), "--seconds", str(seconds)]
    argv += ["--connections", str(connections), "--rate", str(rate), "--requests", str(requests)]
    argv += ["--path", path]
    with loading(argv, headers) as run:
        return run.result(timeout_s=600)


class Run:
    """A run of `load` that goes on."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def end(self) -> LoadResult:
        """End it now; what was asked so far."""
        self._process.send_signal(signal.SIGTERM)
        return self.result(timeout_s=10)

    def result(self, *, timeout_s: float) -> LoadResult:
        said, complaint = self._process.communicate(timeout=timeout_s)
        if self._process.returncode:
            raise RuntimeError(f"load failed: {complaint.decode().strip()}")
        return msgspec.json.decode(said, type=LoadResult)


@contextmanager
def loading(argv: Sequence[str], headers: Sequence[str] = ()) -> Iterator[Run]:
    """
    A run for the block, or shorter.

    Args:
        argv: Options of `load`.
    """
    given = [part for header in headers for part in ("--header", header)]
    with running(pinned(LOAD_CORE, [str(build("load")), *argv, *given]), stderr=subprocess.PIPE) as process:
        yield Run(process)


def body_file(
    folder: Path,
    *,
    stream: bool = False,
    model: str = "mock",
    kind: Literal["plain", "numbered", "same"] = "plain",
    prompt_bytes: int = 0,
    max_tokens: int = CHAT["max_tokens"],
) -> Path:
    """
    A request's body.

    Args:
        kind: `numbered`: at temperature 0 and never the same twice, so that a cache is asked and misses.
            `same`: at temperature 0 and always the same, so that it hits.
        prompt_bytes: Length of a longer prompt.
        max_tokens: The mock's most events of a stream, which has no more than it was started with.
    """
    name = model.replace(":", "-")
    path = folder / f"{name}-{kind}-{'stream' if stream else 'whole'}-{prompt_bytes}-{max_tokens}.json"
    asked = {**CHAT, "model": model, "max_tokens": max_tokens, **({"stream": True} if stream else {})}
    system, user = CHAT["messages"]
    text = user["content"]
    if prompt_bytes:
        text = (text * (1 + prompt_bytes // len(text)))[:prompt_bytes]
    if kind != "plain":
        asked["temperature"] = 0
        text = ("@" * 12 if kind == "numbered" else "always the same") + " " + text
    asked["messages"] = [system, {**user, "content": text}]
    path.write_bytes(msgspec.json.encode(asked))
    return path
