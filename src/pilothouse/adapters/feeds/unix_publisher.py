"""
The controller's end of the Feed over a local socket.

Each worker gets its own view of the newest state. A slow one gets the newest
when it is ready to take it, and holds up nobody.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

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
    from_worker,
    until_first_ends,
)
from pilothouse.domain.errors import Conflict
from pilothouse.domain.leasing import LedgerAnswer
from pilothouse.domain.snapshot import Snapshot, WorkerHello, WorkerReport
from pilothouse.kit.framing import read_frame, write_frame
from pilothouse.kit.local_socket import listen_privately
from pilothouse.ports.feed import AnswerLedger


class _Worker:
    """A connected worker, as the publisher knows it."""

    def __init__(self, hello: WorkerHello, writer: asyncio.StreamWriter) -> None:
        self.hello = hello
        self.writer = writer
        self.stale = True
        self.asked = 0
        self.told = 0
        self.work = asyncio.Event()
        self.work.set()
        self.report: WorkerReport | None = None
        self.answered: dict[int, asyncio.Future[None]] = {}
        self.ledger: tuple[int, LedgerAnswer] | None = None
        """What is to be said about leases."""
        self.answering: asyncio.Task[None] | None = None


class UnixPublisher:
    """The controller's end; see `ports.feed.Publisher`. The socket is 0600 in a folder of 0700."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._workers: dict[str, _Worker] = {}
        self._sessions: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._asked = 0
        self._on_ask: AnswerLedger | None = None

    async def serve(
        self,
        *,
        view: Callable[[WorkerHello], Snapshot],
        on_report: Callable[[WorkerReport], None],
        on_leave: Callable[[str], None],
        on_ask: AnswerLedger | None = None,
    ) -> None:
        self._on_ask = on_ask

        async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            if task is not None:
                self._sessions[task] = writer
                task.add_done_callback(self._sessions.pop)
            try:
                await self._serve_worker(reader, writer, view=view, on_report=on_report, on_leave=on_leave)
            finally:
                writer.close()

        server = await asyncio.start_unix_server(session, sock=_bind(self._path))
        inode = self._path.stat().st_ino
        try:
            await asyncio.get_running_loop().create_future()  # until cancelled
        finally:
            server.close()
            # Cut, not cancelled: asyncio reports a cancelled session as an error (CPython 3.11).
            for writer in self._sessions.values():
                writer.transport.abort()
            if self._sessions:
                await asyncio.wait(self._sessions, timeout=WRITE_TIMEOUT_S)
            with contextlib.suppress(OSError):  # a successor's socket may lie there by now
                if self._path.stat().st_ino == inode:
                    self._path.unlink()

    def publish(self) -> None:
        for worker in self._workers.values():
            worker.stale = True
            worker.work.set()

    async def collect(self, *, timeout_s: float) -> Mapping[str, WorkerReport]:
        self._asked += 1
        number = self._asked
        waiting = []
        for worker in self._workers.values():
            worker.asked = number
            worker.answered[number] = asyncio.get_running_loop().create_future()
            waiting.append(worker.answered[number])
            worker.work.set()
        if waiting:
            await asyncio.wait(waiting, timeout=timeout_s)
        for worker in self._workers.values():
            worker.answered.pop(number, None)
        return {name: worker.report for name, worker in self._workers.items() if worker.report is not None}

    async def _serve_worker(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        view: Callable[[WorkerHello], Snapshot],
        on_report: Callable[[WorkerReport], None],
        on_leave: Callable[[str], None],
    ) -> None:
        with contextlib.suppress(*BROKEN):
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                first = await read_frame(reader)
            introduced = from_worker.decode(first) if first else None
            if not isinstance(introduced, HelloMessage):
                return
            worker = _Worker(introduced.hello, writer)
            self._enter(worker, on_leave)
            try:
                ends = [
                    asyncio.ensure_future(_listen(worker, reader, on_report, self._on_ask)),
                    asyncio.ensure_future(_send(worker, view)),
                ]
                await until_first_ends(ends)
            finally:
                if worker.answering is not None:
                    worker.answering.cancel()
                self._leave(worker, on_leave)

    def _enter(self, worker: _Worker, on_leave: Callable[[str], None]) -> None:
        """A worker that comes a second time is the same one: its first connection is dead."""
        if former := self._workers.get(worker.hello.worker):
            former.writer.close()
            self._leave(former, on_leave)
        self._workers[worker.hello.worker] = worker

    def _leave(self, worker: _Worker, on_leave: Callable[[str], None]) -> None:
        if self._workers.get(worker.hello.worker) is worker:
            del self._workers[worker.hello.worker]
            for answer in worker.answered.values():
                if not answer.done():
                    answer.set_result(None)
            on_leave(worker.hello.worker)


async def _listen(
    worker: _Worker,
    reader: asyncio.StreamReader,
    on_report: Callable[[WorkerReport], None],
    on_ask: AnswerLedger | None,
) -> None:
    while frame := await read_frame(reader):
        message = from_worker.decode(frame)
        if isinstance(message, LedgerAskMessage):
            if on_ask is not None:
                if worker.answering is not None:  # a worker that asks anew gave up waiting for the last
                    worker.answering.cancel()
                worker.answering = asyncio.ensure_future(_answer(worker, message, on_ask))
            continue
        if not isinstance(message, ReportMessage):
            return
        worker.report = message.report
        for number, answer in worker.answered.items():
            if number <= message.answers and not answer.done():
                answer.set_result(None)
        on_report(message.report)


async def _answer(worker: _Worker, message: LedgerAskMessage, on_ask: AnswerLedger) -> None:
    worker.ledger = (message.number, await on_ask(message.ask))
    worker.work.set()


async def _send(worker: _Worker, view: Callable[[WorkerHello], Snapshot]) -> None:
    while True:
        await worker.work.wait()
        worker.work.clear()
        if worker.ledger is not None:
            number, answer = worker.ledger
            worker.ledger = None
            frame = encode(LedgerAnswerMessage(number, answer))
            await write_frame(worker.writer, frame, timeout_s=WRITE_TIMEOUT_S)
        if worker.stale:
            worker.stale = False
            message = encode(SnapshotMessage(view(worker.hello)))
            await write_frame(worker.writer, message, timeout_s=WRITE_TIMEOUT_S)
        if worker.told < worker.asked:
            worker.told = worker.asked
            await write_frame(worker.writer, encode(AskMessage(worker.told)), timeout_s=WRITE_TIMEOUT_S)


def _bind(path: Path) -> socket.socket:
    try:
        return listen_privately(path)
    except FileExistsError as exc:
        raise Conflict(f"another controller answers at {path}: stop it first (pilothouse down)") from exc
