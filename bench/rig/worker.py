"""
One gateway worker, alone: the real process on a fed snapshot, with no controller behind it.

It gets what a supervisor and a controller would give it: a listening socket, a
heartbeat, its keys, and a snapshot with one endpoint on the mock. So what is
measured is the data plane and nothing else. A fresh worker for each round keeps
the journal, which nobody drains here, from growing.
"""

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pilothouse.adapters.feeds.unix_publisher import UnixPublisher
from pilothouse.adapters.keys.file import FileKeys
from pilothouse.config import Settings, make_settings
from pilothouse.control.keyring import Keyring, NewKey
from pilothouse.domain.entries import unpack
from pilothouse.domain.snapshot import (
    CachePolicy,
    DeploymentEntry,
    EndpointEntry,
    ReplicaEntry,
    Route,
    Snapshot,
)
from pilothouse.kit.clock import SystemClock
from pilothouse.kit.heartbeat import BEAT_S, Heartbeat
from pilothouse.kit.journal.reader import JournalReader
from rig.machine import MEASURED_CORE, pinned
from rig.peers import Peer, wait_until_open

ENDPOINT = "mock"
OTHER_KEYS = 1000
"""Keys beside the one in use: a table of one would flatter."""


class GatewayWorker(Peer):
    """A peer that does more: it wants a key, and it keeps a journal."""

    def __init__(self, port: int, pid: int, settings: Settings, key: str) -> None:
        super().__init__("pilothouse", port, pid, headers=[f"Authorization: Bearer {key}"])
        self.settings = settings

    def journaled(self) -> tuple[int, int]:
        """Records and bytes that its journal holds: what a drain would find there."""
        keys = FileKeys(self.settings.keys_path)
        reader = JournalReader(
            self.settings.journal_path, unwrap=lambda wrapped: keys.unwrap(wrapped, context=b"journal")
        )
        records = size = 0
        for name in reader.segments():
            offset, state = 0, "more"
            while state == "more":
                batch = reader.read(name, offset)
                records += sum(len(unpack(frame)) for frame in batch.frames)
                size += batch.offset - offset
                offset, state = batch.offset, batch.state
        return records, size


@contextmanager
def gateway_worker(
    upstream: int,
    *,
    program: Sequence[str] = ("-m", "pilothouse.app.worker"),
    under: Sequence[str] = (),
    start_s: float = 10.0,
    cache: CachePolicy | None = None,
    **changes: object,
) -> Iterator[GatewayWorker]:
    """
    Args:
        upstream: Port of the mock.
        program: What Python runs as the worker.
        under: A command that runs Python, such as a profiler's.
        start_s: How long it may take until it answers.
        cache: The endpoint's, by default none.
        changes: Settings that differ from the defaults.
    """
    with TemporaryDirectory(prefix="ph-bench-") as folder:
        settings = make_settings(home=f"{folder}/home", keys=f"{folder}/keys", **changes)
        for path in (settings.home_path, settings.keys_path, settings.run_path, settings.journal_path):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        keyring = Keyring(FileKeys(settings.keys_path).pepper(), clock=SystemClock())
        made = [keyring.make(NewKey(team="bench")) for _ in range(OTHER_KEYS + 1)]
        keyring.follow(key.row for key in made)
        with (
            _controller(settings, _snapshot(upstream, keyring, cache)),
            socket.create_server(("127.0.0.1", 0)) as door,
        ):
            door.listen(4096)
            with _process(settings, door, (*under, sys.executable, *program)) as pid:
                port = door.getsockname()[1]
                wait_until_open(port)
                worker = GatewayWorker(port, pid, settings, made[0].key.reveal())
                if not settings.tls_certificate:
                    _wait_until_served(worker, timeout_s=start_s)
                yield worker


def _snapshot(upstream: int, keyring: Keyring, cache: CachePolicy | None) -> Snapshot:
    replica = ReplicaEntry(
        name="mock-0",
        deployment=ENDPOINT,
        engine="openai",
        address=f"http://127.0.0.1:{upstream}/v1",
        model="mock",
        context_tokens=8192,
        max_inflight=4096,
        allow_private=True,
    )
    return Snapshot(
        epoch="bench",
        revision=1,
        keys=keyring.entries(),
        endpoints={
            ENDPOINT: EndpointEntry(name=ENDPOINT, revision=1, routes=(Route(ENDPOINT),), cache=cache)
        },
        deployments={ENDPOINT: DeploymentEntry(name=ENDPOINT, phase="ready")},
        replicas={ENDPOINT: (replica,)},
    )


@contextmanager
def _controller(settings: Settings, snapshot: Snapshot) -> Iterator[None]:
    """The controller's end of the feed, in a thread, for the block."""
    loop = asyncio.new_event_loop()
    publisher = UnixPublisher(settings.feed_socket)
    serving = loop.create_task(
        publisher.serve(view=lambda _: snapshot, on_report=lambda _: None, on_leave=lambda _: None)
    )

    def serve() -> None:
        try:
            loop.run_until_complete(serving)
        except asyncio.CancelledError:
            pass
        finally:
            loop.close()

    thread = threading.Thread(target=serve, name="controller")
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(serving.cancel)
        thread.join()


@contextmanager
def _process(settings: Settings, door: socket.socket, command: Sequence[str]) -> Iterator[int]:
    """The worker's process with a beating heart; gives its pid."""
    heart, ended = Heartbeat(), threading.Event()
    file = Path(settings.home) / "settings.json"
    file.write_text(settings.to_json())
    argv = [*command, "--settings", str(file)]
    argv += ["--socket-fd", str(door.fileno()), "--heartbeat-fd", str(heart.child_fd)]
    with (settings.home_path / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            pinned(MEASURED_CORE, argv),
            pass_fds=(door.fileno(), heart.child_fd),
            stdout=log,
            stderr=log,
            cwd=Path(__file__).parents[1],
        )
    heart.close_child_end()

    def beat() -> None:
        while not ended.wait(BEAT_S / 2):
            heart.beat()

    thread = threading.Thread(target=beat, name="heartbeat")
    thread.start()
    try:
        yield process.pid
    finally:
        ended.set()
        thread.join()
        heart.close()
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_served(worker: GatewayWorker, *, timeout_s: float) -> None:
    """Wait for the first answer that is not "no snapshot yet"."""
    body = b'{"model":"mock","messages":[{"role":"user","content":"Hello"}]}'
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\n{worker.headers[0]}\r\nConnection: close\r\n"
    )
    ends = time.monotonic() + timeout_s
    while True:
        with socket.create_connection(("127.0.0.1", worker.port), timeout=timeout_s) as door:
            door.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            answer = door.recv(65536)
        if answer.startswith(b"HTTP/1.1 200"):
            return
        if time.monotonic() > ends:
            log = "\n".join((worker.settings.home_path / "worker.log").read_text().splitlines()[-10:])
            raise RuntimeError(f"the worker does not serve: {answer[:400]!r}\n{log}")
        time.sleep(0.05)
