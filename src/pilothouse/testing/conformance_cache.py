"""
What every cache of answers must do: `class TestMine(CacheConformance)` with a fixture `cache`.

`put` may be slow to arrive, so the suite asks until it is there.
"""

import asyncio
import time

from msgspec import Raw

from pilothouse.domain.cached_answer import CachedAnswer
from pilothouse.domain.chunk import Delta
from pilothouse.domain.used_tokens import Usage
from pilothouse.ports.cache import Cache

WAIT_S = 2.0
KEY, OTHER = b"k" * 32, b"o" * 32


def answer(text: str = "Paris.", *, team: str = "a", ttl_s: float = 60.0) -> CachedAnswer:
    """An answer of one choice."""
    return CachedAnswer(team, "chat", (Delta(text, 0, "stop"),), Usage(7, 2, 1), time.time() + ttl_s)


async def found(cache: Cache, key: bytes) -> CachedAnswer | None:
    """What is there, once it arrived; None when nothing came for long."""
    ends = time.monotonic() + WAIT_S
    while time.monotonic() < ends:
        there = await cache.get(key)
        if there is not None:
            return there
        await asyncio.sleep(0.01)
    return None


class CacheConformance:
    async def test_what_was_put_is_found_whole(self, cache: Cache) -> None:
        kept = CachedAnswer(
            "a",
            "chat",
            (Delta("été \0 𝄞", 0, "stop"), Delta("two", 1, "length", Raw(b'{"content":[1]}'))),
            Usage(7, 2, 1),
            time.time() + 60,
        )

        cache.put(KEY, kept)
        there = await found(cache, KEY)

        assert there is not None
        assert (there.team, there.endpoint, there.usage) == ("a", "chat", Usage(7, 2, 1))
        assert [(d.text, d.index, d.finish_reason) for d in there.deltas] == [
            ("été \0 𝄞", 0, "stop"),
            ("two", 1, "length"),
        ]
        assert there.deltas[0].logprobs is None
        assert bytes(there.deltas[1].logprobs or b"") == b'{"content":[1]}'
        assert abs(there.expires_at - kept.expires_at) < 0.01

    async def test_nothing_is_found_under_another_key(self, cache: Cache) -> None:
        cache.put(KEY, answer())
        assert await found(cache, KEY) is not None

        assert await cache.get(OTHER) is None

    async def test_the_newest_answer_takes_the_place_of_the_older(self, cache: Cache) -> None:
        cache.put(KEY, answer("old"))
        assert await found(cache, KEY) is not None
        cache.put(KEY, answer("new"))

        ends = time.monotonic() + WAIT_S
        there = await found(cache, KEY)
        while there is not None and there.deltas[0].text == "old" and time.monotonic() < ends:
            await asyncio.sleep(0.01)
            there = await cache.get(KEY)

        assert there is not None
        assert there.deltas[0].text == "new"

    async def test_an_expired_answer_is_not_given(self, cache: Cache) -> None:
        cache.put(KEY, answer(ttl_s=-1.0))
        cache.put(OTHER, answer())

        assert await found(cache, OTHER) is not None
        assert await cache.get(KEY) is None

    async def test_dropping_never_fails(self, cache: Cache) -> None:
        cache.put(KEY, answer())

        cache.drop(lambda kept: kept.team == "a")

        cache.put(OTHER, answer())
        assert await found(cache, OTHER) is not None
