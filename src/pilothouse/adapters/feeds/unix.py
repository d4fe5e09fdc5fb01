"""
The worker's end of the Feed over a local socket: snapshots come in, reports go out.

A worker imports this module, so it imports nothing heavy. Nobody waits for a
slow peer: what was not sent yet is replaced by what is newer.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random

from pilothouse.adapters.feeds._messages import (
    BROKEN,
    HELLO_TIMEOUT_S,
    WRITE_TIMEOUT_S,
    AskMessage,
    HelloMessage,
    LedgerAnswerMessage,
    LedgerAskMessage,
    ReportMessage,
    SnapshotMessage,
    encode,
    from_controller,
    until_first_ends,
)
from pilothouse.domain.leasing import LedgerAnswer, LedgerAsk
from pilothouse.domain.snapshot import Snapshot, WorkerHello, WorkerReport
from pilothouse.kit.clock import Clock, SystemClock
from pilothouse.kit.framing import read_frame, write_frame
from pilothouse.kit.retry import Backoff

RECONNECT = Backoff(first_s=0.02, ceiling_s=0.2)
"""An attempt costs next to nothing, and a start waits for it; so does a new controller, for claims."""


class UnixFeed:
    """
    The worker's end; see `ports.feed.Feed`.

    Args:
        hello: Makes the introduction, anew at each connect: it tells the slots held by then.
        fresh_report: Makes a report when the controller asks for one; None answers with the last.
    """

    def __init__(
        self,
        path: Path,
        hello: Callable[[], WorkerHello],
        *,
        fresh_report: Callable[[], WorkerReport] | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        self._path = path
        self._hello = hello
        self._fresh_report = fresh_report
        self._clock = clock or SystemClock()
        self._random = random or Random()  # noqa: S311 - jitter, no secret
        self._since: float | None = self._clock.now()
        self._newest: Snapshot | None = None
        self._arrived = asyncio.Event()
        self._last_report: WorkerReport | None = None
        self._asked = 0
        self._to_send = asyncio.Event()
        self._report_due = False
        self._exchanges = 0
        self._ledger_ask: LedgerAskMessage | None = None
        self._ledger_answer: asyncio.Future[LedgerAnswer | None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def disconnected_since(self) -> float | None:
        return self._since

    def snapshots(self) -> AsyncIterator[Snapshot]:
        self._connect_once()
        return self._snapshots()

    async def _snapshots(self) -> AsyncIterator[Snapshot]:
        while not self._closed:
            await self._arrived.wait()
            self._arrived.clear()
            newest, self._newest = self._newest, None
            if newest is not None:
                yield newest

    def report(self, report: WorkerReport) -> None:
        self._connect_once()
        self._last_report = report
        if self._since is None:
            self._report_due = True
            self._to_send.set()

    async def exchange(self, ask: LedgerAsk, *, timeout_s: float) -> LedgerAnswer | None:
        self._connect_once()
        if self._since is not None:
            return None
        self._exchanges += 1
        self._ledger_ask = LedgerAskMessage(self._exchanges, ask)
        answer: asyncio.Future[LedgerAnswer | None] = asyncio.get_running_loop().create_future()
        self._ledger_answer = answer
        self._to_send.set()
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            return None
        finally:
            self._ledger_ask = self._ledger_answer = None

    async def aclose(self) -> None:
        self._closed = True
        self._arrived.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=WRITE_TIMEOUT_S)

    def _connect_once(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._stay_connected(), name="feed")

    async def _stay_connected(self) -> None:
        attempt = 0
        while True:
            with contextlib.suppress(*BROKEN):
                async with asyncio.timeout(HELLO_TIMEOUT_S):
                    reader, writer = await asyncio.open_unix_connection(str(self._path))
                try:
                    await write_frame(writer, encode(HelloMessage(self._hello())), timeout_s=WRITE_TIMEOUT_S)
                    await self._exchange(reader, writer)
                finally:
                    writer.close()
            if self._ledger_answer is not None and not self._ledger_answer.done():
                self._ledger_answer.set_result(None)  # whoever waits for it learns that nobody is there
            if self._since is None:
                attempt, self._since = 0, self._clock.now()
            attempt += 1
            await asyncio.sleep(RECONNECT.delay_s(attempt, self._random))

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._to_send.clear()
        ends = [asyncio.ensure_future(self._listen(reader)), asyncio.ensure_future(self._send(writer))]
        await until_first_ends(ends)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while frame := await read_frame(reader):
            match from_controller.decode(frame):
                case SnapshotMessage(snapshot=snapshot):
                    self._since = None
                    self._newest = snapshot
                    self._arrived.set()
                case AskMessage(number=number):
                    self._asked = number
                    if self._fresh_report is not None:
                        self._last_report = self._fresh_report()
                    self._report_due = True
                    self._to_send.set()
                case LedgerAnswerMessage(number=number, answer=answer):
                    waiting = self._ledger_answer
                    if number == self._exchanges and waiting is not None and not waiting.done():
                        waiting.set_result(answer)

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        while True:
            await self._to_send.wait()
            self._to_send.clear()
            ask, self._ledger_ask = self._ledger_ask, None
            if ask is not None:  # first: a request may wait for it
                await write_frame(writer, encode(ask), timeout_s=WRITE_TIMEOUT_S)
            if self._report_due and self._last_report is not None:
                self._report_due = False
                message = ReportMessage(self._last_report, answers=self._asked)
                await write_frame(writer, encode(message), timeout_s=WRITE_TIMEOUT_S)
