"""
What the two ends of the local feed say to each other, and how a connection ends.

MessagePack with a tag, in frames (`kit.framing`). Fields may be added, never
removed: during an upgrade the two ends may be of different versions.
"""

import asyncio
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from pilothouse.domain.leasing import LedgerAnswer, LedgerAsk
from pilothouse.domain.snapshot import Snapshot, WorkerHello, WorkerReport

WRITE_TIMEOUT_S = 30.0
"""A peer that takes nothing for so long is gone; it may connect again."""
HELLO_TIMEOUT_S = 5.0
"""Time to connect, and to introduce oneself."""
BROKEN = (OSError, TimeoutError, msgspec.MsgspecError)
"""What ends a connection and nothing more."""


class HelloMessage(Struct, frozen=True, tag="hello"):
    hello: WorkerHello


class ReportMessage(Struct, frozen=True, tag="report"):
    report: WorkerReport
    answers: int = 0
    """Number of the newest question that this report is an answer to."""


class SnapshotMessage(Struct, frozen=True, tag="snapshot"):
    snapshot: Snapshot


class AskMessage(Struct, frozen=True, tag="ask"):
    """Please report now."""

    number: int


class LedgerAskMessage(Struct, frozen=True, tag="ledger_ask"):
    """Of a worker, about its leases; the answer has the same number."""

    number: int
    ask: LedgerAsk


class LedgerAnswerMessage(Struct, frozen=True, tag="ledger_answer"):
    number: int
    answer: LedgerAnswer


encode = msgspec.msgpack.Encoder().encode
from_worker = msgspec.msgpack.Decoder(HelloMessage | ReportMessage | LedgerAskMessage)
from_controller = msgspec.msgpack.Decoder(SnapshotMessage | AskMessage | LedgerAnswerMessage)


async def until_first_ends(ends: Sequence["asyncio.Future[None]"]) -> None:
    """Both directions of a connection live and die together; the error of the first is raised."""
    try:
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in done:
            end.result()
    finally:
        for end in ends:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)
