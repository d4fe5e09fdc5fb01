"""Copies of answered requests for a candidate that nobody sees: on the real data plane, engines scripted."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway_rig import DEVELOPER, House, endpoint_entry, house, replica_entry, snapshot
from pilothouse.domain.errors import EngineUnavailable, NotSupported
from pilothouse.domain.snapshot import CachePolicy, EndpointEntry, Shadow
from pilothouse.domain.used_tokens import Usage
from pilothouse.gateway.shadow import MOST_AT_ONCE
from watched_engine import Say, WatchedEngine, endless, fails, silent, words

SHADOWED = endpoint_entry("chat", shadow=Shadow("chat", "next"))
STREAM = b',"stream":true'


@asynccontextmanager
async def shadowed(
    old: Say | None = None,
    new: Say | None = None,
    *,
    places: int = 8,
    slots: bool = False,
    endpoints: tuple[EndpointEntry, ...] = (SHADOWED,),
) -> AsyncIterator[tuple[House, WatchedEngine, WatchedEngine]]:
    engines = {
        "chat": WatchedEngine(old or words("Hello", " world")),
        "next": WatchedEngine(new or words("Good", " day", usage=Usage(7, 2, 0)), slots=slots),
    }
    candidate = {"slots": tuple(range(places))} if slots else {"max_inflight": places}
    served = snapshot(
        replica_entry("chat-0", "chat"), replica_entry("next-0", "next", **candidate), endpoints=endpoints
    )
    async with house(lambda entry: engines[entry.deployment], served) as h:
        yield h, engines["chat"], engines["next"]


def dropped(h: House, reason: str) -> float:
    return h.meters.shadows_dropped.labels("chat", "next", reason).value


@pytest.mark.parametrize("more", [b"", STREAM, b',"n":2'])
async def test_a_copy_is_answered_unseen_and_kept_beside_what_it_is_compared_with(more: bytes):
    async with shadowed() as (h, old, new):
        answer = await h.ask(more=more)
        await h.until(lambda: len(h.journal.entries) == 2)

        assert answer.status == 200
        assert b"Hello" in answer.body
        assert b"Good" not in answer.body
        (ours, theirs) = h.journal.entries
        assert (ours.record.deployment, ours.record.shadow_of, ours.shadowed) == ("chat", "", None)
        assert theirs.record.shadow_of == ours.record.id != theirs.record.id
        assert (theirs.record.deployment, theirs.record.replica) == ("next", "next-0")
        assert (theirs.record.team, theirs.record.code) == (ours.record.team, "ok")
        assert (theirs.record.streamed, theirs.record.cost_micro_usd) == (ours.record.streamed, 0)
        assert theirs.record.ttft_ms is not None
        assert theirs.content is not None
        assert ours.content is not None
        assert theirs.content.answers[0] == "Good day"
        assert theirs.content.request == ours.content.request
        assert theirs.shadowed is not None
        assert theirs.shadowed.answers == ours.content.answers
        assert theirs.shadowed.record.id == ours.record.id
        assert new.asked[0][0] == old.asked[0][0]
        await h.until(lambda: h.is_quiet)


async def test_it_counts_in_no_figure_but_its_own():
    async with shadowed() as (h, _, _):
        for _ in range(3):
            await h.ask()
        await h.until(lambda: len(h.journal.entries) == 6)

        h.meters.dump()
        assert h.meters.shadows.labels("chat", "next", "ok").value == 3
        counted = {labels: one.value for labels, one in h.meters.requests.series.items()}
        assert counted == {("chat", "chat", "ok"): 3}
        assert h.state.demand == {"chat": 3}


async def test_a_candidate_that_is_slow_delays_no_caller():
    async with shadowed(new=silent()) as (h, _, new):
        began = time.monotonic()
        for _ in range(20):
            assert (await h.ask()).status == 200
        assert time.monotonic() - began < 2.0

        await h.until(lambda: new.running == MOST_AT_ONCE)
        assert dropped(h, "busy") == 20 - MOST_AT_ONCE
        assert len(h.journal.entries) == 20


async def test_the_answer_is_out_before_the_candidate_is_asked():
    out: list[bool] = []
    async with shadowed() as (h, _, new), h.asking() as raw:

        async def say(request: object) -> AsyncIterator[object]:
            out.append(bool(await raw.answer(timeout_s=1.0)))
            async for chunk in words("Good")(request):  # type: ignore[arg-type]
                yield chunk

        new.say = say  # type: ignore[assignment]
        await h.until(lambda: len(h.journal.entries) == 2)
    assert out == [True]


async def test_a_copy_without_a_free_place_is_dropped_and_never_waits():
    async with shadowed(places=0) as (h, _, new):
        await h.ask()
        await h.until(lambda: dropped(h, "no_place") == 1)

        assert not new.asked
        assert h.state.queued == 0


async def test_a_copy_gives_its_place_to_a_request_that_waits_for_it():
    endpoints = (SHADOWED, endpoint_entry("next"))
    body = b'{"model":"next","messages":[{"role":"user","content":"Hi"}]}'
    async with shadowed(new=silent(), places=1, slots=True, endpoints=endpoints) as (h, _, new):
        await h.ask()
        await h.until(lambda: new.running == 1)
        new.say = words("at once")
        answer = await h.ask(body=body)

        assert b"at once" in answer.body
        assert dropped(h, "gave_way") == 1
        assert not new.collisions
        assert [record.deployment for record in h.records] == ["chat", "next"]
        await h.until(lambda: h.is_quiet)


async def test_callers_who_hang_up_leave_nothing_to_copy():
    async with shadowed(old=endless()) as (h, _, new):
        async with h.asking(more=STREAM) as raw:
            assert b"on and" in await raw.reader.readuntil(b"on and")
        await h.until(lambda: h.codes == ["client_closed"])
        await asyncio.sleep(0.02)

        assert not new.asked
        assert not h.shadows.running


async def test_callers_who_leave_after_the_answer_do_not_end_the_copy():
    async with shadowed(new=words("Good", " day", pause_s=0.05)) as (h, _, _):
        assert (await h.ask()).status == 200
        await h.until(lambda: len(h.journal.entries) == 2)

        assert h.codes == ["ok", "ok"]


async def test_the_end_of_a_worker_ends_copies_without_a_record():
    async with shadowed(new=silent()) as (h, _, new):
        await h.ask()
        await h.until(lambda: new.running == 1)
        await h.shadows.aclose()
        assert new.running == 0
        assert h.is_quiet

        await h.ask()
        await asyncio.sleep(0.02)
        assert len(new.asked) == 1
        assert h.codes == ["ok", "ok"]


@pytest.mark.parametrize(
    ("error", "code"),
    [(EngineUnavailable("gone"), "engine_unavailable"), (NotSupported("no"), "not_supported")],
)
async def test_a_candidate_that_fails_is_on_record_and_its_replica_is_not_blamed(error: Exception, code: str):
    async with shadowed(new=fails(error)) as (h, _, _):
        for _ in range(8):
            assert (await h.ask()).status == 200
        await h.until(lambda: len(h.journal.entries) == 16)

        assert h.codes.count(code) == 8
        assert not h.state.places["next"].sick


async def test_what_the_present_version_fails_at_is_copied_too():
    plain = endpoint_entry("chat", shadow=Shadow("chat", "next"), retries=0)
    async with shadowed(old=fails(EngineUnavailable("gone")), endpoints=(plain,)) as (h, _, _):
        assert (await h.ask()).status == 503
        await h.until(lambda: len(h.journal.entries) == 2)

        shadow = h.journal.entries[1].shadowed
        assert shadow is not None
        assert (shadow.record.code, shadow.is_retried, h.codes[1]) == ("engine_unavailable", False, "ok")


async def test_a_retry_elsewhere_is_the_first_ones_failure():
    spare = endpoint_entry("chat", shadow=Shadow("chat", "next"), fallback=("spare",))
    engines: dict[str, WatchedEngine] = {
        "chat": WatchedEngine(fails(EngineUnavailable("gone"))),
        "next": WatchedEngine(),
        "spare": WatchedEngine(),
    }
    served = snapshot(*(replica_entry(f"{name}-0", name) for name in engines), endpoints=(spare,))
    async with house(lambda entry: engines[entry.deployment], served) as h:
        assert (await h.ask()).status == 200
        await h.until(lambda: len(h.journal.entries) == 2)

        shadow = h.journal.entries[1].shadowed
        assert shadow is not None
        assert (shadow.record.deployment, shadow.is_retried) == ("spare", True)


async def test_embeddings_are_copied_too():
    body = b'{"model":"chat","input":["one"]}'
    endpoint = endpoint_entry("chat", shadow=Shadow("chat", "next"), tasks=("embedding",))
    async with shadowed(endpoints=(endpoint,)) as (h, _, new):
        assert (await h.ask("/v1/embeddings", body)).status == 200
        await h.until(lambda: len(h.journal.entries) == 2)

        assert list(new.embedded[0].inputs) == ["one"]
        assert h.records[1].kind == "embedding"


async def test_answers_from_a_cache_are_not_copied():
    cached = endpoint_entry("chat", shadow=Shadow("chat", "next"), cache=CachePolicy(exact_ttl_s=60.0))
    async with shadowed(endpoints=(cached,)) as (h, _, new):
        for _ in range(3):
            await h.ask(more=b',"temperature":0')
        await h.until(lambda: len(h.journal.entries) == 4)
        await asyncio.sleep(0.02)

        assert [record.cache for record in h.records if not record.shadow_of] == ["miss", "hit", "hit"]
        assert len(new.asked) == 1


async def test_an_answer_of_another_route_is_not_held_against_the_candidate():
    other = endpoint_entry("chat", shadow=Shadow("elsewhere", "next"))
    async with shadowed(endpoints=(other,)) as (h, _, new):
        await h.ask()
        await asyncio.sleep(0.02)

        assert not new.asked


@pytest.mark.parametrize("state", ["full", "no room"])
async def test_a_full_journal_drops_copies_and_refuses_no_answer(state: str):
    async with shadowed(new=words("Good", pause_s=0.02)) as (h, _, new):
        if state == "no room":
            h.keeper.has_room = lambda _: False  # type: ignore[method-assign]
        await h.ask(as_key=DEVELOPER)
        h.journal.is_full = state == "full"
        await h.until(lambda: h.keeper.dropped + dropped(h, "no_room") == 1)

        assert h.codes == ["ok"]
        assert len(new.asked) == (state == "full")
