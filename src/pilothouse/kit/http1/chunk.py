"""
One chunk of a chunked body that came by itself, as the events of a stream do.

Source: RFC 9112, section 7.1.
"""

from typing import Final

_LONGEST_SIZE: Final = 10
"""Of a chunk's size and the end of its line, in bytes."""


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
    at = data.find(b"\r\n", 1, _LONGEST_SIZE)
    if at < 0:
        return None
    digits = data[:at]
    # `find`, for `in` takes what it looks for to be a number first, and makes an error of it.
    if not digits.isalnum() or digits.lower().find(b"x") >= 0:
        return None
    try:
        size = int(digits, 16)
    except ValueError:
        return None
    if size == 0 or at + size + 4 != len(data) or not data.endswith(b"\r\n"):
        return None
    return data[at + 2 : at + 2 + size]
