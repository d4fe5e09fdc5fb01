"""
Answers in the memory of one worker: the least recently used go first, by bytes and not by number.

One long answer must not push out a thousand short ones, so an entry may take up
only a share of the room.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from pilothouse.domain.cached_answer import CachedAnswer
from pilothouse.domain.caching import size_bytes

_LARGEST_SHARE: Final = 16
"""An entry may take up one part in so many of the room."""


class MemoryCache:
    """
    Args:
        cap_bytes: Room for all entries; 0 keeps nothing.
        now: Unix seconds.
    """

    def __init__(self, cap_bytes: int, *, now: Callable[[], float] = time.time) -> None:
        self._cap_bytes = cap_bytes
        self._now = now
        self._entries: OrderedDict[bytes, tuple[CachedAnswer, int]] = OrderedDict()
        """Each with its size."""
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, key: bytes) -> CachedAnswer | None:
        return self.find(key)

    def find(self, key: bytes) -> CachedAnswer | None:
        found = self._entries.get(key)
        if found is None:
            return None
        answer = found[0]
        if self._now() >= answer.expires_at:
            self._forget(key)
            return None
        self._entries.move_to_end(key)
        return answer

    def put(self, key: bytes, answer: CachedAnswer) -> None:
        size = len(key) + size_bytes(answer)
        if size * _LARGEST_SHARE > self._cap_bytes:
            return
        if key in self._entries:
            self._forget(key)
        self._entries[key] = (answer, size)
        self.size_bytes += size
        while self.size_bytes > self._cap_bytes:
            self._forget(next(iter(self._entries)))

    def drop(self, matches: Callable[[CachedAnswer], bool]) -> None:
        for key in [key for key, (answer, _) in self._entries.items() if matches(answer)]:
            self._forget(key)

    async def aclose(self) -> None:
        self._entries.clear()
        self.size_bytes = 0

    def _forget(self, key: bytes) -> None:
        self.size_bytes -= self._entries.pop(key)[1]
