"""Room is counted in bytes, the least recently used goes first, and no entry takes most of it."""

import sys
from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from pilothouse.adapters.caches.memory import MemoryCache
from pilothouse.domain.cached_answer import CachedAnswer
from pilothouse.domain.caching import size_bytes, steps_of
from pilothouse.domain.chat import Usage
from pilothouse.domain.chunk import Delta
from pilothouse.domain.generate_request import GenerateRequest as Ask
from pilothouse.wire.openai import answers

CAP = 200_000


def answer(text: str, *, team: str = "a", expires_at: float = 100.0) -> CachedAnswer:
    return CachedAnswer(team, "chat", (Delta(text, 0, "stop"),), Usage(1, 1), expires_at)


async def test_the_least_recently_used_goes_first():
    size = len(b"new") + size_bytes(answer("x" * 1000))
    cache = MemoryCache(size * 20, now=lambda: 0.0)
    for i in range(20):
        cache.put(b"%03d" % i, answer("x" * 1000))

    await cache.get(b"000")
    cache.put(b"new", answer("x" * 1000))

    assert await cache.get(b"000") is not None
    assert await cache.get(b"001") is None


async def test_an_answer_above_its_share_is_not_kept_and_pushes_nothing_out():
    cache = MemoryCache(CAP, now=lambda: 0.0)
    cache.put(b"small", answer("x"))

    cache.put(b"large", answer("x" * (CAP // 16)))

    assert await cache.get(b"large") is None
    assert await cache.get(b"small") is not None


async def test_an_answer_is_forgotten_once_it_expired():
    now = [0.0]
    cache = MemoryCache(CAP, now=lambda: now[0])
    cache.put(b"k", answer("x", expires_at=10.0))

    now[0] = 10.0

    assert await cache.get(b"k") is None
    assert (len(cache), cache.size_bytes) == (0, 0)


async def test_dropping_forgets_what_matches_and_nothing_else():
    cache = MemoryCache(CAP, now=lambda: 0.0)
    cache.put(b"a", answer("x", team="a"))
    cache.put(b"b", answer("x", team="b"))

    cache.drop(lambda kept: kept.team == "a")

    assert await cache.get(b"a") is None
    assert await cache.get(b"b") is not None


async def test_a_cache_without_room_keeps_nothing():
    cache = MemoryCache(0)

    cache.put(b"k", answer("x"))

    assert await cache.get(b"k") is None


def taken_by(entries):
    return sum(len(key) + size_bytes(kept) for key, kept in entries.items())


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "get"]), st.integers(0, 30), st.text(max_size=300), st.integers(1, 20)
        ),
        max_size=60,
    )
)
def test_it_behaves_as_a_list_of_the_last_used_that_never_exceeds_its_room(steps):
    """Against a model that is a plain ordered dict."""
    cap = 60_000
    cache, model = MemoryCache(cap, now=lambda: 0.0), OrderedDict()
    for action, number, text, repeat in steps:
        key = b"%d" % number
        if action == "put":
            entry = answer(text * repeat)
            cache.put(key, entry)
            if (len(key) + size_bytes(entry)) * 16 <= cap:
                model.pop(key, None)
                model[key] = entry
                while taken_by(model) > cap:
                    model.popitem(last=False)
        else:
            got = _run(cache.get(key))
            assert got is model.get(key)
            if got is not None:
                model.move_to_end(key)
        assert cache.size_bytes == taken_by(model) <= cap
        assert len(cache) == len(model)


@given(st.lists(st.text(max_size=4000), min_size=1, max_size=4), st.booleans())
def test_the_counted_size_covers_what_is_really_taken(texts, with_logprobs):
    raw = Raw(b'{"content":[' + b"1," * 500 + b"1]}") if with_logprobs else None
    entry = CachedAnswer(
        "a", "chat", tuple(Delta(t, i, "stop", raw) for i, t in enumerate(texts)), Usage(1, 1), 1.0
    )
    ask = Ask("chat", "chat", Raw(b"[]"), 2).changed(choices=len(texts))
    entry.whole = answers.rest_of_whole(
        answers.write_whole(ask, entry.deltas, entry.usage, answer_id="x", created=1)
    )
    entry.events = answers.StreamWriter(ask, answer_id="x", created=1).bare(steps_of(entry.deltas))

    taken = sum(
        map(
            sys.getsizeof,
            [
                entry,
                entry.whole,
                entry.events,
                entry.usage,
                *[part for d in entry.deltas for part in (d, d.text)],
            ],
        )
    ) + sum(len(d.logprobs) for d in entry.deltas if d.logprobs is not None)

    assert taken <= size_bytes(entry)


def _run(coroutine):
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("the memory made somebody wait")
