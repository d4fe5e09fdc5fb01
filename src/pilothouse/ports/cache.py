"""
Caches of answers: a place where an answer can be found again by its key.

A key says everything (`domain.caching`): a cache compares nothing, and never
looks into one. It may forget at any time, and must not give back what expired.
"""

from collections.abc import Callable
from typing import Protocol

from pilothouse.domain.cached_answer import CachedAnswer


class Cache(Protocol):
    """Whatever goes wrong in it is a miss: nothing here raises, and every wait is bounded."""

    async def get(self, key: bytes) -> CachedAnswer | None: ...

    def put(self, key: bytes, answer: CachedAnswer) -> None:
        """Keep it until `answer.expires_at`. Never waits; what is too large or comes too fast is dropped."""
        ...

    def drop(self, matches: Callable[[CachedAnswer], bool]) -> None:
        """Forget these at once, where the process holds them itself; others are left to their expiry."""
        ...

    async def aclose(self) -> None: ...


class NearCache(Cache, Protocol):
    """A cache in this process, which knows at once."""

    def find(self, key: bytes) -> CachedAnswer | None:
        """As `get`, without a wait."""
        ...
