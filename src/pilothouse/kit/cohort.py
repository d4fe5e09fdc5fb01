"""
Tasks that go on together: what is ready in one turn of the loop runs stage by stage.

A processor's caches hold the code of one stage of a request, not of all of them.
Requests that are taken one after the other through all stages find every stage
cold; those that are taken through a stage together find it warm. So tasks that
can begin begin together, then those that waited go on together, then what
closes a turn is done once for all of them.

Source: Larus and Parkes, "Using Cohort-Scheduling to Enhance Server
Performance", USENIX 2002. A `CohortTask` uses the hooks that "Extending asyncio"
of the Python library reference names, so that all of asyncio works inside.
"""

import asyncio
from asyncio.tasks import _enter_task as enter_task
from asyncio.tasks import _leave_task as leave_task
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, Final

_enter_task: Final = enter_task
_leave_task: Final = leave_task
_ROUNDS: Final = 8
"""Rounds of stages in one turn; then the loop looks after its sockets and timers first."""
_LARGE_BYTES: Final = 4096
_MOST_UNSENT: Final = 256
"""What waits for a stage to end is bounded: also a task that never pauses hears that its reader is slow."""


class Pause:
    """
    A wait for one event. In a `CohortTask` it is the cheapest there is; in an `asyncio.Task` it works too.

    It serves again after `begin`. One task waits at a time.
    """

    __slots__ = ("_asyncio_future_blocking", "_callback", "_context", "_error", "_task", "is_over")

    def __init__(self) -> None:
        self._asyncio_future_blocking = False
        self.begin()

    def begin(self) -> None:
        self.is_over = False
        self._error: BaseException | None = None
        self._task: CohortTask | None = None
        self._callback: Callable[[Any], object] | None = None

    def __await__(self) -> Generator["Pause", None, None]:
        if not self.is_over:
            self._asyncio_future_blocking = True
            yield self
        if self._error is not None:
            error, self._error = self._error, None
            try:
                raise error
            finally:
                del error  # an error holds frames, and must not be held by one of them

    def end(self, error: BaseException | None = None) -> None:
        """Let who waits go on, or raise `error` there. Without effect when it is over already."""
        if self.is_over:
            return
        self.is_over = True
        self._error = error
        task = self._task
        if task is not None:
            self._task = None
            task.cohort.resume(task)
        elif self._callback is not None:
            asyncio.get_running_loop().call_soon(self._callback, self, context=self._context)
            self._callback = None

    # What `asyncio.Task` asks of a future that it waits for.

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context | None = None) -> None:
        self._callback, self._context = callback, context

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def result(self) -> None:
        if self._error is not None:
            raise self._error

    def cancel(self, msg: object = None) -> bool:  # noqa: ARG002 - asyncio's signature
        """False: it was over."""
        if self.is_over:
            return False
        self.end(asyncio.CancelledError())
        return True


_OVER: Final = Pause()
"""Not waited for: it is said by a coroutine that is done."""


def _driven(coro: Coroutine[Any, Any, None]) -> Generator[Any, None, None]:
    """Say that it is over in the place of StopIteration: an error, which costs more than all of a step."""
    yield from coro.__await__()
    yield _OVER


class CohortTask:
    """
    Runs a coroutine with others of its cohort. Made by `Cohort.start`.

    Args:
        on_end: Called once with the error that ended it, or None, also when it was cancelled.
    """

    __slots__ = (
        "_cancelling",
        "_coro",
        "_driven",
        "_has_begun",
        "_loop",
        "_must_cancel",
        "_on_end",
        "_waits_for",
        "cohort",
        "is_done",
    )

    def __init__(
        self,
        cohort: "Cohort",
        coro: Coroutine[Any, Any, None],
        on_end: Callable[[Exception | None], None],
    ) -> None:
        self.cohort = cohort
        self._loop = cohort.loop
        self._coro = coro
        self._driven = _driven(coro)
        self._has_begun = False
        self._on_end = on_end
        self._waits_for: Any = None
        self._must_cancel = False
        self._cancelling = 0
        self.is_done = False

    def step(self, thrown: BaseException | None = None) -> None:
        """Run on to the next wait. For the cohort, and what the task waits for."""
        self._waits_for = None
        if self._must_cancel:
            self._must_cancel = False
            thrown = asyncio.CancelledError()
        loop, waits_for, is_over, error = self._loop, None, True, None
        _enter_task(loop, self)  # type: ignore[arg-type]
        try:
            if thrown is None:
                self._has_begun = True
                waits_for = next(self._driven)  # not `send`, which is looked for by its name
            else:
                if not self._has_begun:
                    self._coro.close()
                waits_for = self._driven.throw(thrown)
            is_over = waits_for is _OVER
        except (StopIteration, asyncio.CancelledError):
            pass
        # The cohort is protected from the defect of one task; whoever started it hears of it.
        except Exception as exc:  # noqa: BLE001
            error = exc
        finally:
            _leave_task(loop, self)  # type: ignore[arg-type]
            thrown = None  # an error holds frames, this one too
        if is_over:
            self.is_done = True
            self._on_end(error)
            error = None
        elif type(waits_for) is Pause:
            waits_for._asyncio_future_blocking = False  # noqa: SLF001 - one idea in two classes
            waits_for._task = self  # noqa: SLF001
            self._waits_for = waits_for
        elif waits_for is None:
            loop.call_soon(self.step)
        else:
            waits_for._asyncio_future_blocking = False  # noqa: SLF001 - the protocol of "Extending asyncio"
            waits_for.add_done_callback(self._wake)
            self._waits_for = waits_for
        if self._must_cancel and self._waits_for is not None and self._waits_for.cancel():
            self._must_cancel = False

    def _wake(self, future: "asyncio.Future[Any]") -> None:
        try:
            future.result()
        # Whatever the future holds belongs to who waits for it.
        except BaseException as exc:  # noqa: BLE001
            self.step(exc)
        else:
            self.step()

    # What asyncio asks of the current task, `asyncio.timeout` for one.

    def cancel(self, msg: object = None) -> bool:  # noqa: ARG002 - asyncio's signature
        """Raise CancelledError where it waits, at the next turn."""
        if self.is_done:
            return False
        self._cancelling += 1
        waits_for = self._waits_for
        if waits_for is None or not waits_for.cancel():
            self._must_cancel = True
        return True

    def cancelling(self) -> int:
        return self._cancelling

    def uncancel(self) -> int:
        self._cancelling = max(0, self._cancelling - 1)
        return self._cancelling


class Cohort:
    """The tasks of one event loop that run stage by stage."""

    def __init__(self) -> None:
        self._begin: list[CohortTask] = []
        self._resume: list[CohortTask] = []
        self._close: list[Callable[[], None]] = []
        self._out: list[tuple[Callable[[bytes], None], bytes]] = []
        self._is_due = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Asked for once: asking for the running one costs a system call."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def start(
        self, coro: Coroutine[Any, Any, None], on_end: Callable[[Exception | None], None]
    ) -> CohortTask:
        """Run `coro` with the others of this turn."""
        task = CohortTask(self, coro, on_end)
        self._begin.append(task)
        if not self._is_due:
            self._schedule()
        return task

    def resume(self, task: CohortTask) -> None:
        """What the task waited for is over."""
        self._resume.append(task)
        if not self._is_due:
            self._schedule()

    def send(self, write: Callable[[bytes], None], data: bytes) -> None:
        """
        Call `write(data)` at the end of the stage, with what the others send.

        Sent one after the other they find the kernel's code warm, and wake a peer on
        another core once instead of each time.
        """
        out = self._out
        out.append((write, data))
        if len(data) > _LARGE_BYTES or len(out) >= _MOST_UNSENT:
            self._send_out()
        elif not self._is_due:
            self._schedule()

    def at_close(self, work: Callable[[], None]) -> None:
        """Call `work` once all that is ready now has run as far as it gets. It must not raise."""
        self._close.append(work)
        if not self._is_due:
            self._schedule()

    def _send_out(self) -> None:
        out, self._out = self._out, []
        for write, data in out:
            try:
                write(data)
            except RuntimeError:  # a connection that closed meanwhile; its owner hears of that by itself
                pass

    def _schedule(self) -> None:
        self._is_due = True
        self.loop.call_soon(self._run)

    def _run(self) -> None:
        for _ in range(_ROUNDS):
            begin, self._begin = self._begin, []
            for task in begin:
                task.step()
            if begin and self._out:
                self._send_out()  # what is asked of engines does not wait for what others are told
            resume, self._resume = self._resume, []
            for task in resume:
                task.step()
            if self._out:
                self._send_out()
            close, self._close = self._close, []
            for work in close:
                work()
            if not (self._begin or self._resume or self._close or self._out):
                self._is_due = False
                return
        self._schedule()
