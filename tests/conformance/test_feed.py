import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from pilothouse.adapters.feeds._messages import HelloMessage
from pilothouse.adapters.feeds.unix import UnixFeed
from pilothouse.adapters.feeds.unix_publisher import UnixPublisher
from pilothouse.domain.snapshot import WorkerHello, WorkerReport
from pilothouse.testing.conformance_feed import FeedConformance, hello
from pilothouse.testing.memory_feed import MemoryFeed, MemoryPublisher


class MemoryLink:
    def __init__(self) -> None:
        self._publisher = MemoryPublisher()

    def publisher(self) -> MemoryPublisher:
        return self._publisher

    def feed(
        self, hello: Callable[[], WorkerHello], *, fresh_report: Callable[[], WorkerReport] | None = None
    ) -> MemoryFeed:
        return MemoryFeed(self._publisher, hello, fresh_report=fresh_report)

    def dead_feed(self, name: str) -> None:
        self.feed(hello(name))


class UnixLink:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.dead: list[socket.socket] = []

    def publisher(self) -> UnixPublisher:
        return UnixPublisher(self.path)

    def feed(
        self, hello: Callable[[], WorkerHello], *, fresh_report: Callable[[], WorkerReport] | None = None
    ) -> UnixFeed:
        return UnixFeed(self.path, hello, fresh_report=fresh_report)

    def dead_feed(self, name: str) -> None:
        message = msgspec.msgpack.encode(HelloMessage(WorkerHello(worker=name, pid=1)))
        dead = socket.socket(socket.AF_UNIX)
        self.dead.append(dead)
        dead.connect(str(self.path))
        dead.sendall(len(message).to_bytes(4, "big") + message)


class TestMemoryFeed(FeedConformance):
    @pytest.fixture
    def link(self) -> MemoryLink:
        return MemoryLink()


class TestUnixFeed(FeedConformance):
    @pytest.fixture
    def link(self, tmp_path: Path) -> Iterator[UnixLink]:
        link = UnixLink(tmp_path / "run" / "feed.sock")
        yield link
        for dead in link.dead:
            dead.close()
