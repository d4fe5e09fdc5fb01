"""
Walks a Protocol Buffers message without its schema: field numbers and raw values.

Belongs here: the wire format. Does not: what a number means. For messages of which
a few fields are wanted, out of files that nobody vouches for.

Source: the Protocol Buffers encoding guide, "Message structure".
"""

from collections.abc import Iterator

_MAX_VARINT_BYTES = 10


class ProtobufError(ValueError):
    """No message of this format."""


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """
    Each field as it stands: (number, value); a value is an int, or a view of its bytes.

    Raises:
        ProtobufError: The bytes end within a field, or are of a kind that is not used any more.
    """
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise ProtobufError("a field has the number 0")
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ProtobufError(f"a field is of kind {kind}")
        if size > end - at:
            raise ProtobufError("a field is longer than what holds it")
        yield number, data[at : at + size]
        at += size


def inner(data: memoryview, number: int) -> Iterator[memoryview]:
    """The values of one field that have bytes: messages, texts."""
    for found, value in fields(data):
        if found == number and isinstance(value, memoryview):
            yield value


def text(data: memoryview, number: int) -> str:
    """Of a field that comes once at the most, "" without it."""
    found = ""
    for value in inner(data, number):
        found = str(value, "utf-8", "replace")
    return found


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for i in range(_MAX_VARINT_BYTES):
        if at + i >= len(data):
            raise ProtobufError("the bytes end within a number")
        byte = data[at + i]
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at + i + 1
    raise ProtobufError("a number has more than 10 bytes")
