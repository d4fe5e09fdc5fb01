"""
One chunk of a chunked body that came by itself, as the events of a stream do.

Source: RFC 9112, section 7.1.
"""

from typing import Final

_MOST_DIGITS: Final = 8
"""Of a chunk's size."""
_ZERO: Final = ord("0")
_A: Final = ord("a")
_LOWER: Final = 0x20
"""The bit that makes a capital letter a small one."""
_CR: Final = ord("\r")
_LF: Final = ord("\n")


class ChunkReader:
    """Told by a parser where it stands in a chunked body. Callbacks are named by httptools."""

    def __init__(self) -> None:
        self._ended_chunk = False
        """Nothing came behind the last chunk that ended."""

    def on_chunk_header(self) -> None:
        self._ended_chunk = False

    def on_chunk_complete(self) -> None:
        self._ended_chunk = True


def whole_chunk(data: bytes) -> bytes | None:
    """
    The data of a chunk, where `data` is exactly one; None for all else, and for the last chunk.

    Its size is digits as a strict parser takes them, without extensions, signs or space.
    """
    size = at = 0
    # Byte by byte, which is quick where it is compiled; each method of bytes costs more than all digits.
    for at in range(min(len(data), _MOST_DIGITS + 1)):
        byte = data[at]
        if _ZERO <= byte <= _ZERO + 9:
            size = size * 16 + byte - _ZERO
        elif _A <= (byte | _LOWER) <= _A + 5:
            size = size * 16 + (byte | _LOWER) - _A + 10
        else:
            break
    end = at + 2 + size
    if size == 0 or end + 2 != len(data) or data[at] != _CR or data[at + 1] != _LF:
        return None
    if data[end] != _CR or data[end + 1] != _LF:
        return None
    return data[at + 2 : end]
