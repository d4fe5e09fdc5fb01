"""A whole answer as caches keep it. Which answers are kept, and by what key: `domain.caching`."""

from msgspec import Struct

from pilothouse.domain.chunk import Delta
from pilothouse.domain.used_tokens import Usage


class CachedAnswer(Struct, gc=False):
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
