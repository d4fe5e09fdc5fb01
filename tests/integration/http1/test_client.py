"""The client against servers that keep, cut, stall and lie."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pilothouse.kit.http1.client import Client, Exchange, HttpFailure, request_bytes
from pilothouse.kit.http1.peer import Address, Timeouts
from pilothouse.kit.http1.sweep import Sweeper
from upstream_rig import CHUNKED_HEAD, Listening, Script, Upstream, chunked, upstream, whole

KIB, MIB = 1024, 1024 * 1024
ASK = request_bytes("GET", "/", "a", b"")
PATIENT = Timeouts(first_byte_s=5.0, idle_s=5.0)


class Asking:
    """A client at a scripted server."""

    def __init__(self, client: Client, server: Listening) -> None:
        self.client, self.server = client, server

    async def ask(
        self, timeouts: Timeouts = PATIENT, *, total_s: float = 5.0, whole: bool = False, **more: bool
    ) -> Exchange:
        return await self.client.request(ASK, timeouts, total_s=total_s, whole=whole, **more)

    async def body(self, timeouts: Timeouts = PATIENT, *, total_s: float = 5.0, whole: bool = False) -> bytes:
        exchange = await self.ask(timeouts, total_s=total_s, whole=whole)
        try:
            return await exchange.read_all(64 * MIB)
        finally:
            exchange.release()


@asynccontextmanager
async def asking(script: Script, *, max_whole_bytes: int = 64 * MIB) -> AsyncIterator[Asking]:
    sweeper = Sweeper()
    sweeper.start()
    async with upstream(script) as server:
        address = Address(host="127.0.0.1", port=server.port)
        client = Client(address, sweeper, max_whole_bytes=max_whole_bytes)
        try:
            yield Asking(client, server)
        finally:
            client.close()
            await asyncio.sleep(0.01)
            sweeper.stop()
    assert not sweeper.members, "a connection was forgotten"


def keeps(*answers: bytes) -> Script:
    """Answers every request on a connection with the next of these, then waits."""

    async def script(talk: Upstream, number: int) -> None:
        for answer in answers:
            await talk.request()
            await talk.say(answer)
        await talk.hears_a_hang_up()

    return script


def once(*pieces: bytes, pause_s: float = 0.0) -> Script:
    """Answers the first request of a connection, and closes."""

    async def script(talk: Upstream, number: int) -> None:
        await talk.request()
        await talk.say(*pieces, pause_s=pause_s)

    return script


# connections


async def test_a_connection_is_kept_and_used_again():
    async with asking(keeps(*[whole(b"ok")] * 5)) as a:
        for _ in range(5):
            assert await a.body() == b"ok"

        assert a.server.connections == 1


@pytest.mark.parametrize("whole_", [True, False])
@pytest.mark.parametrize(
    "answer",
    [
        whole(b"", status=b"204 No Content"),
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
        CHUNKED_HEAD + chunked(b"a", b"b"),
        CHUNKED_HEAD + chunked(b"a", end=False) + b"0\r\nx-sum: 1\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + whole(b"ok"),
    ],
    ids=["204", "304", "chunked", "trailer", "1xx"],
)
async def test_a_connection_is_kept_after_any_clear_answer(answer: bytes, whole_: bool):
    async with asking(keeps(answer, whole(b"next"))) as a:
        exchange = await a.ask(whole=whole_)
        assert exchange.status >= 200
        assert not {b"link", b"x-sum"} & exchange.headers.keys()
        await exchange.read_all(MIB)
        exchange.release()

        assert await a.body() == b"next"
        assert a.server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        whole(b"ok", headers=b"connection: close\r\n"),
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nok",
        whole(b"ok") + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
        whole(b"ok") + b"garbage",
    ],
    ids=["close", "HTTP/1.0", "until it closes", "two answers", "garbage after it"],
)
async def test_a_connection_is_not_kept_where_its_next_answer_could_be_anothers(answer: bytes):
    async with asking(once(answer)) as a:
        for _ in range(2):
            exchange = await a.ask()
            assert exchange.headers.get(b"content-length", b"2") == b"2"
            assert await exchange.read_all(MIB) == b"ok"
            exchange.release()
            await asyncio.sleep(0.01)

        assert a.server.connections == 2


async def test_what_a_kept_connection_says_unasked_is_never_an_answer():
    async def script(talk: Upstream, number: int) -> None:
        await talk.request()
        await talk.say(whole(b"asked"))
        await asyncio.sleep(0.02)
        await talk.say(whole(b"unasked"))
        await talk.request()
        await talk.say(whole(b"asked again"))

    async with asking(script) as a:
        assert await a.body() == b"asked"
        await asyncio.sleep(0.05)

        assert await a.body() == b"asked"
        assert a.server.connections == 2


async def test_a_kept_connection_that_was_closed_is_replaced():
    async with asking(once(whole(b"ok"))) as a:
        assert await a.body() == b"ok"
        assert await a.body() == b"ok"

        assert a.server.connections == 2


async def test_a_kept_connection_that_closes_at_the_next_request_is_replaced_once():
    async def script(talk: Upstream, number: int) -> None:
        await talk.request()
        if number == 0:
            await talk.say(whole(b"first"))
            await talk.request()
            return
        await talk.say(whole(b"replaced"))

    async with asking(script) as a:
        assert await a.body() == b"first"
        assert await a.body() == b"replaced"
        assert a.server.connections == 2


async def test_a_new_connection_that_closes_at_once_is_not_tried_again():
    async def script(talk: Upstream, number: int) -> None:
        await talk.request()

    async with asking(script) as a:
        with pytest.raises(HttpFailure) as caught:
            await a.ask()

        assert caught.value.stage == "head"
        assert a.server.connections == 1


async def test_nothing_is_sent_twice_once_a_byte_of_an_answer_came():
    async def script(talk: Upstream, number: int) -> None:
        await talk.request()
        await talk.say(whole(b"first"))
        await talk.request()
        await talk.say(b"HTTP/1.1 2")

    async with asking(script) as a:
        await a.body()
        with pytest.raises(HttpFailure) as caught:
            await a.ask()

        assert caught.value.stage == "body"
        assert a.server.connections == 1


async def test_what_must_not_be_done_twice_goes_over_a_new_connection():
    async with asking(keeps(whole(b"ok"), whole(b"ok"))) as a:
        await a.body()
        exchange = await a.ask(fresh=True)
        exchange.release()

        assert a.server.connections == 2


async def test_an_answer_given_up_halfway_closes_the_connection():
    heard = asyncio.Event()

    async def script(talk: Upstream, number: int) -> None:
        await talk.request()
        await talk.say(CHUNKED_HEAD + chunked(b"some", end=False))
        await talk.hears_a_hang_up()
        heard.set()

    async with asking(script) as a:
        exchange = await a.ask()
        assert await exchange.read() == b"some"
        exchange.release()

        await asyncio.wait_for(heard.wait(), 1.0)


@pytest.mark.parametrize("comes", [True, False], ids=["comes", "never comes"])
async def test_an_answer_that_is_left_keeps_its_connection_if_its_end_comes(comes: bool):
    async def script(talk: Upstream, number: int) -> None:
        await talk.request()
        await talk.say(CHUNKED_HEAD + chunked(b"all", end=False), pause_s=0.05)
        if comes:
            await talk.say(chunked(b"no news") + b"")
            await talk.request()
            await talk.say(whole(b"next"))
        await talk.hears_a_hang_up()

    async with asking(script) as a:
        exchange = await a.ask()
        assert await exchange.read() == b"all"
        exchange.finish()
        exchange.release()
        await asyncio.sleep(0.1 if comes else 1.5)

        assert len(a.server.open) == comes
        if comes:
            assert await a.body() == b"next"
            assert a.server.connections == 1


async def test_a_request_that_is_cancelled_closes_the_connection():
    heard = asyncio.Event()

    async def script(talk: Upstream, number: int) -> None:
        await talk.request()
        await talk.hears_a_hang_up()
        heard.set()

    async with asking(script) as a:
        task = asyncio.create_task(a.ask())
        await asyncio.sleep(0.02)
        task.cancel()

        await asyncio.wait_for(heard.wait(), 1.0)


async def test_nobody_there_is_a_failure_to_connect():
    sweeper = Sweeper()
    async with upstream(once()) as server:
        port = server.port
    client = Client(Address(host="127.0.0.1", port=port), sweeper)

    with pytest.raises(HttpFailure) as caught:
        await client.request(ASK, PATIENT, total_s=1.0)

    assert caught.value.stage == "connect"


# waits


async def stalls(talk: Upstream, number: int) -> None:
    await talk.request()
    await talk.hears_a_hang_up()


@pytest.mark.parametrize("whole_", [True, False])
async def test_an_answer_that_does_not_begin_in_time_fails_before_its_head(whole_: bool):
    async with asking(stalls) as a:
        began = time.monotonic()
        with pytest.raises(HttpFailure) as caught:
            await a.ask(Timeouts(first_byte_s=0.3), whole=whole_)

        assert (caught.value.stage, caught.value.timed_out) == ("head", True)
        assert 0.25 < time.monotonic() - began < 1.0
        assert a.server.connections == 1, "who was slow once is not asked twice"


@pytest.mark.parametrize("whole_", [True, False])
async def test_an_answer_that_stalls_fails_in_its_body(whole_: bool):
    async def script(talk: Upstream, number: int) -> None:
        await talk.request()
        await talk.say(CHUNKED_HEAD + chunked(b"some", end=False))
        await talk.hears_a_hang_up()

    async with asking(script) as a:
        began = time.monotonic()
        with pytest.raises(HttpFailure) as caught:
            await a.body(Timeouts(idle_s=0.3), whole=whole_)

        assert (caught.value.stage, caught.value.timed_out) == ("body", True)
        assert 0.25 < time.monotonic() - began < 1.0


async def test_an_answer_that_trickles_ends_with_its_whole_time():
    async def script(talk: Upstream, number: int) -> None:
        await talk.request()
        await talk.say(CHUNKED_HEAD)
        while True:
            await talk.say(chunked(b"x", end=False), pause_s=0.05)

    async with asking(script) as a:
        began = time.monotonic()
        with pytest.raises(HttpFailure) as caught:
            await a.body(total_s=0.5)

        assert caught.value.timed_out
        assert 0.45 < time.monotonic() - began < 1.2


async def test_an_answer_that_is_there_is_not_lost_to_a_slow_consumer():
    """It was complete in time; how long it lies here is nobody's fault."""
    async with asking(keeps(whole(b"x" * 100 * KIB), whole(b"next"))) as a:
        exchange = await a.ask(Timeouts(idle_s=0.2), total_s=0.3)
        await asyncio.sleep(0.8)

        assert await exchange.read_all(MIB) == b"x" * 100 * KIB
        exchange.release()
        assert await a.body() == b"next"


async def test_a_failure_while_reading_was_paused_is_told_as_what_it_is():
    async def script(talk: Upstream, number: int) -> None:
        await talk.request()
        await talk.say(CHUNKED_HEAD)
        while True:
            await talk.say(chunked(b"x" * 64 * KIB, end=False))

    async with asking(script) as a:
        exchange = await a.ask(total_s=0.3)
        await asyncio.sleep(0.8)
        with pytest.raises(HttpFailure) as caught:
            await exchange.read_all(64 * MIB)
        exchange.release()

        assert caught.value.timed_out


# cuts and nonsense


@pytest.mark.parametrize("whole_", [True, False])
@pytest.mark.parametrize(
    ("pieces", "stage"),
    [
        ([b"HTTP/1.1 200 OK\r\ncontent-le"], "body"),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"], "body"),
        ([CHUNKED_HEAD + b"a\r\nhalf"], "body"),
        ([CHUNKED_HEAD + chunked(b"half", end=False)], "body"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n"], "body"),
        ([b"SSH-2.0-OpenSSH_9.2\r\n"], "response"),
        ([b"HTTP/1.1 200 OK\nbare: lf\n\n"], "response"),
        ([b"HTTP/1.1 999999 OK\r\n\r\n"], "response"),
        ([b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"], "response"),
        (
            [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"],
            "response",
        ),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc"], "response"),
        ([CHUNKED_HEAD + b"zz\r\nabc"], "response"),
        ([b"HTTP/1.1 200 OK\r\nx: " + b"x" * MIB], "response"),
        ([b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 50 * KIB], "response"),
        ([CHUNKED_HEAD + b"0\r\nx: " + b"x" * MIB], "response"),
    ],
    ids=[
        *("cut in the head", "cut in the body", "half a chunk", "no last chunk", "1xx and no more"),
        *("another protocol", "bare LF", "a bad status", "a switch of protocols", "both lengths"),
        *("two lengths", "a bad chunk", "a huge header", "many headers", "a huge trailer"),
    ],
)
async def test_an_answer_that_is_cut_or_nonsense_fails(pieces: list[bytes], stage: str, whole_: bool):
    async with asking(once(*pieces)) as a:
        with pytest.raises(HttpFailure) as caught:
            await a.body(whole=whole_)

        assert caught.value.stage == stage
        assert not caught.value.timed_out
        assert a.server.connections == 1


async def test_an_answer_without_a_length_ends_with_its_connection():
    async with asking(once(b"HTTP/1.1 200 OK\r\n\r\n", b"all ", b"of it", pause_s=0.01)) as a:
        assert await a.body() == b"all of it"


async def test_a_reset_is_no_end_even_where_there_is_no_length():
    async def script(talk: Upstream, number: int) -> None:
        await talk.request()
        await talk.say(b"HTTP/1.1 200 OK\r\n\r\nhalf of it", pause_s=0.05)
        talk.reset()

    async with asking(script) as a:
        with pytest.raises(HttpFailure) as caught:
            await a.body()

        assert caught.value.stage == "body"


async def test_what_came_before_a_cut_can_be_read():
    async with asking(once(CHUNKED_HEAD + chunked(b"some", end=False))) as a:
        exchange = await a.ask()
        await asyncio.sleep(0.05)

        assert await exchange.read() == b"some"
        with pytest.raises(HttpFailure):
            await exchange.read()
        exchange.release()


@pytest.mark.parametrize("whole_", [True, False])
async def test_an_answer_that_is_too_large_fails(whole_: bool):
    async with asking(once(whole(b"x" * 3 * MIB)), max_whole_bytes=MIB) as a:
        exchange = None
        with pytest.raises(HttpFailure) as caught:  # noqa: PT012 - it may fail at either step
            exchange = await a.ask(whole=whole_)
            await exchange.read_all(MIB)
        if exchange is not None:
            exchange.release()

        assert caught.value.stage == "response"


async def test_a_slow_consumer_holds_the_server():
    sent: list[int] = []

    async def script(talk: Upstream, number: int) -> None:
        await talk.request()
        await talk.say(CHUNKED_HEAD)
        for _ in range(1000):
            await talk.say(chunked(b"x" * 64 * KIB, end=False))
            sent.append(64 * KIB)
        await talk.say(b"0\r\n\r\n")

    async with asking(script) as a:
        exchange = await a.ask(total_s=20)
        await asyncio.sleep(0.3)
        held = sum(sent)
        assert exchange._buffered < MIB
        assert held < 16 * MIB
        got = 0
        while data := await exchange.read():
            got += len(data)
        exchange.release()

        assert got == 1000 * 64 * KIB


async def test_many_at_once_use_as_many_connections_and_keep_few():
    async def script(talk: Upstream, number: int) -> None:
        while True:
            await talk.request()
            await talk.say(whole(b"%d" % number), pause_s=0.01)

    async with asking(script) as a:
        found = await asyncio.gather(*(a.body() for _ in range(100)))

        assert len(set(found)) == 100
        assert len(a.client._idle) == 64


async def test_deadlines_hold_for_what_runs_when_its_owner_is_closed():
    """An engine that is retired may be the one that hangs: its last request must still end."""
    async with upstream(stalls) as server:
        sweeper = Sweeper()
        sweeper.start()
        client = Client(Address(host="127.0.0.1", port=server.port), sweeper)
        asked = asyncio.create_task(client.request(ASK, Timeouts(first_byte_s=0.4), total_s=5.0))
        await asyncio.sleep(0.05)
        client.close()
        sweeper.stop_when_empty()

        with pytest.raises(HttpFailure):
            await asyncio.wait_for(asked, 2.0)
        await asyncio.sleep(0.6)
        assert sweeper._timer is None, "with nobody left it stops by itself"


async def test_a_connection_to_a_name_is_not_kept_for_ever():
    """Requests that follow each other without pause would hold it, and the name may mean another machine."""
    where = "127.0.0.1"

    async def pin() -> str:
        return where

    sweeper = Sweeper()
    script = keeps(*[whole(b"x")] * 100_000)
    async with upstream(script) as first, upstream(script, host="127.0.0.2", port=first.port) as second:
        address = Address(host="engine.example", port=first.port)
        client = Client(address, sweeper, pin=pin)
        client.max_age_s = 0.2
        door = Asking(client, first)
        assert await door.body() == b"x"
        where = "127.0.0.2"
        async with asyncio.timeout(10.0):
            while not second.connections:
                assert await door.body() == b"x"

        assert first.connections == 1
        client.close()
        await asyncio.sleep(0.01)
        sweeper.stop()
