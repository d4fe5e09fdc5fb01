"""
A real engine client between the pipeline and an upstream that fails in every way.

Before the first byte of an answer a fault is a status; after it, an error event
and no `[DONE]`. In each case the record says it, and the place is free again.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from gateway_rig import House, endpoint_entry, house, replica_entry, snapshot
from pilothouse.adapters.engines._openai_http import OpenAIEngine
from pilothouse.ports.engine import EngineInfo
from upstream_rig import CHUNKED_HEAD, Listening, Script, Upstream, chunked, upstream, whole

STREAM = b',"stream":true'
TOKEN = "engine-token-that-nobody-may-see"


def event(text: str = "", *, finish: str | None = None, index: int = 0) -> bytes:
    said = {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}]}
    return b"data: " + json.dumps(said).encode() + b"\n\n"


USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"
HALF = CHUNKED_HEAD + chunked(event("half "), event("an"), end=False)
FULL = [event("all "), event("of it"), event("", finish="stop"), USAGE, DONE]


@asynccontextmanager
async def facing(
    script: Script, *, slots: bool = False, whole_: bool = False, timeout_s: float = 5.0
) -> AsyncIterator[tuple[House, Listening]]:
    async with upstream(script) as server:
        engine = OpenAIEngine(
            EngineInfo(name="llama", slots=slots, whole=whole_),
            f"http://127.0.0.1:{server.port}/v1",
            model="m",
            credential=f"authorization: Bearer {TOKEN}",
        )
        served = snapshot(
            replica_entry(slots=(0,) if slots else ()),
            endpoints=(
                endpoint_entry(
                    "chat", timeout_s=timeout_s, tasks=("chat", "completion", "embedding"), retries=0
                ),
            ),
        )
        async with house(engine, served) as h:
            yield h, server


def once(*pieces: bytes, then: Callable[[Upstream], Awaitable[None]] | None = None) -> Script:
    async def script(talk: Upstream, number: int) -> None:
        await talk.request()
        await talk.say(*pieces)
        await asyncio.sleep(0.02)
        if then is not None:
            await then(talk)

    return script


async def reset(talk: Upstream) -> None:
    talk.reset()


async def stall(talk: Upstream) -> None:
    await talk.hears_a_hang_up()


async def half_close(talk: Upstream) -> None:
    talk.writer.write_eof()
    await talk.hears_a_hang_up()


def said_in(body: bytes) -> str:
    parts = [
        json.loads(block[6:]) for block in body.decode().split("\n\n") if block.startswith('data: {"id"')
    ]
    return "".join(choice["delta"].get("content") or "" for part in parts for choice in part["choices"])


def error_in(body: bytes) -> str:
    last = [block for block in body.decode().split("\n\n") if block.startswith("data: ")][-1]
    return json.loads(last[6:])["error"]["code"]


LATE = {
    "reset": (once(HALF, then=reset), "upstream_error"),
    "closed": (once(HALF), "upstream_error"),
    "half-closed": (once(HALF, then=half_close), "upstream_error"),
    "no last chunk": (once(HALF + chunked(event("", finish="stop"), end=False)), "upstream_error"),
    "ended before its finish": (once(HALF + b"0\r\n\r\n"), "upstream_error"),
    "half an event": (once(HALF + chunked(b'data: {"choices":[{"del')), "upstream_error"),
    "half a chunk": (once(HALF + b"500\r\ndata: {"), "upstream_error"),
    "garbage in an event": (once(HALF + chunked(b"data: not json\n\n"), then=stall), "upstream_error"),
    "an event of another kind": (once(HALF + chunked(b"data: [1,2]\n\n"), then=stall), "upstream_error"),
    "a choice that is no object": (
        once(HALF + chunked(b'data: {"choices":[7]}\n\n'), then=stall),
        "upstream_error",
    ),
    "bytes that are no UTF-8": (
        once(HALF + chunked(b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n'), then=stall),
        "upstream_error",
    ),
    "an error event": (
        once(HALF + chunked(b'data: {"error":{"message":"%s"}}\n\n' % TOKEN.encode()), then=stall),
        "upstream_error",
    ),
    "chunks gone wrong": (once(HALF + b"zz\r\n", then=stall), "upstream_error"),
    "an endless event": (once(HALF + chunked(b"data: " + b"x" * 5_000_000), then=stall), "upstream_error"),
    "usage that is no number": (
        once(HALF + chunked(b'data: {"choices":[],"usage":{"prompt_tokens":"many"}}\n\n'), then=stall),
        "upstream_error",
    ),
    "a stall": (once(HALF, then=stall), "deadline_exceeded"),
}


@pytest.mark.parametrize("name", LATE)
async def test_a_fault_after_the_first_word_is_an_error_event(name: str):
    script, code = LATE[name]

    async with facing(script, timeout_s=1.0) as (h, _), h.asking(more=STREAM) as raw:
        answer = await raw.answer()
        await h.until(lambda: h.is_quiet)

        assert answer.status == 200
        assert b"[DONE]" not in answer.body
        assert said_in(answer.body).startswith("half an")
        assert error_in(answer.body) == code
        assert h.codes == [code]
        assert h.contents[0].answers == ["half an"]
        assert TOKEN.encode() not in answer.body
        assert TOKEN not in h.log


@pytest.mark.parametrize("name", LATE)
async def test_the_same_fault_in_an_answer_that_is_not_streamed_is_a_status(name: str):
    script, code = LATE[name]

    async with facing(script, timeout_s=1.0) as (h, _):
        answer = await h.ask()

        assert answer.status == {"upstream_error": 502, "deadline_exceeded": 504}[code]
        assert json.loads(answer.body)["error"]["code"] == code
        assert h.codes == [code]
        assert h.is_quiet


def refusal(status: bytes, body: bytes) -> bytes:
    return whole(body, status=status, headers=b"content-type: application/json\r\n")


TOO_LONG = {"type": "exceed_context_size_error", "message": "secret prompt", "n_prompt_tokens": 9, "n_ctx": 5}
CONTEXT = json.dumps({"error": TOO_LONG}).encode()
EARLY = {
    "closed": (once(), 503, "engine_unavailable"),
    "reset": (once(then=reset), 503, "engine_unavailable"),
    "a stall": (once(then=stall), 504, "deadline_exceeded"),
    "half a head": (once(b"HTTP/1.1 200 O"), 502, "upstream_error"),
    "another protocol": (once(b"SSH-2.0-OpenSSH\r\n"), 502, "upstream_error"),
    "TLS": (once(b"\x15\x03\x01\x00\x02\x02\x46"), 502, "upstream_error"),
    "a redirect": (
        once(whole(b"", status=b"302 Found", headers=b"location: http://x/\r\n")),
        502,
        "upstream_error",
    ),
    "a wrong token": (
        once(refusal(b"401 Unauthorized", b'{"error":{"message":"token"}}')),
        502,
        "upstream_error",
    ),
    "not there": (once(refusal(b"404 Not Found", b"<html>")), 502, "upstream_error"),
    "overloaded": (once(refusal(b"503 Busy", b"{}")), 503, "overloaded"),
    "limited": (once(refusal(b"429 Slow", b"{}")), 503, "overloaded"),
    "invalid": (once(refusal(b"400 Bad", b'{"error":{"message":"secret prompt"}}')), 400, "invalid_request"),
    "too long": (once(refusal(b"400 Bad", CONTEXT)), 400, "context_length_exceeded"),
    "broken": (once(refusal(b"500 Oops", b'{"error":{"message":"secret prompt"}}')), 502, "upstream_error"),
    "a huge error": (once(refusal(b"500 Oops", b"x" * 500_000)), 502, "upstream_error"),
    "an error that is cut": (
        once(b"HTTP/1.1 500 Oops\r\ncontent-length: 99\r\n\r\n{"),
        502,
        "upstream_error",
    ),
    "an error in a 200": (
        once(CHUNKED_HEAD + chunked(b'data: {"error":{"message":"secret prompt"}}\n\n'), then=stall),
        502,
        "upstream_error",
    ),
    "nothing in a 200": (once(CHUNKED_HEAD + chunked()), 502, "upstream_error"),
    "a page in a 200": (once(whole(b"<html>hello</html>")), 502, "upstream_error"),
}


@pytest.mark.parametrize("more", [b"", STREAM], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", EARLY)
async def test_a_fault_before_the_first_word_is_a_status(name: str, more: bytes):
    script, status, code = EARLY[name]

    async with facing(script, timeout_s=0.7) as (h, _):
        answer = await h.ask(more=more)

        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (status, code)
        assert h.codes == [code]
        assert h.is_quiet
        for secret in (b"secret prompt", TOKEN.encode()):
            assert secret not in answer.body
            assert secret.decode() not in h.log


@pytest.mark.parametrize("name", EARLY)
async def test_a_fault_of_an_engine_that_answers_whole_is_the_same_status(name: str):
    script, status, code = EARLY[name]

    async with facing(script, whole_=True, timeout_s=0.7) as (h, _):
        answer = await h.ask()

        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (status, code)
        assert h.codes == [code]
        assert h.is_quiet


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices":[]}',
        b'{"choices":[{"message":{"content":"x"},"index":"one"}]}',
        b'{"choices":[{"message":{"content":"x"}}]',
        b'{"error":{"message":"x"},"choices":[{"message":{"content":"x"}}]}',
    ],
)
async def test_a_whole_answer_that_is_nonsense_is_the_engines_fault(body: bytes):
    async with facing(once(whole(body)), whole_=True) as (h, _):
        assert (await h.ask()).status == 502
        assert h.codes == ["upstream_error"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"data":[{"embedding":[0.5,1],"index":0}],"usage":{"prompt_tokens":2}}', 200),
        (b'{"data":[]}', 502),
        (b'{"data":[{"embedding":"aaa"}]}', 502),
        (b"[]", 502),
        (b'{"data":[{"embedding":[0.5', 502),
    ],
)
async def test_embeddings_are_vectors_or_the_engines_fault(body: bytes, status: int):
    async with facing(once(whole(body))) as (h, _):
        answer = await h.ask("/v1/embeddings", b'{"model":"chat","input":"x"}')

        assert answer.status == status
        assert h.codes == ["ok" if status == 200 else "upstream_error"]


async def test_a_missing_done_is_forgiven_where_each_choice_has_ended():
    """Some servers leave it out; what counts is that nothing is missing."""
    async with facing(once(CHUNKED_HEAD + chunked(*FULL[:-1]))) as (h, _):
        answer = await h.ask(more=STREAM)

        assert said_in(answer.body) == "all of it"
        assert answer.body.endswith(DONE)
        assert h.codes == ["ok"]


async def test_a_missing_usage_is_counted_from_what_was_said():
    async with facing(once(CHUNKED_HEAD + chunked(*FULL[:3], DONE))) as (h, _):
        answer = await h.ask(more=STREAM)

        assert answer.body.endswith(DONE)
        assert (h.records[0].input_tokens, h.records[0].output_tokens) == (0, 2)


NOTHING = {
    "a comment": b": comment\n\n",
    "an event": b'event: ping\ndata: {"choices":[]}\n\n',
    "an error that is null": b'data: {"choices":[],"error":null}\n\n',
    "empty lines": b"\n\n",
}


@pytest.mark.parametrize("more", NOTHING.values(), ids=NOTHING)
async def test_what_means_nothing_in_a_stream_changes_nothing(more: bytes):
    async with facing(once(CHUNKED_HEAD + chunked(FULL[0], more, *FULL[1:]))) as (h, _):
        answer = await h.ask(more=STREAM)

        assert said_in(answer.body) == "all of it"
        assert h.codes == ["ok"]


async def test_words_reach_the_caller_however_the_engine_cuts_them():
    stream = CHUNKED_HEAD + chunked(*FULL)

    async def script(talk: Upstream, number: int) -> None:
        await talk.request()
        for at in range(0, len(stream), 7):
            await talk.say(stream[at : at + 7])
            await asyncio.sleep(0)

    async with facing(script) as (h, _):
        assert said_in((await h.ask(more=STREAM)).body) == "all of it"


async def test_the_engines_connection_is_kept_after_whole_answers_and_not_after_cut_ones():
    async def script(talk: Upstream, number: int) -> None:
        for _ in range(3):
            await talk.request()
            await talk.say(CHUNKED_HEAD + chunked(*FULL))
        await talk.request()
        await talk.say(HALF)
        await talk.hears_a_hang_up()

    async with facing(script, timeout_s=0.6) as (h, server):
        for _ in range(3):
            assert said_in((await h.ask(more=STREAM)).body) == "all of it"
        assert server.connections == 1
        assert error_in((await h.ask(more=STREAM)).body) == "deadline_exceeded"
        assert said_in((await h.ask(more=STREAM)).body) == "all of it"
        assert server.connections == 2


async def test_the_end_is_not_held_back_by_a_slow_last_chunk():
    async with facing(once(CHUNKED_HEAD + chunked(*FULL, end=False), then=stall)) as (h, _):
        began = time.monotonic()
        answer = await h.ask(more=STREAM)

        assert answer.body.endswith(DONE)
        assert time.monotonic() - began < 0.5


@pytest.mark.parametrize("more", [STREAM, b""], ids=["streamed", "whole"])
async def test_a_hang_up_of_the_caller_reaches_the_engine(more: bytes):
    heard = asyncio.Event()

    async def script(talk: Upstream, number: int) -> None:
        await talk.request()
        await talk.say(HALF)
        await talk.hears_a_hang_up()
        heard.set()

    async with facing(script) as (h, _), h.asking(more=more) as raw:
        await asyncio.sleep(0.1)
        raw.close()

        await asyncio.wait_for(heard.wait(), 1.0)
        await h.until(lambda: h.codes == ["client_closed"])


async def test_what_the_engine_gets_is_its_own_token_and_what_was_allowed():
    got: list[bytes] = []

    async def script(talk: Upstream, number: int) -> None:
        got.append(await talk.request())
        await talk.say(CHUNKED_HEAD + chunked(*FULL))

    async with facing(script, slots=True) as (h, _):
        await h.ask(more=b',"user":"ann","metadata":{"a":"b"},"seed":4')

    head, _, body = got[0].partition(b"\r\n\r\n")
    assert f"authorization: Bearer {TOKEN}".encode() in head
    assert b"ph_" not in head
    assert json.loads(body) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "seed": 4,
        "max_tokens": 1024,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,
        "cache_prompt": False,
        "id_slot": 0,
    }


async def test_a_request_that_runs_when_its_engine_is_retired_ends_in_its_time():
    """The one that is taken out may be the one that hangs."""
    async with upstream(once(HALF, then=stall)) as server:
        engine = OpenAIEngine(EngineInfo(name="llama"), f"http://127.0.0.1:{server.port}/v1", model="m")
        served = snapshot(replica_entry(), endpoints=(endpoint_entry("chat", timeout_s=0.8),))
        async with house(engine, served) as h, h.asking(more=STREAM) as raw:
            await h.until(lambda: h.state.inflight == 1)
            h.state.apply(snapshot(replica_entry("x", "other")))
            await h.retired[0].aclose()
            answer = await raw.answer(timeout_s=3.0)

    assert error_in(answer.body) == "deadline_exceeded"
