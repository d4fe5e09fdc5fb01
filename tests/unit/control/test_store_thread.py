import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pilothouse.control.store_thread import StoreThread
from pilothouse.domain.errors import NotFound, StoreUnavailable


class Store:
    """Counts units and remembers its threads."""

    def __init__(self) -> None:
        self.threads = {threading.get_ident()}
        self.urgent: list[bool] = []
        self.is_closed = False

    @contextmanager
    def unit(self, *, urgent: bool = False) -> Iterator[Any]:
        self.threads.add(threading.get_ident())
        self.urgent.append(urgent)
        yield self

    def close(self) -> None:
        self.threads.add(threading.get_ident())
        self.is_closed = True


@pytest.fixture
async def opened() -> AsyncIterator[tuple[StoreThread, Store]]:
    made: list[Store] = []

    def open_store() -> Any:
        made.append(Store())
        return made[0]

    thread = StoreThread(open_store, limit=2, timeout_s=5)
    await thread.start()
    yield thread, made[0]
    assert await thread.aclose(timeout_s=5)


async def test_all_of_the_store_happens_on_one_thread_that_is_not_ours(opened):
    thread, store = opened

    assert await asyncio.gather(thread(lambda unit: 1), thread(lambda unit: 2)) == [1, 2]
    await thread.aclose(timeout_s=5)

    assert len(store.threads) == 1
    assert threading.get_ident() not in store.threads
    assert store.is_closed


async def test_the_error_of_a_transaction_is_its_callers(opened):
    thread, _ = opened

    def work(unit: object) -> None:
        raise NotFound("no such team")

    with pytest.raises(NotFound, match="no such team"):
        await thread(work)

    assert await thread(lambda unit: "still here") == "still here"


async def test_too_many_waiting_are_refused_but_urgent_ones_go_first(opened):
    thread, _ = opened
    gate, order = threading.Event(), []
    blocked = asyncio.ensure_future(thread(lambda unit: gate.wait(5)))
    await asyncio.sleep(0)
    while thread._jobs:
        await asyncio.sleep(0.001)
    waiting = [asyncio.ensure_future(thread(lambda unit, n=n: order.append(n))) for n in (1, 2)]
    await asyncio.sleep(0)

    with pytest.raises(StoreUnavailable, match="2 transactions wait"):
        await thread(lambda unit: None)
    urgent = asyncio.ensure_future(thread(lambda unit: order.append(0), urgent=True))
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(blocked, *waiting, urgent)

    assert order == [0, 1, 2]


async def test_a_caller_waits_no_longer_than_the_limit_and_what_had_not_begun_is_dropped():
    gate, done = threading.Event(), []
    thread = StoreThread(Store, timeout_s=0.02)  # type: ignore[arg-type]
    await thread.start()
    blocked = asyncio.ensure_future(thread(lambda unit: gate.wait(5)))
    await asyncio.sleep(0)

    with pytest.raises(StoreUnavailable, match="did not answer"):
        await thread(lambda unit: done.append(1))
    with pytest.raises(StoreUnavailable):
        await blocked
    gate.set()
    await thread.aclose(timeout_s=5)

    assert done == []


async def test_a_store_that_cannot_be_opened_says_so_at_the_start():
    def open_store() -> Any:
        raise StoreUnavailable("the disk is full")

    thread = StoreThread(open_store)

    with pytest.raises(StoreUnavailable, match="disk is full"):
        await thread.start()
    assert await thread.aclose(timeout_s=5)


async def test_what_is_queued_is_done_before_the_close(opened):
    thread, _ = opened
    done: list[int] = []
    first = asyncio.ensure_future(thread(lambda unit: done.append(1)))
    await asyncio.sleep(0)

    await thread.aclose(timeout_s=5)
    await first

    assert done == [1]
    with pytest.raises(StoreUnavailable, match="closed"):
        await thread(lambda unit: None)


async def test_a_lost_store_is_told_once_and_its_return_once():
    told: list[str] = []
    store = Store()
    thread = StoreThread(lambda: store, changed=told.append)  # type: ignore[arg-type,return-value]
    await thread.start()

    def fail(unit: Any) -> None:
        raise StoreUnavailable("gone")

    def refuse(unit: Any) -> None:
        raise NotFound("no such key")

    for work in (lambda unit: None, fail, fail):
        try:
            await thread(work)
        except StoreUnavailable:
            pass
    assert thread.problem == "gone"
    for work in (lambda unit: None, refuse):
        try:
            await thread(work)
        except NotFound:
            pass
    assert told == ["gone", ""]
    assert thread.problem == ""
    await thread.aclose(timeout_s=5)
