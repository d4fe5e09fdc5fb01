"""
The store's own thread: one transaction after the other, in a bounded queue.

SQLite and its driver stay on the thread that opened them, and the event loop
never waits for a disk. This is `control.transact.Transact`.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from pilothouse.control.transact import Transact
from pilothouse.domain.errors import StoreUnavailable
from pilothouse.ports.store import Store, UnitOfWork

T = TypeVar("T")

QUEUE_LIMIT = 256
"""Transactions that may wait; beyond it callers are refused instead of piled up."""
TIMEOUT_S = 30.0


class _Job:
    def __init__(self, work: Callable[[Store], Any]) -> None:
        self.work = work
        self.loop = asyncio.get_running_loop()
        self.result: asyncio.Future[Any] = self.loop.create_future()
        self.dropped = False

    def run(self, store: Store) -> None:
        if self.dropped:
            return
        try:
            value, error = self.work(store), None
        except BaseException as exc:  # noqa: BLE001 - the thread serves all: the error is the caller's
            value, error = None, exc
        self.loop.call_soon_threadsafe(self._deliver, value, error)

    def _deliver(self, value: Any, error: BaseException | None) -> None:
        if self.result.done():
            return
        if error is None:
            self.result.set_result(value)
        else:
            self.result.set_exception(error)


class StoreThread(Transact):
    """
    Args:
        open_store: Called first, on the thread.
        timeout_s: Longest wait of a caller, queue included.
        changed: Called on the event loop with the new `problem` when there is one, and when it is over.
    """

    def __init__(
        self,
        open_store: Callable[[], Store],
        *,
        limit: int = QUEUE_LIMIT,
        timeout_s: float = TIMEOUT_S,
        changed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._open_store = open_store
        self._limit = limit
        self._timeout_s = timeout_s
        self._jobs: deque[_Job] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._changed = changed
        self.problem = ""
        """Why the last transaction failed for the store's sake; empty when it did not."""
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        """Open the store; an error of that is raised here."""
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()

        def tell(error: BaseException | None) -> None:
            if not opened.done():
                opened.set_result(None) if error is None else opened.set_exception(error)

        def body() -> None:
            try:
                store = self._open_store()
            except BaseException as exc:  # noqa: BLE001 - told to the caller of start
                loop.call_soon_threadsafe(tell, exc)
                return
            loop.call_soon_threadsafe(tell, None)
            self._work(store)

        self._thread = threading.Thread(target=body, name="store", daemon=True)
        self._thread.start()
        await opened

    async def __call__(self, work: Callable[[UnitOfWork], T], /, *, urgent: bool = False) -> T:
        """
        See `Transact`.

        Raises:
            StoreUnavailable: Too much waits already, or it took too long. In the
                second case the transaction may still be made: ask again to know.
        """

        def transaction(store: Store) -> T:
            with store.unit(urgent=urgent) as unit:
                return work(unit)

        return await self.call(transaction, urgent=urgent)

    async def call(self, work: Callable[[Store], T], *, urgent: bool = False) -> T:
        """Run `work` with the store itself on its thread; urgent work goes first, and past the limit."""
        job = _Job(work)
        with self._wake:
            if self._thread is None or self._closing:
                raise StoreUnavailable("the store is closed: the controller is stopping")
            if len(self._jobs) >= self._limit and not urgent:
                raise StoreUnavailable(
                    f"{len(self._jobs)} transactions wait for the store already; try again",
                    retry_after_s=1.0,
                )
            if urgent:
                self._jobs.appendleft(job)
            else:
                self._jobs.append(job)
            self._wake.notify()
        try:
            async with asyncio.timeout(self._timeout_s):
                result: T = await job.result
        except TimeoutError as exc:
            message = f"the store did not answer in {self._timeout_s:.0f} s; look at the disk, then try again"
            self._note(message)
            raise StoreUnavailable(message, retry_after_s=5.0) from exc
        except StoreUnavailable as exc:
            self._note(exc.message)
            raise
        else:
            self._note("")
            return result
        finally:
            job.dropped = True  # what has not begun need not begin: nobody waits for it

    def _note(self, problem: str) -> None:
        was, self.problem = self.problem, problem
        if bool(was) != bool(problem):
            self._changed(problem)

    async def aclose(self, *, timeout_s: float) -> bool:
        """Do what is queued, close the store; False when that did not end in time."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        thread = self._thread
        if thread is None:
            return True
        await asyncio.to_thread(thread.join, timeout_s)
        return not thread.is_alive()

    def _work(self, store: Store) -> None:
        try:
            while (job := self._next()) is not None:
                job.run(store)
        finally:
            store.close()

    def _next(self) -> _Job | None:
        with self._wake:
            while not self._jobs:
                if self._closing:
                    return None
                self._wake.wait(timeout=60.0)
            return self._jobs.popleft()
