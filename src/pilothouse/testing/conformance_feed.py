"""
What every Feed does, whatever it runs over.

Subclass `FeedConformance` in a test file and give it the fixture `link`: a
`FeedLink` that makes both ends.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import pytest

from pilothouse.domain.snapshot import Snapshot, WorkerHello, WorkerReport
from pilothouse.ports.feed import Feed, Publisher

PATIENCE_S = 5.0


class FeedLink(Protocol):
    """Makes the two ends of one feed; `publisher` may be called again after the first was cancelled."""

    def publisher(self) -> Publisher: ...

    def feed(
        self, hello: Callable[[], WorkerHello], *, fresh_report: Callable[[], WorkerReport] | None = None
    ) -> Feed: ...

    def dead_feed(self, name: str) -> None:
        """A worker that introduces itself and then does nothing any more."""
        ...


class Controller:
    """A controller as small as can be: what it publishes, and what it hears."""

    def __init__(self, publisher: Publisher, *, epoch: str = "one") -> None:
        self.publisher = publisher
        self.snapshot = Snapshot(epoch=epoch, revision=1)
        self.hellos: list[WorkerHello] = []
        self.reports: list[WorkerReport] = []
        self.left: list[str] = []
        self._task = asyncio.ensure_future(
            publisher.serve(view=self._view, on_report=self.reports.append, on_leave=self.left.append)
        )

    def _view(self, hello: WorkerHello) -> Snapshot:
        self.hellos.append(hello)
        return self.snapshot

    def publish(self, revision: int) -> None:
        self.snapshot = Snapshot(epoch=self.snapshot.epoch, revision=revision)
        self.publisher.publish()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task], timeout=PATIENCE_S)


def hello(name: str = "w0", **slots: tuple[int, ...]) -> Callable[[], WorkerHello]:
    return lambda: WorkerHello(worker=name, pid=1, slots=slots)


def report(name: str = "w0", inflight: int = 0) -> WorkerReport:
    return WorkerReport(worker=name, pid=1, time=0.0, revision=1, inflight=inflight)


async def newest(snapshots: AsyncIterator[Snapshot], *, revision: int = 0, epoch: str = "") -> Snapshot:
    """Read until a snapshot has at least that revision, or that epoch."""
    async with asyncio.timeout(PATIENCE_S):
        async for snapshot in snapshots:
            if snapshot.revision >= revision and epoch in ("", snapshot.epoch):
                return snapshot
    raise AssertionError("the feed ended")


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not claim():  # noqa: ASYNC110 - no event tells of what the other end does
            await asyncio.sleep(0.005)


class FeedConformance:
    """The suite."""

    @pytest.fixture
    async def controller(self, link: FeedLink) -> AsyncIterator[Controller]:
        controller = Controller(link.publisher())
        yield controller
        await controller.stop()

    @pytest.mark.usefixtures("controller")
    async def test_the_newest_snapshot_comes_on_connect(self, link: FeedLink) -> None:
        feed = link.feed(hello())

        assert (await newest(feed.snapshots())).revision == 1
        assert feed.disconnected_since is None

        await feed.aclose()

    async def test_every_change_is_delivered_to_a_reader_that_keeps_up(
        self, link: FeedLink, controller: Controller
    ) -> None:
        feed = link.feed(hello())
        snapshots = feed.snapshots()
        seen = [(await newest(snapshots)).revision]
        for revision in range(2, 6):
            controller.publish(revision)
            seen.append((await newest(snapshots)).revision)

        assert seen == [1, 2, 3, 4, 5]

        await feed.aclose()

    async def test_a_slow_reader_gets_the_newest_and_not_the_queue(
        self, link: FeedLink, controller: Controller
    ) -> None:
        feed = link.feed(hello())
        snapshots = feed.snapshots()
        await newest(snapshots)
        for revision in range(2, 500):
            controller.publish(revision)
            if revision % 100 == 0:
                await asyncio.sleep(0.01)

        read = 0
        while (await newest(snapshots)).revision != 499:
            read += 1
            assert read < 100

        await feed.aclose()

    async def test_two_workers_both_hear_of_a_change(self, link: FeedLink, controller: Controller) -> None:
        feeds = [link.feed(hello(name)) for name in ("a", "b")]
        streams = [feed.snapshots() for feed in feeds]
        for stream in streams:
            await newest(stream)

        controller.publish(2)

        assert [(await newest(stream)).revision for stream in streams] == [2, 2]
        for feed in feeds:
            await feed.aclose()

    async def test_the_hello_tells_the_slots_that_are_held(
        self, link: FeedLink, controller: Controller
    ) -> None:
        feed = link.feed(hello("w7", replica=(1, 2)))
        await newest(feed.snapshots())

        assert controller.hellos[-1] == WorkerHello(worker="w7", pid=1, slots={"replica": (1, 2)})

        await feed.aclose()

    async def test_reports_reach_the_controller(self, link: FeedLink, controller: Controller) -> None:
        feed = link.feed(hello())
        await newest(feed.snapshots())

        feed.report(report(inflight=3))
        await until(lambda: bool(controller.reports))

        assert controller.reports[-1].inflight == 3

        await feed.aclose()

    async def test_a_worker_that_goes_is_told_of(self, link: FeedLink, controller: Controller) -> None:
        feed = link.feed(hello("gone"))
        await newest(feed.snapshots())

        await feed.aclose()
        await until(lambda: controller.left == ["gone"])

    @pytest.mark.usefixtures("controller")
    async def test_a_closed_feed_ends_its_snapshots(self, link: FeedLink) -> None:
        feed = link.feed(hello())
        snapshots = feed.snapshots()
        await newest(snapshots)

        await feed.aclose()

        async with asyncio.timeout(PATIENCE_S):
            assert [snapshot async for snapshot in snapshots] == []

    async def test_without_a_controller_nothing_raises_and_it_is_said_since_when(
        self, link: FeedLink, controller: Controller
    ) -> None:
        feed = link.feed(hello())
        snapshots = feed.snapshots()
        await newest(snapshots)

        await controller.stop()
        await until(lambda: feed.disconnected_since is not None)
        feed.report(report())

        assert feed.disconnected_since is not None

        await feed.aclose()

    async def test_a_new_controller_is_found_again(self, link: FeedLink, controller: Controller) -> None:
        feed = link.feed(hello())
        snapshots = feed.snapshots()
        await newest(snapshots)
        await controller.stop()

        successor = Controller(link.publisher(), epoch="two")

        assert (await newest(snapshots, epoch="two")).revision == 1
        assert feed.disconnected_since is None

        await feed.aclose()
        await successor.stop()

    async def test_collect_asks_for_fresh_reports(self, link: FeedLink, controller: Controller) -> None:
        counts = iter(range(10, 99))
        feed = link.feed(hello(), fresh_report=lambda: report(inflight=next(counts)))
        await newest(feed.snapshots())

        first = await controller.publisher.collect(timeout_s=PATIENCE_S)
        second = await controller.publisher.collect(timeout_s=PATIENCE_S)

        assert (first["w0"].inflight, second["w0"].inflight) == (10, 11)

        await feed.aclose()

    async def test_collect_with_a_dead_worker_ends_in_its_time_with_the_others(
        self, link: FeedLink, controller: Controller
    ) -> None:
        feed = link.feed(hello("alive"), fresh_report=lambda: report("alive", inflight=1))
        await newest(feed.snapshots())
        link.dead_feed("dead")
        await until(lambda: {hello.worker for hello in controller.hellos} >= {"dead", "alive"})

        async with asyncio.timeout(PATIENCE_S):
            reports = await controller.publisher.collect(timeout_s=0.2)

        assert set(reports) == {"alive"}

        await feed.aclose()
