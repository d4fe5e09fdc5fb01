"""
`application/vnd.amazon.eventstream`: messages in a stream of bytes, each with two checksums.

    total u32 | headers u32 | CRC of these 8 bytes | headers | payload | CRC of all before it

Numbers are big-endian, checksums are CRC-32. A header is the length of its name, the
name, a type, and a value whose length the type says or the value begins with. Only
headers that are strings mean anything here; the others are read over.

Source: the Amazon event stream encoding, as the Smithy specification has it.
"""

import struct
from struct import Struct as Layout
from zlib import crc32

from msgspec import Struct

from pilothouse.domain.errors import UpstreamError

MAX_BYTES = 4 * 1024 * 1024
"""Of one message, as of any event of a stream."""
_PRELUDE = Layout(">III")
_U32 = Layout(">I")
_U16 = Layout(">H")
_LEAST = _PRELUDE.size + _U32.size
_STRING = 7
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of a value by its type: true, false, byte, short, int, long, timestamp, uuid."""
_SIZED = frozenset({6, _STRING})
"""Bytes and strings say their length first, in two bytes."""


class Message(Struct, frozen=True):
    headers: dict[str, str]
    payload: bytes


class MessageParser:
    """Turns bytes, however cut, into messages."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    @property
    def is_mid_event(self) -> bool:
        """Something was received that is not a whole message yet."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[Message]:
        """
        Return every message that is now complete.

        Raises:
            UpstreamError: A checksum is wrong, or a message is not laid out as one, or too large.
        """
        buffer = self._rest + data if self._rest else data
        messages: list[Message] = []
        at = 0
        while len(buffer) - at >= _PRELUDE.size:
            size, header_size, check = _PRELUDE.unpack_from(buffer, at)
            if crc32(buffer[at : at + 8]) != check:
                raise UpstreamError("the provider's stream holds a message whose checksum is wrong")
            if size > MAX_BYTES or header_size + _LEAST > size:
                raise UpstreamError("the provider's stream holds a message of a length that cannot be")
            if len(buffer) - at < size:
                break
            messages.append(_message(buffer[at : at + size], header_size))
            at += size
        self._rest = buffer[at:]
        return messages


def _message(data: bytes, header_size: int) -> Message:
    end = len(data) - _U32.size
    if crc32(data[:end]) != _U32.unpack_from(data, end)[0]:
        raise UpstreamError("the provider's stream holds a message whose checksum is wrong")
    payload_at = _PRELUDE.size + header_size
    return Message(_headers(data[_PRELUDE.size : payload_at]), data[payload_at:end])


def _headers(data: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    at = 0
    try:
        while at < len(data):
            name_end = at + 1 + data[at]
            kind, value_at = data[name_end], name_end + 1
            if kind in _SIZED:
                (size,) = _U16.unpack_from(data, value_at)
                value_at += _U16.size
            else:
                size = _SIZES[kind]
            if value_at + size > len(data):
                break
            if kind == _STRING:
                headers[data[at + 1 : name_end].decode()] = data[value_at : value_at + size].decode()
            at = value_at + size
        else:
            return headers
    except (IndexError, KeyError, struct.error, UnicodeDecodeError) as exc:
        raise UpstreamError("the provider's stream holds a message whose headers cannot be read") from exc
    raise UpstreamError("the provider's stream holds a message whose headers are cut")
