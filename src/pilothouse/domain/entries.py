"""
What a journal frame holds: the records that ended together, as one array of msgpack.

Sealing costs by the frame more than by the byte, so records share one. No caller
is told that his is kept before the frame is written, so a torn frame breaks no
promise, whoever shared it.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from pilothouse.domain.record import JournalEntry

MOST: Final = 15
"""Records in a frame: as many as an array has whose head is one byte."""
ENOUGH_BYTES: Final = 32 * 1024
"""A frame that holds so much takes no further record."""

_ARRAY: Final = 0x90
"""Head of an array without elements (msgpack's `fixarray`); their number is added."""
_USUAL_BYTES: Final = bytes(2048)
_encode_into: Final = msgspec.msgpack.Encoder().encode_into
_decode: Final = msgspec.msgpack.Decoder(list[JournalEntry] | JournalEntry).decode


def pack(entries: Iterable[JournalEntry]) -> list[bytearray]:
    """Payloads of frames that hold these, in their order."""
    payloads: list[bytearray] = []
    count = 0
    for entry in entries:
        if not count or count == MOST or len(payloads[-1]) >= ENOUGH_BYTES:
            payloads.append(bytearray(_USUAL_BYTES))
            count = 0
        payload = payloads[-1]
        _encode_into(entry, payload, -1 if count else 1)
        count += 1
        payload[0] = _ARRAY | count
    return payloads


def unpack(payload: bytes | bytearray) -> list[JournalEntry]:
    """
    Also of a frame of earlier versions, which held one record and no array.

    Raises:
        msgspec.DecodeError: It holds neither.
    """
    found = _decode(payload)
    return found if isinstance(found, list) else [found]
