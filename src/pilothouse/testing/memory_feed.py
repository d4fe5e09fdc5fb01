"""Both ends of the Feed in one process: the fake, and what a single process can run on."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

from pilothouse.domain.leasing import LedgerAnswer, LedgerAsk
from pilothouse.domain.snapshot import Snapshot, WorkerHello, WorkerReport
from pilothouse.kit.clock import Clock, SystemClock
from pilothouse.ports.feed import AnswerLedger


class MemoryPublisher:
    """The controller's end; `serve` may be cancelled and called again, as when a controller is replaced."""

    def __init__(self) -> None:
        self.feeds: list[MemoryFeed] = []
        self._view: Callable[[WorkerHello], Snapshot] | None = None
        self._on_report: Callable[[WorkerReport], None] | None = None
        self._on_leave: Callable[[str], None] | None = None
        self._reports: dict[str, WorkerReport] = {}
        self.on_ask: AnswerLedger | None = None

    @property
    def is_serving(self) -> bool:
        return self._view is not None

    async def serve(
        self,
        *,
        view: Callable[[WorkerHello], Snapshot],
        on_report: Callable[[WorkerReport], None],
        on_leave: Callable[[str], None],
        on_ask: AnswerLedger | None = None,
    ) -> None:
        self.on_ask = on_ask
        self._view, self._on_report, self._on_leave = view, on_report, on_leave
        self.publish()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._view = self._on_report = self._on_leave = self.on_ask = None
            for feed in self.feeds:
                feed.lose()

    def publish(self) -> None:
        if self._view is not None:
            for feed in self.feeds:
                feed.deliver(self._view(feed.hello()))

    async def collect(self, *, timeout_s: float) -> Mapping[str, WorkerReport]:  # noqa: ARG002 - nobody is slow here
        for feed in self.feeds:
            feed.answer()
        return {feed.name: self._reports[feed.name] for feed in self.feeds if feed.name in self._reports}

    def enter(self, feed: "MemoryFeed") -> None:
        self.feeds.append(feed)
        if self._view is not None:
            feed.deliver(self._view(feed.hello()))

    def take(self, report: WorkerReport) -> None:
        if self._on_report is not None:
            self._reports[report.worker] = report
            self._on_report(report)

    def leave(self, feed: "MemoryFeed") -> None:
        self.feeds.remove(feed)
        self._reports.pop(feed.name, None)
        if self._on_leave is not None:
            self._on_leave(feed.name)


class MemoryFeed:
    """The worker's end, bound to a `MemoryPublisher`."""

    def __init__(
        self,
        publisher: MemoryPublisher,
        hello: Callable[[], WorkerHello],
        *,
        fresh_report: Callable[[], WorkerReport] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.hello = hello
        self.name = hello().worker
        self._publisher = publisher
        self._fresh_report = fresh_report
        self._clock = clock or SystemClock()
        self._since: float | None = self._clock.now()
        self._newest: Snapshot | None = None
        self._arrived = asyncio.Event()
        self._closed = False
        publisher.enter(self)

    @property
    def disconnected_since(self) -> float | None:
        return self._since

    async def snapshots(self) -> AsyncIterator[Snapshot]:
        while not self._closed:
            await self._arrived.wait()
            self._arrived.clear()
            newest, self._newest = self._newest, None
            if newest is not None:
                yield newest

    def report(self, report: WorkerReport) -> None:
        if self._since is None:
            self._publisher.take(report)

    async def exchange(self, ask: LedgerAsk, *, timeout_s: float) -> LedgerAnswer | None:
        on_ask = self._publisher.on_ask
        if self._since is not None or on_ask is None:
            return None
        try:
            async with asyncio.timeout(timeout_s):
                return await on_ask(ask)
        except TimeoutError:
            return None

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._arrived.set()
            self._publisher.leave(self)

    def deliver(self, snapshot: Snapshot) -> None:
        self._since, self._newest = None, snapshot
        self._arrived.set()

    def lose(self) -> None:
        self._since = self._clock.now()

    def answer(self) -> None:
        if self._fresh_report is not None:
            self.report(self._fresh_report())
