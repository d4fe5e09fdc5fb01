"""
Background tasks of one owner: named, bounded in number, ended together.

A task that fails is reported and never takes its neighbours along. Nothing is
waited for without a limit.
"""

import asyncio
from collections.abc import Awaitable, Callable

Work = Callable[[], Awaitable[None]]


class Tasks:
    """
    Named tasks. A name runs at most once at a time.

    Args:
        on_error: Called with the task's name and its error; must not raise.
        on_end: Called with its name when a task has ended, after it left `names`; must not raise.
        limit: Tasks at once; beyond it `start` refuses, so that no caller piles them up.
    """

    def __init__(
        self,
        on_error: Callable[[str, Exception], None],
        *,
        on_end: Callable[[str], None] | None = None,
        limit: int = 256,
    ) -> None:
        self._on_error = on_error
        self._on_end = on_end
        self._limit = limit
        self._running: dict[str, asyncio.Task[None]] = {}

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._running)

    def start(self, name: str, work: Work, *, timeout_s: float | None = None) -> bool:
        """Run `work` once, within `timeout_s`. False: one of that name runs, or the limit is reached."""
        if name in self._running or len(self._running) >= self._limit:
            return False
        task = asyncio.get_running_loop().create_task(self._once(name, work, timeout_s), name=name)
        self._running[name] = task
        task.add_done_callback(lambda _: self._ended(name))
        return True

    def keep(self, name: str, work: Work, *, pause_s: float = 1.0) -> bool:
        """Run `work` until it returns; when it fails, report that and run it again after `pause_s`."""
        return self.start(name, lambda: self._again(name, work, pause_s))

    def cancel(self, name: str) -> None:
        if task := self._running.get(name):
            task.cancel()

    async def aclose(self, *, timeout_s: float) -> frozenset[str]:
        """Cancel all and wait; return the names of those that did not end in time."""
        tasks = dict(self._running)
        for task in tasks.values():
            task.cancel()
        if tasks:
            await asyncio.wait(tasks.values(), timeout=timeout_s)
        return frozenset(name for name, task in tasks.items() if not task.done())

    def _ended(self, name: str) -> None:
        self._running.pop(name, None)
        if self._on_end is not None:
            self._on_end(name)

    async def _once(self, name: str, work: Work, timeout_s: float | None) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await work()
        except Exception as exc:  # noqa: BLE001 - the owner and the other tasks are protected from this one
            self._on_error(name, exc)

    async def _again(self, name: str, work: Work, pause_s: float) -> None:
        while True:
            try:
                return await work()
            except Exception as exc:  # noqa: BLE001 - a loop that must go on is protected from one bad round
                self._on_error(name, exc)
            await asyncio.sleep(pause_s)
