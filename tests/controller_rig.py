"""A real controller process in a home of its own, with this test as its supervisor and its only worker."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pilothouse.adapters.feeds.unix import UnixFeed
from pilothouse.adapters.targets.local import LocalTarget
from pilothouse.app.home import prepare_folders, write_private
from pilothouse.config import Settings, make_settings, write_spec
from pilothouse.domain.snapshot import Snapshot, WorkerHello, WorkerReport
from pilothouse.domain.spec import DeploymentSpec, EndpointSpec, ModelSpec, RouteSpec, Spec
from pilothouse.kit.heartbeat import BEAT_S, Heartbeat

PATIENCE_S = 60.0


def spec_of(gguf: Path, *, slots: int = 2) -> Spec:
    options = {"context_tokens": 256, "slots": slots, "threads": 1}
    return Spec(
        models={"m": ModelSpec(source=f"file:{gguf}")},
        deployments={"d": DeploymentSpec(model="m", engine_options=options)},
        endpoints={"e": EndpointSpec(routes=[RouteSpec(deployment="d")])},
    )


class House:
    """The home, and what happens in it."""

    def __init__(self, folder: Path, spec: Spec, **settings: str) -> None:
        config = folder / "pilothouse.yaml"
        config.write_bytes(write_spec(spec))
        self.settings: Settings = make_settings(home=str(folder / "home"), config=str(config), **settings)
        prepare_folders(self.settings)
        self.settings_file = self.settings.run_path / "settings.json"
        write_private(self.settings_file, self.settings.to_json().encode())
        self.log = folder / "controller.log"
        self.target = LocalTarget(
            self.settings.run_path / "replicas", self.settings.home_path / "logs" / "replicas"
        )
        self.newest = Snapshot()
        self._feed: UnixFeed | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def controller(self) -> AsyncIterator["Process"]:
        process = Process(self)
        beating = asyncio.ensure_future(process.beat())
        try:
            yield process
        finally:
            beating.cancel()
            await asyncio.wait([beating])
            process.end()

    def connect(self) -> None:
        """Be a worker: follow what is published, and say so."""
        self._feed = UnixFeed(self.settings.feed_socket, self._hello, fresh_report=self._report)
        self._tasks = [asyncio.ensure_future(self._follow(self._feed))]

    async def close(self) -> None:
        if self._feed is not None:
            await self._feed.aclose()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for replica in await self.target.observe():
            await self.target.stop(replica.name, grace_s=5)
        if not self.settings.run_path.is_relative_to(self.settings.home_path):
            shutil.rmtree(self.settings.run_path, ignore_errors=True)

    def ready(self) -> list[str]:
        return [entry.name for entries in self.newest.replicas.values() for entry in entries]

    async def until(self, claim: Callable[[], Any], *, timeout_s: float = PATIENCE_S) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not claim():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{self.newest.deployments}\n{self.log.read_text()}") from None

    async def pids(self) -> dict[str, int]:
        return {replica.name: replica.pid for replica in await self.target.observe()}

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """Ask the admin API with the admin key, over its own socket."""
        key = self.settings.admin_key_file.read_text().strip()
        await self.until(self.settings.control_socket.exists)
        text = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n"
            f"connection: close\r\nif-match: *\r\ncontent-type: application/json\r\n"
            f"content-length: {len(text)}\r\n\r\n"
        )
        reader, writer = await asyncio.open_unix_connection(str(self.settings.control_socket))
        writer.write(head.encode() + text)
        async with asyncio.timeout(PATIENCE_S):
            answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        first, _, rest = answer.partition(b"\r\n\r\n")
        assert b" 20" in first.split(b"\r\n")[0], answer
        return json.loads(rest) if rest else None

    def _hello(self) -> WorkerHello:
        slots = {entry.name: entry.slots for entries in self.newest.replicas.values() for entry in entries}
        return WorkerHello(worker="w0", pid=os.getpid(), slots=slots)

    def _report(self) -> WorkerReport:
        return WorkerReport(worker="w0", pid=os.getpid(), time=0.0, revision=self.newest.revision)

    async def _follow(self, feed: UnixFeed) -> None:
        async for snapshot in feed.snapshots():
            self.newest = snapshot
            feed.report(self._report())


class Process:
    """One life of a controller."""

    def __init__(self, house: House) -> None:
        self.heartbeat = Heartbeat()
        fd = self.heartbeat.child_fd
        argv = ["-P", "-m", "pilothouse.app.controller", "--settings", str(house.settings_file)]
        with house.log.open("ab") as log:
            self.child = subprocess.Popen(
                [sys.executable, *argv, "--heartbeat-fd", str(fd)], pass_fds=[fd], stdout=log, stderr=log
            )
        self.heartbeat.close_child_end()

    async def beat(self) -> None:
        while self.heartbeat.beat():
            await asyncio.sleep(BEAT_S)

    async def wait(self, *, timeout_s: float) -> int:
        return await asyncio.to_thread(self.child.wait, timeout_s)

    def signal(self, number: signal.Signals) -> None:
        self.child.send_signal(number)

    def end(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait(10)
        self.heartbeat.close()
