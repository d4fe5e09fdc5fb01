"""
Cuts the calls that a model's process took with it.

Triton's Python backend runs a model in a process of its own; when that ends, the
answers it was giving never do. The one idea: while anything is in flight the model is
asked, once a second for all, whose process it is.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from pilothouse.domain.errors import EngineUnavailable, PilothouseError
from pilothouse.kit.http1.client import Exchange
from pilothouse.wire.triton.said import LoadSaid

LOOK_S = 1.0


class Call:
    """One request in flight."""

    def __init__(self, ended: Callable[["Call"], None] = lambda _: None) -> None:
        self.began_at = time.monotonic()
        self._ended = ended
        self._asking: asyncio.Task[Exchange] | None = None
        self._exchange: Exchange | None = None
        self._is_cut = False

    async def answered(self, asking: Coroutine[Any, Any, Exchange]) -> Exchange:
        """
        Wait for the head of its answer.

        Raises:
            EngineUnavailable: The process that should have given it has ended.
        """
        self._asking = asyncio.ensure_future(asking)
        try:
            self._exchange = await self._asking
        except asyncio.CancelledError:
            if not self._is_cut:
                raise
            raise EngineUnavailable(
                "the process of this model on Triton has ended", retry_after_s=1.0
            ) from None
        return self._exchange

    def cut(self) -> None:
        self._is_cut = True
        if self._exchange is not None:
            self._exchange.close()
        elif self._asking is not None:
            self._asking.cancel()

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
            except PilothouseError:
                continue  # a server that is gone ends its connections itself
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
