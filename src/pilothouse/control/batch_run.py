"""
One batch on its way, from its check to its files.

What was answered is in its two files, a line a request, and nowhere else: they
are read when a batch is taken up again, and what they lack is asked. A line is
written once it is answered and never a second time, so that a kill at any
moment loses nothing and repeats nothing; a request that was in flight then is
asked again.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from pilothouse.control.files import USUAL_S, Files
from pilothouse.control.pace import Pace
from pilothouse.control.transact import Transact
from pilothouse.domain.batch import Batch, BatchFault, Line, StoredFile, close, move, why_unasked
from pilothouse.domain.errors import NotFound, StoreUnavailable
from pilothouse.kit.clock import Clock
from pilothouse.kit.seal import SealBroken
from pilothouse.kit.sealed_log import SealedLog
from pilothouse.ports.store import UnitOfWork
from pilothouse.wire.openai import batches as wire

SAVE_S = 1.0
ROUND_S = 0.25
"""How soon a cancelled or expired batch notices, whatever it waits for."""
PATIENCE_S = (1.0, 30.0)
"""The first and the longest pause before a request is asked again."""
ATTEMPTS = 3
"""Of a request that an engine failed on; one that only found no room is asked until the window ends."""
_NO_ROOM = frozenset({"rate_limit_exceeded", "overloaded", "engine_unavailable", "store_unavailable"})
_FAILED = frozenset({"upstream_error", "deadline_exceeded", "internal"})


class Answer(Struct, frozen=True, kw_only=True):
    """What a gateway worker said."""

    status: int
    request_id: str
    body: bytes
    code: str = ""
    """Of an error."""
    retry_after_s: float = 0.0


class Ask(Protocol):
    async def __call__(self, key_id: str, path: str, body: bytes) -> Answer | None:
        """Ask in a key's name, behind all that is live; None when no worker could be reached."""
        ...


class Gate:
    """
    How many requests of batches are in flight, by model.

    Args:
        room: How many may be; asked again and again, for it changes.
    """

    def __init__(self, room: Callable[[str], int]) -> None:
        self._room = room
        self._inflight: dict[str, int] = {}
        self._changed = asyncio.Event()

    async def enter(self, model: str, *, timeout_s: float) -> bool:
        """False when there was no room in time."""
        ends = asyncio.get_running_loop().time() + timeout_s
        while self._inflight.get(model, 0) >= self._room(model):
            left_s = ends - asyncio.get_running_loop().time()
            if left_s <= 0:
                return False
            self._changed.clear()
            try:
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
            except TimeoutError:
                pass
        self._inflight[model] = self._inflight.get(model, 0) + 1
        return True

    def leave(self, model: str) -> None:
        self._inflight[model] -= 1
        if not self._inflight[model]:
            del self._inflight[model]
        self._changed.set()


@dataclass(frozen=True, kw_only=True)
class Works:
    """What every batch is run with."""

    transact: Transact
    files: Files
    ask: Ask
    gate: Gate
    pace: Pace
    clock: Clock


class BatchRun:
    """`batch` is its present state; whoever changes it calls `save`."""

    def __init__(self, batch: Batch, works: Works) -> None:
        self.batch = batch
        self._works = works
        self._done: set[int] = set()
        self._has_expired = False
        self._saved_at = 0.0
        self._output: SealedLog
        self._errors: SealedLog

    async def save(self) -> None:
        batch = self.batch
        self._saved_at = self._works.clock.monotonic()
        await self._works.transact(lambda unit: unit.batches.put(batch))

    async def run(self) -> None:
        """
        To its end. When it fails on the way, run it again: it goes on where it was.

        Raises:
            PilothouseError, OSError: The store or the disk is away.
        """
        try:
            await self._go()
        except* (NotFound, SealBroken) as lost:
            fault = BatchFault(
                code="file_lost", message=f"a file of this batch cannot be read: {lost.exceptions[0]}"
            )
            self.batch = move(replace(self.batch, faults=(fault,)), "failed", self._now())
            await self.save()

    async def _go(self) -> None:
        if self.batch.status == "validating":
            await self._check()
        if self.batch.has_ended:
            return
        if self.batch.status == "cancelling" and not self.batch.total:
            self.batch = close(self.batch, self._now())
            await self.save()
            return
        await self._take_up()
        logs = (self._output, self._errors)
        try:
            await self._ask_all()
            for log in logs:
                await asyncio.to_thread(log.sync)
        finally:
            for log in logs:
                log.close()
        await self._finish()

    def _now(self) -> float:
        return self._works.clock.now()

    # The check

    async def _check(self) -> None:
        log = await self._input()
        total, faults = await asyncio.to_thread(lambda: wire.check(log.lines(), self.batch.endpoint))
        if self.batch.status != "validating":  # cancelled meanwhile
            return
        batch = replace(self.batch, total=total, faults=faults)
        if faults:
            self.batch = move(replace(batch, total=0), "failed", self._now())
        else:
            batch = await self._works.transact(lambda unit: self._with_key(unit, batch))
            if self.batch.status != "validating":
                return
            self.batch = move(batch, "in_progress", self._now())
        await self.save()

    def _with_key(self, unit: UnitOfWork, batch: Batch) -> Batch:
        sealing_key, sealed_key = self._works.files.new_key(unit, batch.team)
        return replace(batch, sealing_key=sealing_key, sealed_key=sealed_key)

    async def _input(self) -> SealedLog:
        batch = self.batch
        file = await self._works.transact(lambda unit: unit.files.get(batch.input_file, team=batch.team))
        return await self._works.files.log_of(file)

    # The requests

    async def _take_up(self) -> None:
        batch, files = self.batch, self._works.files
        self._output, self._errors = [
            await files.open_log(name, batch.team, batch.sealing_key, batch.sealed_key)
            for name in (output_id(batch), errors_id(batch))
        ]
        completed, failed = await asyncio.to_thread(self._read_results)
        self.batch = replace(self.batch, completed=completed, failed=failed)

    def _read_results(self) -> list[int]:
        """How many lines each of the two files has."""
        self._done, counts = set(), []
        for log in (self._output, self._errors):
            log.open()
            before = len(self._done)
            for text in log.lines():
                result = wire.read_result(text)
                self._done.add(result.line)
                self._has_expired |= result.error is not None and result.error.code == "batch_expired"
            counts.append(len(self._done) - before)
        return counts

    async def _ask_all(self) -> None:
        if len(self._done) >= self.batch.total:
            return
        log = await self._input()
        async with asyncio.TaskGroup() as asking:
            for number, text in wire.numbered(log.lines()):
                if number in self._done:
                    continue
                line = wire.read_line(text, number, self.batch.endpoint)
                if await self._enter(line.model):
                    asking.create_task(self._ask_one(line))
                else:
                    self._note_unasked(line)
                    await asyncio.sleep(0)
                await self._save_at_times()

    async def _enter(self, model: str) -> bool:
        """False: it is not to be asked any more."""
        await self._works.pace.turn()
        while not why_unasked(self.batch, self._now()):
            if await self._works.gate.enter(model, timeout_s=ROUND_S):
                if not why_unasked(self.batch, self._now()):
                    return True
                self._works.gate.leave(model)
            await self._save_at_times()
        return False

    async def _ask_one(self, line: Line) -> None:
        try:
            pause_s, attempts = PATIENCE_S[0], 0
            while True:
                answer = await self._works.ask(self.batch.key_id, self.batch.endpoint, line.body)
                attempts += answer is not None and answer.code in _FAILED
                if answer is not None and (answer.code not in _NO_ROOM | _FAILED or attempts >= ATTEMPTS):
                    self._note(line, answer)
                    return
                if not await self._pause(max(pause_s, answer.retry_after_s if answer else 0.0)):
                    self._note_unasked(line)
                    return
                pause_s = min(pause_s * 2, PATIENCE_S[1])
        finally:
            self._works.gate.leave(line.model)

    async def _pause(self, pause_s: float) -> bool:
        """False: meanwhile it became something not to be asked."""
        ends = self._works.clock.monotonic() + min(pause_s, PATIENCE_S[1])
        while not why_unasked(self.batch, self._now()):
            if self._works.clock.monotonic() >= ends:
                return True
            await asyncio.sleep(ROUND_S)
        return False

    def _note(self, line: Line, answer: Answer) -> None:
        is_good = answer.status == 200
        text = wire.write_answer(
            self.batch, line, status=answer.status, request_id=answer.request_id, body=answer.body
        )
        self._write(self._output if is_good else self._errors, line, text, is_good=is_good)

    def _note_unasked(self, line: Line) -> None:
        code = why_unasked(self.batch, self._now())
        self._has_expired |= code == "batch_expired"
        self._write(self._errors, line, wire.write_unasked(self.batch, line, code), is_good=False)

    def _write(self, log: SealedLog, line: Line, text: bytes, *, is_good: bool) -> None:
        if line.number in self._done:
            return
        log.append(text)
        self._done.add(line.number)
        batch = self.batch
        self.batch = replace(batch, completed=batch.completed + is_good, failed=batch.failed + (not is_good))

    async def _save_at_times(self) -> None:
        if self._works.clock.monotonic() - self._saved_at > SAVE_S:
            try:
                await self.save()
            except StoreUnavailable:  # told by the store's thread; counts are only for people to see
                pass

    # The end

    async def _finish(self) -> None:
        if self.batch.status == "in_progress" and not self._has_expired:
            self.batch = move(self.batch, "finalizing", self._now())
            await self.save()
        named = {}
        for field_name, log in (("output_file", self._output), ("error_file", self._errors)):
            if log.plain_bytes:
                named[field_name] = log
            else:
                log.path.unlink(missing_ok=True)
        ended = close(self.batch, self._now())
        ended = replace(ended, **{field_name: log.path.name for field_name, log in named.items()})
        files = [self._file(log) for log in named.values()]
        await self._works.transact(lambda unit: _keep(unit, ended, files))
        self.batch = ended

    def _file(self, log: SealedLog) -> StoredFile:
        batch, now = self.batch, self._now()
        return StoredFile(
            id=log.path.name,
            team=batch.team,
            key_id=batch.key_id,
            filename=f"{batch.id}_{'output' if log is self._output else 'error'}.jsonl",
            purpose="batch_output",
            size_bytes=log.plain_bytes,
            created_at=now,
            expires_at=now + (batch.output_expires_s or USUAL_S),
            sealing_key=batch.sealing_key,
            sealed_key=batch.sealed_key,
        )


def _keep(unit: UnitOfWork, batch: Batch, files: list[StoredFile]) -> None:
    unit.batches.put(batch)
    for file in files:
        unit.files.add(file)


def output_id(batch: Batch) -> str:
    return f"file-{batch.id.removeprefix('batch_')}o"


def errors_id(batch: Batch) -> str:
    return f"file-{batch.id.removeprefix('batch_')}e"
