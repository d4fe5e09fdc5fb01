"""Identical requests at the same time share one generation, and nobody is slowed or cut by another."""

import asyncio
import json

import pytest

from gateway_rig import OTHER_TEAM, endpoint_entry, house, replica_entry, snapshot
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import ContextLengthExceeded, UpstreamError
from pilothouse.domain.snapshot import CachePolicy
from pilothouse.domain.used_tokens import Usage
from pilothouse.kit.http1.message import Limits
from watched_engine import WatchedEngine

COLD = b',"temperature":0'
STREAM = b',"temperature":0,"stream":true'


class Puppet:
    """An engine's voice in the test's hand: it says what is put into `lines`."""

    def __init__(self):
        self.lines = asyncio.Queue()
        self.begun = 0

    async def __call__(self, request):
        self.begun += 1
        while (line := await self.lines.get()) is not None:
            if isinstance(line, Exception):
                raise line
            yield Chunk((Delta(line),))
        yield Chunk((Delta("", 0, "stop"),), Usage(7, 3))

    def say(self, *lines):
        for line in lines:
            self.lines.put_nowait(line)


def caching_house(engine, *, timeout_s=30.0, **more):
    endpoint = endpoint_entry(cache=CachePolicy(exact_ttl_s=60.0), timeout_s=timeout_s, retries=0)
    return house(engine, snapshot(replica_entry(model_digest="sha256:1"), endpoints=(endpoint,)), **more)


def puppet_house(**more):
    puppet = Puppet()
    engine = WatchedEngine(puppet)
    return puppet, engine, caching_house(engine, **more)


def followers(h):
    return sum(f.followers for f in h.recall._flights.values())


async def until_text(raw, text):
    got = b""
    async with asyncio.timeout(3.0):
        while text not in got:
            data = await raw.reader.read(65536)
            assert data, f"closed before {text!r}: {got[-200:]!r}"
            got += data
    return got


def said(answer):
    if answer.headers["content-type"].startswith("application/json"):
        return json.loads(answer.body)["choices"][0]["message"]["content"]
    events = [json.loads(x[6:]) for x in answer.body.decode().split("\n\n") if x.startswith("data: {")]
    return "".join(c["delta"].get("content") or "" for e in events for c in e["choices"])


async def test_fifty_identical_requests_are_one_generation():
    puppet, engine, running = puppet_house()
    async with running as h:
        asked = [asyncio.create_task(h.ask(more=STREAM if i % 2 else COLD)) for i in range(50)]
        await h.until(lambda: followers(h) == 49)
        puppet.say("one ", "two", None)
        answers = await asyncio.gather(*asked)
        found = sorted(record.cache for record in h.records)
        quiet = h.is_quiet

    assert len(engine.asked) == 1
    assert [said(a) for a in answers] == ["one two"] * 50
    assert found == ["hit"] * 49 + ["miss"]
    assert sorted(a.headers["x-pilothouse-cache"] for a in answers) == found
    assert len({json.loads(a.body)["id"] for a in answers[::2]}) == 25
    assert quiet


async def test_other_teams_and_other_questions_are_not_shared():
    puppet, engine, running = puppet_house()
    async with running as h:
        asked = [
            asyncio.create_task(h.ask(more=COLD)),
            asyncio.create_task(h.ask(more=COLD, as_key=OTHER_TEAM)),
            asyncio.create_task(h.ask(more=COLD + b',"top_p":0.5')),
            asyncio.create_task(h.ask(more=COLD, headers=b"x-pilothouse-cache: no-store\r\n")),
        ]
        await h.until(lambda: engine.running == 4)
        puppet.say(None, None, None, None)
        await asyncio.gather(*asked)

    assert len(engine.asked) == 4


async def test_who_comes_later_gets_what_was_said_and_then_goes_on_as_it_comes():
    puppet, engine, running = puppet_house()
    async with running as h, h.asking(more=STREAM) as leader:
        puppet.say("one ")
        await until_text(leader, b"one ")
        async with h.asking(more=STREAM) as follower:
            await until_text(follower, b"one ")
            puppet.say("two")
            await until_text(follower, b"two")
            await until_text(leader, b"two")
            puppet.say(None)
            await until_text(follower, b"[DONE]")

    assert len(engine.asked) == 1


async def test_a_leader_who_hangs_up_leaves_the_generation_to_those_who_follow():
    puppet, engine, running = puppet_house()
    async with running as h:
        async with h.asking(more=STREAM) as leader:
            puppet.say("one ")
            await until_text(leader, b"one ")
            follower = asyncio.create_task(h.ask(more=COLD))
            await h.until(lambda: followers(h) == 1)
            leader.writer.transport.abort()
        await h.until(lambda: len(h.server._busy()) == 1)
        await asyncio.sleep(0.02)
        assert engine.running == 1
        puppet.say("two", None)
        answer = await follower
        await h.until(lambda: len(h.records) == 2)
        later = await h.ask(more=COLD)
        records = {record.cache: record for record in h.records[:2]}

    assert said(answer) == said(later) == "one two"
    assert (records["miss"].code, records["hit"].code) == ("client_closed", "ok")
    assert records["miss"].output_tokens == 3
    assert len(engine.asked) == 1


async def test_a_leader_who_hangs_up_alone_is_cancelled():
    puppet, engine, running = puppet_house()
    async with running as h:
        async with h.asking(more=STREAM) as leader:
            puppet.say("one ")
            await until_text(leader, b"one ")
        await h.until(lambda: engine.running == 0)
        await h.until(lambda: h.is_quiet)
        puppet.say("again", None)
        answer = await h.ask(more=COLD)

    assert said(answer) == "again"
    assert h.codes[0] == "client_closed"


async def test_the_last_one_who_leaves_ends_the_generation():
    puppet, engine, running = puppet_house()
    async with running as h:
        async with h.asking(more=STREAM) as leader:
            puppet.say("one ")
            await until_text(leader, b"one ")
            async with h.asking(more=STREAM) as one, h.asking(more=COLD) as other:
                await until_text(one, b"one ")
                await h.until(lambda: followers(h) == 2)
                leader.writer.transport.abort()
                await h.until(lambda: len(h.server._busy()) == 2)
                one.writer.transport.abort()
                await h.until(lambda: followers(h) == 1)
                assert engine.running == 1
                other.writer.transport.abort()
                await h.until(lambda: engine.running == 0)
        await h.until(lambda: len(h.records) == 3)
        assert h.is_quiet
        assert h.recall._flights == {}

    assert h.codes == ["client_closed"] * 3


async def test_when_the_leader_fails_one_of_the_others_leads():
    puppet, engine, running = puppet_house()
    async with running as h:
        asked = [asyncio.create_task(h.ask(more=COLD)) for _ in range(20)]
        await h.until(lambda: followers(h) == 19)
        puppet.say(UpstreamError("cut"))
        await h.until(lambda: puppet.begun == 2 and followers(h) == 18)
        puppet.say("fine", None)
        answers = await asyncio.gather(*asked)

    assert sorted(a.status for a in answers) == [200] * 19 + [502]
    assert len(engine.asked) == 2


async def test_when_it_fails_again_everybody_hears_so_and_no_herd_comes():
    puppet, engine, running = puppet_house()
    async with running as h:
        asked = [asyncio.create_task(h.ask(more=COLD)) for _ in range(20)]
        await h.until(lambda: followers(h) == 19)
        puppet.say(UpstreamError("cut"))
        await h.until(lambda: puppet.begun == 2 and followers(h) == 18)
        puppet.say(UpstreamError("cut again"))
        answers = await asyncio.gather(*asked)

    assert [a.status for a in answers] == [502] * 20
    assert len(engine.asked) == 2


async def test_an_error_that_would_come_again_is_told_to_all_at_once():
    puppet, engine, running = puppet_house()
    async with running as h:
        asked = [asyncio.create_task(h.ask(more=COLD)) for _ in range(5)]
        await h.until(lambda: followers(h) == 4)
        puppet.say(ContextLengthExceeded("too long"))
        answers = await asyncio.gather(*asked)

    assert [a.status for a in answers] == [400] * 5
    assert len(engine.asked) == 1


async def test_a_stream_that_began_ends_in_the_leaders_error():
    puppet, engine, running = puppet_house()
    async with running as h, h.asking(more=STREAM) as leader, h.asking(more=STREAM) as follower:
        puppet.say("one ")
        await until_text(leader, b"one ")
        await until_text(follower, b"one ")
        puppet.say(UpstreamError("cut"))
        ends = [await until_text(raw, b'"error"') for raw in (leader, follower)]

    assert all(b"[DONE]" not in end for end in ends)
    assert len(engine.asked) == 1


async def test_a_follower_waits_no_longer_than_its_own_time():
    puppet, engine, running = puppet_house(timeout_s=0.3)
    async with running as h:
        leader = asyncio.create_task(h.ask(more=COLD))
        await h.until(lambda: engine.running == 1)
        follower = await h.ask(more=COLD)
        puppet.say(None)
        await leader

    assert follower.status == 504


@pytest.mark.parametrize("who_is_slow", ["leader", "follower"])
async def test_a_slow_reader_slows_nobody_else(who_is_slow):
    """Both read one generation; one stops reading, the other gets all of it."""
    puppet, engine, running = puppet_house(limits=Limits(write_buffer_bytes=64 * 1024))
    text = "x" * 100_000
    async with running as h, h.asking(more=STREAM) as leader:
        puppet.say("one ")
        await until_text(leader, b"one ")
        async with h.asking(more=STREAM) as follower:
            await until_text(follower, b"one ")
            slow, quick = (leader, follower) if who_is_slow == "leader" else (follower, leader)
            for _ in range(100):
                puppet.say(text)
            puppet.say("the end", None)
            await until_text(quick, b"[DONE]")
            got = b"".join([await until_text(slow, b"[DONE]")])

    assert b"the end" in got
    assert len(engine.asked) == 1


async def test_a_leader_that_waits_for_its_slow_client_goes_on_when_somebody_follows():
    puppet, engine, running = puppet_house(limits=Limits(write_buffer_bytes=64 * 1024))
    async with running as h, h.asking(more=STREAM) as leader:
        for _ in range(100):
            puppet.say("x" * 100_000)
        puppet.say("the end", None)
        await asyncio.sleep(0.1)
        assert engine.running == 1
        async with h.asking(more=STREAM) as follower:
            await until_text(follower, b"[DONE]")
        await until_text(leader, b"[DONE]")

    assert len(engine.asked) == 1


async def test_when_the_server_ends_nobody_is_left_behind():
    puppet, engine, running = puppet_house()
    async with running as h:
        asked = [asyncio.create_task(h.ask(more=STREAM)) for _ in range(3)]
        await h.until(lambda: followers(h) == 2)
        puppet.say("one ")
        await asyncio.sleep(0.02)
        await h.server.drain(0.05)
        await h.until(lambda: engine.running == 0)
        await h.until(lambda: len(h.records) == 3)
        await asyncio.gather(*asked, return_exceptions=True)

    assert h.codes == ["client_closed"] * 3
