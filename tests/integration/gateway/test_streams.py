"""Streams: at once, at the reader's pace, never a false end, and kept before the last byte."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest

from gateway_rig import house, replica_entry, snapshot
from http1_rig import Raw, answers
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import DeadlineExceeded, UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.used_tokens import Usage
from pilothouse.kit.http1.message import Limits
from watched_engine import WatchedEngine, endless, fails, silent, words

STREAM = b',"stream":true'
KIB, MIB = 1024, 1024 * 1024


def events(body: bytes) -> list[str]:
    """The data of each event; comments are left out."""
    return [block[6:] for block in body.decode().split("\n\n") if block.startswith("data: ")]


def texts(body: bytes) -> str:
    said = [json.loads(event) for event in events(body) if event.startswith("{") and "choices" in event]
    return "".join(choice["delta"].get("content") or "" for event in said for choice in event["choices"])


async def until_text(raw: Raw, text: bytes, *, timeout_s: float = 2.0) -> float:
    """Read until that text; how long it took."""
    began = time.perf_counter()
    got = b""
    async with asyncio.timeout(timeout_s):
        while text not in got:
            data = await raw.reader.read(65536)
            assert data, f"closed before {text!r}: {got!r}"
            got += data
    return time.perf_counter() - began


async def test_a_stream_has_the_published_shape():
    async with house() as h:
        answer = await h.ask(more=b',"stream":true,"stream_options":{"include_usage":true}')
        (record,) = h.records

    *said, done = events(answer.body)
    parsed = [json.loads(event) for event in said]
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert done == "[DONE]"
    assert parsed[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert texts(answer.body) == "Hello world"
    assert parsed[-2]["choices"][0]["finish_reason"] == "stop"
    assert parsed[-1]["choices"] == []
    assert parsed[-1]["usage"]["completion_tokens"] == 2
    assert len({event["id"] for event in parsed}) == 1
    assert (record.code, record.streamed, record.output_tokens) == ("ok", True, 2)
    assert record.ttft_ms is not None
    assert record.ttft_ms <= record.duration_ms


async def test_each_word_is_there_as_soon_as_the_engine_says_it():
    let_go: asyncio.Queue[str] = asyncio.Queue()

    async def say(request: GenerateRequest) -> AsyncIterator[Chunk]:
        while (word := await let_go.get()) != "end":
            yield Chunk((Delta(word),))
        yield Chunk((Delta("", 0, "stop"),), Usage(1, 1))

    async with house(WatchedEngine(say)) as h, h.asking(more=STREAM) as raw:
        delays = []
        for word in ("one", "two", "three", "four", "five"):
            let_go.put_nowait(word)
            delays.append(await until_text(raw, word.encode()))
            await asyncio.sleep(0.02)
        let_go.put_nowait("end")
        await until_text(raw, b"[DONE]")

    assert sorted(delays)[2] < 0.03, f"something holds words back: {delays}"


async def test_a_silent_stream_gets_comments_until_it_goes_on():
    async def say(request: GenerateRequest) -> AsyncIterator[Chunk]:
        yield Chunk((Delta("one"),))
        await asyncio.sleep(1.0)
        yield Chunk((Delta("two", 0, "stop"),), Usage(1, 2))

    async with house(WatchedEngine(say), stream_keepalive_s=0.2) as h:
        answer = await h.ask(more=STREAM)

    assert answer.body.count(b": keep-alive\n\n") >= 2
    assert texts(answer.body) == "onetwo"


async def test_before_the_first_word_nothing_is_sent_so_that_an_error_can_have_its_status():
    async def say(request: GenerateRequest) -> AsyncIterator[Chunk]:
        await asyncio.sleep(0.7)
        raise DeadlineExceeded("too late")
        yield Chunk()

    async with house(WatchedEngine(say), stream_keepalive_s=0.1) as h:
        answer = await h.ask(more=STREAM)

    assert answer.status == 504


@pytest.mark.parametrize("n", [1, 2])
async def test_a_stream_that_is_cut_ends_in_an_error_and_never_as_if_whole(n: int):
    engine = WatchedEngine(fails(UpstreamError("the engine hung up"), after=["half ", "an "]), slots=n > 1)
    served = snapshot(replica_entry(slots=(0,) if n > 1 else ()))

    async with house(engine, served) as h, h.asking(more=STREAM + b',"n":%d' % n) as raw:
        answer = await raw.answer()
        await raw.send(h.request())
        after = await raw.answer()
        cut = h.meters.cut.labels("chat", "chat").value
        first = h.records[0]

    assert answer.status == 200
    assert b"[DONE]" not in answer.body
    assert json.loads(events(answer.body)[-1])["error"]["code"] == "upstream_error"
    assert texts(answer.body) == "half an "
    assert after.status == 502, "the connection is whole, and goes on"
    assert first.code == "upstream_error"
    assert first.output_tokens == 2
    assert cut == 1


async def test_what_was_said_before_the_cut_is_on_record():
    engine = WatchedEngine(fails(UpstreamError("cut"), after=["half ", "an answer"]))

    async with house(engine) as h:
        await h.ask(more=STREAM)
        await h.ask()

        assert [content.answers for content in h.contents] == [["half an answer"]] * 2


# the record and the last byte


@pytest.mark.parametrize("more", [STREAM, b""], ids=["streamed", "whole"])
async def test_the_record_is_kept_before_the_last_byte_goes_out(more: bytes):
    async with house() as h, h.asking(more=more) as raw:
        seen: list[bytes] = []
        (connection,) = [m for m in h.server.sweeper.members if hasattr(m, "write")]
        write = connection.write

        def noted(data: bytes) -> None:
            seen.append(b"written: " + data)
            write(data)

        connection.write = noted
        h.journal.on_append = lambda entry: seen.append(b"kept")
        answer = await raw.answer()

    assert answer.status == 200
    kept = seen.index(b"kept")
    assert not any(b"[DONE]" in data or b"content-length" in data for data in seen[:kept])
    assert len(seen) == kept + 2, "only the end comes after the record"


# hang-ups


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize(
    ("more", "say"),
    [
        (STREAM, endless()),
        (STREAM, silent()),
        (b"", endless()),
        (b"", silent()),
        (STREAM + b',"n":4', endless()),
        (b',"n":4', silent()),
    ],
    ids=["in a stream", "before it", "in a whole answer", "before that", "in several", "before several"],
)
async def test_a_hang_up_stops_the_engine_and_frees_the_place(more: bytes, say, how: str):
    engine = WatchedEngine(say, slots=True)

    async with house(engine, snapshot(replica_entry(slots=(0, 1)))) as h, h.asking(more=more) as raw:
        await h.until(lambda: engine.running > 0)
        await asyncio.sleep(0.03)
        getattr(raw, how)()
        began = time.monotonic()
        await h.until(lambda: engine.running == 0 and h.is_quiet)
        await asyncio.sleep(0.02)

        assert time.monotonic() - began < 1.0
        assert h.codes == ["client_closed"]


async def test_a_hang_up_while_waiting_for_a_place_gives_it_to_the_next():
    engine = WatchedEngine(endless())

    async with house(engine, snapshot(replica_entry(max_inflight=1))) as h:
        async with h.asking(more=STREAM) as first:
            await h.until(lambda: engine.running == 1)
            async with h.asking() as leaving, h.asking(more=STREAM) as staying:
                await h.until(lambda: h.state.queued == 2)
                leaving.abort()
                await h.until(lambda: h.state.queued == 1)
                first.abort()
                await until_text(staying, b"on and")
        await h.until(lambda: h.is_quiet)

        assert h.codes == ["client_closed"] * 3


async def test_words_that_were_said_before_a_hang_up_are_counted():
    async with house(WatchedEngine(endless())) as h, h.asking(more=STREAM) as raw:
        await until_text(raw, b"on and")
        raw.close()
        await h.until(lambda: h.codes == ["client_closed"])

        assert h.records[0].output_tokens > 0
        assert h.contents[0].answers[0].startswith("on and")


async def test_a_drained_worker_keeps_the_records_of_what_it_cuts():
    async with house(WatchedEngine(endless())) as h, h.asking(more=STREAM) as raw:
        await until_text(raw, b"on and")

        await h.server.drain(0.0)

        assert h.codes == ["client_closed"]


# pace


async def test_a_reader_that_does_not_read_holds_the_engine_and_is_cut():
    said = 0

    async def say(request: GenerateRequest) -> AsyncIterator[Chunk]:
        nonlocal said
        while True:
            yield Chunk((Delta("x" * 16 * KIB),))
            said += 16 * KIB
            await asyncio.sleep(0)

    limits = Limits(write_timeout_s=0.7)
    async with house(WatchedEngine(say), limits=limits) as h, h.asking(more=STREAM) as raw:
        raw.writer.transport.pause_reading()
        await asyncio.sleep(0.5)
        held = said
        await h.until(lambda: h.codes == ["client_closed"])

        assert held < 16 * MIB
        assert said == held
        assert h.is_quiet


async def test_a_slow_reader_gets_all_of_it():
    engine = WatchedEngine(words(*["x" * 8 * KIB] * 500))

    async with house(engine) as h, h.asking(more=STREAM) as raw:
        raw.writer.transport.pause_reading()
        await asyncio.sleep(0.2)
        raw.writer.transport.resume_reading()
        answer = await raw.answer(timeout_s=20)

        assert len(texts(answer.body)) == 500 * 8 * KIB
        assert h.codes == ["ok"]


async def test_pipelined_streams_come_in_order():
    engine = WatchedEngine(words("a", "b", pause_s=0.01))

    async with house(engine) as h, h.asking(more=STREAM) as raw:
        await raw.send(h.request(more=STREAM) + h.request())
        first, second = await raw.answer(), await raw.answer()
        third = await raw.answer()

    assert texts(first.body) == texts(second.body) == "ab"
    assert json.loads(third.body)["choices"][0]["message"]["content"] == "ab"
    assert h.codes == ["ok"] * 3


# once


@pytest.mark.parametrize(
    ("say", "more", "leaves", "code"),
    [
        (words("a"), STREAM, False, "ok"),
        (words("a"), b"", False, "ok"),
        (fails(UpstreamError("x")), STREAM, False, "upstream_error"),
        (fails(UpstreamError("x"), after=["a"]), STREAM, False, "upstream_error"),
        (fails(UpstreamError("x"), after=["a"]), b"", False, "upstream_error"),
        (fails(ValueError("x"), after=["a"]), STREAM, False, "internal"),
        (fails(ValueError("x")), b"", False, "internal"),
        (endless(), STREAM, True, "client_closed"),
        (silent(), b"", True, "client_closed"),
        (words("a"), b',"n":9', False, "invalid_request"),
    ],
)
async def test_every_request_is_recorded_exactly_once(say, more, leaves, code):
    async with house(WatchedEngine(say)) as h:
        async with h.asking(more=more) as raw:
            if leaves:
                await asyncio.sleep(0.05)
            else:
                await raw.answer()
        await h.until(lambda: bool(h.records))
        await asyncio.sleep(0.05)

        assert h.codes == [code]
        assert h.is_quiet


async def test_the_rig_would_see_a_missing_end():
    async with (
        house(WatchedEngine(fails(UpstreamError("x"), after=["a"]))) as h,
        h.asking(more=STREAM) as raw,
    ):
        got, _ = await raw.read_until_silent()

    (answer,) = answers(got)
    assert not answer.is_cut
    assert b"[DONE]" not in answer.body


async def test_the_engines_time_is_not_called_ours_when_it_fails_before_the_first_token():
    async def say(request: GenerateRequest) -> AsyncIterator[Chunk]:
        await asyncio.sleep(0.3)
        raise UpstreamError("the engine hung up")
        yield Chunk()

    async with house(WatchedEngine(say)) as h:
        await h.ask(more=STREAM)
        (record,) = h.records

    assert record.duration_ms >= 300
    assert record.overhead_us < 200_000
