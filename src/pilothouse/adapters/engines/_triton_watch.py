"""
Cuts the calls that a model's process took with it.

Triton's Python backend runs a model in a process of its own; when that ends, the
answers it was giving never do. The one idea: while anything is in flight the model is
asked, once a second for all, whose process it is.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from pilothouse.domain.errors import EngineUnavailable, PilothouseError
from pilothouse.wire.triton.said import LoadSaid

LOOK_S = 1.0
MOST_UNANSWERED = 2
"""Looks. A server that is told to end takes no more calls, and over gRPC waits for those that it has."""


class Call:
    """
    One request in flight; `with call:` goes around each wait for what the server says.

    Raises:
        EngineUnavailable: The process that should have said it has ended.
    """

    def __init__(self, ended: Callable[["Call"], None] = lambda _: None) -> None:
        self.began_at = time.monotonic()
        self.hang_up: Callable[[], object] = lambda: None
        """Ends it where nobody waits: its reader is slow, and a server may wait for it to be over."""
        self._hanging_up: object = None
        self._ended = ended
        self._task: Any = None
        """That waits now."""
        self._cancelling = 0
        self._is_cut = False

    def __enter__(self) -> None:
        if self._is_cut:
            raise _ended()
        self._task = asyncio.current_task()
        self._cancelling = self._task.cancelling()

    def __exit__(self, kind: type[BaseException] | None, error: object, _: object) -> None:
        task, self._task = self._task, None
        # As asyncio.Timeout has it: a cancellation that somebody else asked for as well stays one.
        if self._is_cut and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise _ended() from None

    def cut(self) -> None:
        if self._is_cut:
            return
        self._is_cut = True
        if self._task is not None:
            self._task.cancel()
        else:
            self._hanging_up = self.hang_up()

    def end(self) -> None:
        self._ended(self)


class Watch:
    """
    The calls of one engine.

    Args:
        ask: Gives the load of the model, None where its process has ended.
    """

    def __init__(self, ask: Callable[[], Awaitable[LoadSaid | None]]) -> None:
        self._ask = ask
        self._calls: set[Call] = set()
        self._looking: asyncio.Task[None] | None = None
        self._process = 0
        self._seen_at = 0.0
        self._unanswered = 0

    def begin(self) -> Call:
        call = Call(self._calls.discard)
        self._calls.add(call)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        return call

    def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            if not self._calls:
                return
            now = time.monotonic()
            try:
                found = await self._ask()
            except PilothouseError as exc:
                self._unanswered += isinstance(exc, EngineUnavailable)
                if self._unanswered >= MOST_UNANSWERED:
                    self._cut_before(now)
                continue
            self._unanswered = 0
            if found is None:
                self._cut_before(now)
                continue
            if self._process and found.process != self._process:
                self._cut_before(self._seen_at)
            self._process, self._seen_at = found.process, now

    def _cut_before(self, moment: float) -> None:
        for call in list(self._calls):
            if call.began_at < moment:
                call.cut()


def _ended() -> EngineUnavailable:
    return EngineUnavailable("the process of this model on Triton has ended", retry_after_s=1.0)
