"""The same conversation in every protocol: limits, caches, records and cut streams hold on each alike."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from itertools import permutations

import msgspec
import pytest

from gateway_rig import DEVELOPER, House, endpoint_entry, house, replica_entry, snapshot
from http1_rig import Answer, answers, connected
from pilothouse.domain.chat import Aside, ToolCall
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.limits import Limits
from pilothouse.domain.price import Price
from pilothouse.domain.record import Content, InferenceRecord
from pilothouse.domain.snapshot import CachePolicy, DeploymentEntry
from pilothouse.domain.used_tokens import Usage
from protocol_ways import USER, WAYS, Way
from watched_engine import WatchedEngine, endless, fails, words

BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
EACH = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)


async def _all_of_it(ask: GenerateRequest) -> AsyncGenerator[Chunk, None]:
    yield Chunk((Delta("", 0, None, None, Aside("Hmm.")),))
    yield Chunk((Delta("Hel"),))
    yield Chunk((Delta("lo."),))
    yield Chunk((Delta("", 0, None, None, Aside("", "", (ToolCall(0, "c1", "look", '{"at":'),))),))
    yield Chunk((Delta("", 0, None, None, Aside("", "", (ToolCall(0, "", "", '"sky"}'),))),))
    yield Chunk((Delta("", 0, "tool_calls"),), Usage(7, 5, 3))


def fact_of(running: House) -> tuple[InferenceRecord, Content | None]:
    """The last record without what differs from one request to the next."""
    record, content = running.records[-1], running.contents[-1]
    plain = msgspec.structs.replace(
        record, id="", time=0.0, duration_ms=0.0, overhead_us=0, ttft_ms=0.0 if record.ttft_ms else None
    )
    return plain, content


async def asked(running: House, way: Way, *, stream: bool = False, tool: bool = False) -> Answer:
    return await running.ask(way.path, way.asking(stream=stream, tool=tool))


@BOTH
async def test_a_record_is_the_same_but_for_the_words_of_its_request(stream: bool) -> None:
    price = DeploymentEntry(name="chat", phase="ready", price=Price(input=1_000_000, output=1_000_000))
    served = snapshot(replica_entry(), deployments=(price,))
    facts = []
    async with house(WatchedEngine(_all_of_it, can=frozenset({"tools"})), served) as running:
        for way in WAYS:
            answer = await asked(running, way, stream=stream, tool=True)
            assert answer.status == 200
            facts.append(fact_of(running))
        asks = [ask for ask, _ in running.engines["chat-0"].asked]  # type: ignore[attr-defined]

    records, contents = zip(*facts, strict=True)
    assert set(records) == {records[0]}
    assert (records[0].code, records[0].streamed, records[0].cost_micro_usd) == ("ok", stream, 9)
    assert [content.protocol for content in contents] == [way.name for way in WAYS]
    assert [content.request for content in contents] == [way.asking(stream=stream, tool=True) for way in WAYS]
    assert all(content.answers == ["Hello."] for content in contents)
    assert all(content.asides == contents[0].asides for content in contents)
    assert contents[0].asides == [Aside("Hmm.", "", (ToolCall(0, "c1", "look", '{"at":"sky"}'),))]
    assert len({json.dumps(msgspec.json.decode(ask.prompt)) for ask in asks}) == 1
    assert len({json.dumps(msgspec.json.decode(ask.sampling.tools)) for ask in asks}) == 1
    assert len({(ask.max_tokens, ask.sampling.temperature, ask.needs) for ask in asks}) == 1


@BOTH
async def test_a_limit_is_charged_alike_and_its_end_is_told_in_each_protocols_words(stream: bool) -> None:
    left: list[tuple[float, int]] = []
    for way in WAYS:
        served = snapshot(replica_entry(), endpoints=(endpoint_entry(limits=Limits(tpm=5000, rpm=2)),))
        async with house(WatchedEngine(words("Hello.", usage=Usage(7, 5))), served) as running:
            began = time.monotonic()
            first = await asked(running, way, stream=stream)
            second = await asked(running, way, stream=stream)
            came_back = 5000 / 60 * (time.monotonic() - began) + 1
            third = await asked(running, way, stream=stream)
            code = running.codes[-1]
        assert [first.status, second.status, third.status] == [200, 200, 429]
        assert way.error(json.loads(third.body))["code"] == code == "rate_limit_exceeded"
        assert int(third.headers["retry-after"]) > 0
        remaining = int(second.headers["x-ratelimit-remaining-tokens"])
        left.append((remaining - came_back, remaining))
    assert max(least for least, _ in left) <= min(most for _, most in left), left


@pytest.mark.parametrize(
    "pair", list(permutations(WAYS, 2)), ids=lambda pair: f"{pair[0].name}-{pair[1].name}"
)
@BOTH
async def test_an_answer_in_one_protocol_is_a_hit_in_every_other(pair: tuple[Way, Way], stream: bool) -> None:
    policy = CachePolicy(exact_ttl_s=60.0, fingerprint="f")
    served = snapshot(replica_entry(model_digest="sha256:1"), endpoints=(endpoint_entry(cache=policy),))
    engine = WatchedEngine(words("One ", "two."))
    async with house(engine, served) as running:
        first = await asked(running, pair[0], stream=not stream)
        again = await asked(running, pair[1], stream=stream)

    assert len(engine.asked) == 1
    assert [one.headers["x-pilothouse-cache"] for one in (first, again)] == ["miss", "hit"]
    said = pair[1].streamed(again) if stream else pair[1].text(json.loads(again.body))
    assert said == "One two."
    assert [content.answers for content in running.contents if content] == [["One two."]] * 2


@EACH
async def test_a_stream_that_breaks_has_no_good_end_and_is_on_record(way: Way) -> None:
    engine = WatchedEngine(fails(UpstreamError("it broke"), after=("One ",)))
    async with house(engine) as running:
        answer = await asked(running, way, stream=True)
        record, content = fact_of(running)

    assert way.streamed(answer) == "One "
    assert b"it broke" in answer.body
    assert b"upstream_error" in answer.body
    assert way.ends_well not in answer.body
    assert (record.code, content and content.answers) == ("upstream_error", ["One "])


@EACH
async def test_an_error_before_the_answer_is_in_each_protocols_words_and_on_record(way: Way) -> None:
    async with house(WatchedEngine(fails(UpstreamError("it broke")))) as running:
        answer = await asked(running, way)

    error = way.error(json.loads(answer.body))
    assert (answer.status, error["code"], running.codes) == (502, "upstream_error", ["upstream_error"])


@EACH
async def test_who_hangs_up_is_heard_and_on_record(way: Way) -> None:
    engine = WatchedEngine(endless())
    async with house(engine) as running:
        async with connected(running.port) as raw:
            await raw.send(running.request(way.path, way.asking(stream=True), as_key=DEVELOPER))
            await running.until(lambda: engine.running == 1)
        await running.until(lambda: bool(running.records))
        await running.until(lambda: running.is_quiet and engine.running == 0)

    assert running.codes == ["client_closed"]


@pytest.mark.parametrize("way", [way for way in WAYS if way.keepalive], ids=lambda way: way.name)
async def test_a_stream_in_which_nothing_happens_says_so_in_its_protocols_words(way: Way) -> None:
    heard = asyncio.Event()

    async def slow(ask: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        yield Chunk((Delta("One "),))
        await heard.wait()
        yield Chunk((Delta("two.", 0, "stop"),), Usage(7, 2))

    async with (
        house(WatchedEngine(slow), stream_keepalive_s=0.05) as running,
        connected(running.port) as raw,
        asyncio.timeout(10),
    ):
        await raw.send(running.request(way.path, way.asking(stream=True), as_key=DEVELOPER))
        came = await raw.reader.readuntil(way.keepalive)
        heard.set()
        came += await raw.reader.readuntil(b"\r\n0\r\n\r\n")

    (answer,) = answers(came)
    assert way.streamed(answer) == "One two."
    assert way.ends_well in answer.body


@EACH
async def test_a_picture_is_refused_where_the_model_has_no_eyes(way: Way) -> None:
    picture = "iVBORw0KGgo="
    body = way.body(False, False)
    if way.name == "openai":
        body["messages"] = [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a.b"}}]}
        ]
    elif way.name == "responses":
        part = {"type": "input_image", "image_url": "https://a.b", "detail": "auto"}
        body["input"] = [{"role": "user", "content": [part]}]
    elif way.name == "anthropic":
        source = {"type": "base64", "media_type": "image/png", "data": picture}
        body["messages"] = [{"role": "user", "content": [{"type": "image", "source": source}]}]
    else:
        body["messages"] = [USER | {"images": [picture]}]
    engine = WatchedEngine()
    async with house(engine) as running:
        answer = await running.ask(way.path, json.dumps(body).encode())

    assert (answer.status, way.error(json.loads(answer.body))["code"]) == (400, "invalid_request")
    assert engine.asked == []
