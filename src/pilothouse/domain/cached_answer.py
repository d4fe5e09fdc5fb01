"""A whole answer as caches keep it. Which answers are kept, and by what key: `domain.caching`."""

import msgspec
from msgspec import Struct

from pilothouse.domain.chat import Delta, Usage

PIECES = 16
"""Events that an answer is replayed in at most: several, for a client that shows text as it comes."""
_OVERHEAD_BYTES = 1024
"""Of one entry in memory: its key, its place in the order, and the structs that hold it together."""

_encode = msgspec.json.Encoder().encode


class CachedAnswer(Struct):
    """
    A whole answer: one delta a choice. `expires_at` is in Unix seconds.

    `whole` and `events` are what clients get of it, all but the names and times of
    a request; they are made at the first use and never leave the process.
    """

    team: str
    endpoint: str
    deltas: tuple[Delta, ...]
    usage: Usage
    expires_at: float
    whole: bytes = b""
    events: bytes = b""

    @property
    def size_bytes(self) -> int:
        """What it will take up in memory at most, once both forms were asked for."""
        size = _OVERHEAD_BYTES
        for delta in self.deltas:
            # Python has up to four bytes a character, as UTF-8 has. Each text is there three times.
            wide = 3 if delta.text.isascii() else 12
            size += wide * len(delta.text) + 100 * PIECES
            if delta.logprobs is not None:
                size += 3 * len(delta.logprobs)
            if delta.aside is not None:
                size += 3 * len(_encode(delta.aside))
        return size
