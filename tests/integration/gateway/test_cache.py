"""Answers that are given again: at once, to the same team alone, whole and as streams, and said so."""

import json

import pytest
from msgspec import Raw

from gateway_rig import DEVELOPER, OTHER_TEAM, endpoint_entry, house, replica_entry, snapshot
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.snapshot import CachePolicy, Route
from pilothouse.domain.used_tokens import Usage
from pilothouse.testing.memory_cache import FakeCache
from watched_engine import WatchedEngine, fails, words

POLICY = CachePolicy(exact_ttl_s=60.0, fingerprint="f")
COLD = b',"temperature":0'
STREAM = b',"temperature":0,"stream":true,"stream_options":{"include_usage":true}'


def served(*, policy=POLICY, digest="sha256:1", purges=None, **more):
    shown = snapshot(replica_entry(model_digest=digest), endpoints=(endpoint_entry(cache=policy, **more),))
    shown.purges.update(purges or {})
    return shown


def caching_house(engine=None, *, policy=POLICY, **more):
    return house(engine or WatchedEngine(), served(policy=policy), **more)


def text_of(answer):
    return json.loads(answer.body)["choices"][0]["message"]["content"]


def events(answer):
    return [json.loads(line[6:]) for line in answer.body.decode().split("\n\n") if line.startswith("data: {")]


def streamed(answer):
    found = events(answer)
    return "".join(c["delta"].get("content") or "" for e in found for c in e["choices"])


def results(h):
    return [record.cache for record in h.records]


@pytest.mark.parametrize("whole", [True, False])
async def test_the_second_time_the_answer_is_there_and_says_so(whole):
    engine = WatchedEngine(whole=whole)
    async with caching_house(engine) as h:
        first = await h.ask(more=COLD)
        second = await h.ask(more=COLD)
        one, other = h.records
        said = [content.answers for content in h.contents]

    assert len(engine.asked) == 1
    assert [a.headers["x-pilothouse-cache"] for a in (first, second)] == ["miss", "hit"]
    a, b = json.loads(first.body), json.loads(second.body)
    assert a["id"] != b["id"]
    assert {**a, "id": 0, "created": 0} == {**b, "id": 0, "created": 0}
    assert (one.cache, other.cache, other.replica, other.code) == ("miss", "hit", "", "ok")
    assert (other.input_tokens, other.output_tokens) == (one.input_tokens, one.output_tokens)
    assert said == [["Hello world"]] * 2
    assert second.headers["x-pilothouse-deployment"] == "chat"


@pytest.mark.parametrize(("first", "second"), [(STREAM, STREAM), (COLD, STREAM), (STREAM, COLD)])
async def test_streams_and_whole_answers_are_each_made_from_the_other(first, second):
    engine = WatchedEngine(words("One two three. ", 'Four \u00e9 \U0001f680 \\ " \n\n five.'))
    async with caching_house(engine) as h:
        answers = [await h.ask(more=more) for more in (first, second)]
        texts = [
            streamed(a) if more is STREAM else text_of(a)
            for a, more in zip(answers, (first, second), strict=True)
        ]
        record = h.records[1]

    assert texts[0] == texts[1] == 'One two three. Four \u00e9 \U0001f680 \\ " \n\n five.'
    assert len(engine.asked) == 1
    assert record.cache == "hit"
    if second is STREAM:
        found = events(answers[1])
        assert answers[1].body.endswith(b"data: [DONE]\n\n")
        assert sum(1 for e in found for c in e["choices"] if c["delta"].get("content")) > 2
        assert found[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert found[-2]["choices"][0]["finish_reason"] == "stop"
        assert (found[-1]["choices"], found[-1]["usage"]["completion_tokens"]) == ([], 2)
        assert len({e["id"] for e in found}) == 1
        assert record.ttft_ms is not None


async def test_a_stream_that_asks_for_no_usage_gets_none():
    async with caching_house() as h:
        await h.ask(more=STREAM)
        again = await h.ask(more=b',"temperature":0,"stream":true')

    assert again.headers["x-pilothouse-cache"] == "hit"
    assert all("usage" not in event for event in events(again))


async def test_several_choices_come_back_in_their_places():
    async with caching_house() as h:
        first = await h.ask(more=COLD + b',"n":2')
        again = await h.ask(more=STREAM + b',"n":2')

    assert [c["message"]["content"] for c in json.loads(first.body)["choices"]] == ["Hello world"] * 2
    for index in (0, 1):
        mine = [c for e in events(again) for c in e["choices"] if c["index"] == index]
        assert "".join(c["delta"].get("content") or "" for c in mine) == "Hello world"
        assert mine[-1]["finish_reason"] == "stop"


async def test_no_other_team_gets_it():
    engine = WatchedEngine()
    async with caching_house(engine) as h:
        await h.ask(more=COLD)
        other = await h.ask(more=COLD, as_key=OTHER_TEAM)

    assert other.headers["x-pilothouse-cache"] == "miss"
    assert len(engine.asked) == 2


async def test_another_model_behind_the_endpoint_answers_anew():
    engine = WatchedEngine()
    async with caching_house(engine) as h:
        await h.ask(more=COLD)
        h.state.apply(served(digest="sha256:2"))
        other = await h.ask(more=COLD)
        h.state.apply(served())
        back = await h.ask(more=COLD)

    assert [a.headers["x-pilothouse-cache"] for a in (other, back)] == ["miss", "hit"]


async def test_while_one_model_takes_the_others_place_nothing_is_cached():
    replicas = (replica_entry(model_digest="sha256:1"), replica_entry("chat-1", model_digest="sha256:2"))
    both = snapshot(*replicas, endpoints=(endpoint_entry(cache=POLICY),))
    async with house(WatchedEngine(), both) as h:
        answers = [await h.ask(more=COLD) for _ in range(2)]

    assert [a.headers["x-pilothouse-cache"] for a in answers] == ["bypass"] * 2


@pytest.mark.parametrize(
    ("more", "headers"),
    [(b"", b""), (b',"temperature":0.7', b""), (COLD, b"x-pilothouse-cache: no-store\r\n")],
)
async def test_what_may_not_be_given_again_is_a_bypass(more, headers):
    engine = WatchedEngine()
    async with caching_house(engine) as h:
        answers = [await h.ask(more=more, headers=headers) for _ in range(2)]
        found = results(h)

    assert len(engine.asked) == 2
    assert [a.headers["x-pilothouse-cache"] for a in answers] == found == ["bypass"] * 2


async def test_no_store_leaves_an_answer_in_the_cache_alone():
    async with caching_house() as h:
        await h.ask(more=COLD)
        await h.ask(more=COLD, headers=b"x-pilothouse-cache: no-store\r\n")
        third = await h.ask(more=COLD)

    assert third.headers["x-pilothouse-cache"] == "hit"


async def test_an_endpoint_may_say_that_sampled_answers_are_given_again():
    async with caching_house(policy=CachePolicy(exact_ttl_s=60.0, always=True)) as h:
        await h.ask()
        again = await h.ask()

    assert again.headers["x-pilothouse-cache"] == "hit"


async def test_an_endpoint_without_a_cache_says_bypass():
    async with house() as h:
        answers = [await h.ask(more=COLD) for _ in range(2)]

    assert [a.headers["x-pilothouse-cache"] for a in answers] == ["bypass"] * 2


async def test_an_answer_ends_with_its_time():
    async with caching_house(policy=CachePolicy(exact_ttl_s=0.0)) as h:
        await h.ask(more=COLD)
        again = await h.ask(more=COLD)

    assert again.headers["x-pilothouse-cache"] == "miss"


@pytest.mark.parametrize("scope", ["\n", "a\n", "\nchat", "a\nchat"])
async def test_a_purge_ends_answers_at_once_and_frees_their_room(scope):
    near = FakeCache()
    async with caching_house(near=near) as h:
        await h.ask(more=COLD)
        assert len(near.answers) == 1
        h.state.apply(served(purges={scope: 1}))
        again = await h.ask(more=COLD)
        held = len(near.answers)

    assert again.headers["x-pilothouse-cache"] == "miss"
    assert held == 1


@pytest.mark.parametrize("more", [COLD, STREAM])
@pytest.mark.parametrize(
    "say",
    [
        fails(RuntimeError("defect"), after=["half"]),
        words("half", finish="content_filter"),
        words("half", finish=""),
    ],
)
async def test_what_was_cut_or_filtered_is_never_stored(more, say):
    near = FakeCache()
    async with caching_house(WatchedEngine(say), near=near) as h:
        await h.ask(more=more)

    assert near.answers == {}


async def test_what_another_deployment_answered_is_not_stored():
    """A snapshot that comes between question and answer may bring another model under the same name."""
    near = FakeCache()
    engine = WatchedEngine()

    async def swap(request):
        h.state.apply(served(digest="sha256:2"))
        async for chunk in words("Hello")(request):
            yield chunk

    engine.say = swap
    async with caching_house(engine, near=near) as h:
        await h.ask(more=COLD)

    assert near.answers == {}


async def test_answers_that_workers_share_are_taken_over():
    far, engine = FakeCache(), WatchedEngine()
    async with caching_house(engine, far=far) as h:
        await h.ask(more=COLD)
    async with caching_house(engine, far=far) as h:
        first = await h.ask(more=COLD)
        second = await h.ask(more=STREAM)

    assert [a.headers["x-pilothouse-cache"] for a in (first, second)] == ["hit", "hit"]
    assert text_of(first) == streamed(second) == "Hello world"
    assert len(engine.asked) == 1
    assert len(far.asked) == 2


async def test_embeddings_are_not_cached():
    endpoint = endpoint_entry(cache=POLICY, tasks=("embedding",), routes=(Route("chat"),))
    async with house(WatchedEngine(), snapshot(replica_entry(), endpoints=(endpoint,))) as h:
        answer = await h.ask("/v1/embeddings", b'{"model":"chat","input":"a"}')

    assert (answer.status, answer.headers["x-pilothouse-cache"]) == (200, "bypass")


async def test_results_are_counted_and_hits_count_no_engine_token():
    async with caching_house() as h:
        for more in (COLD, COLD, COLD, b""):
            await h.ask(more=more)
        text = h.meters.registry.merged([h.meters.dump()]).render()

    labels = 'endpoint="chat",deployment="chat"'
    for result, count in (("hit", 2), ("miss", 1), ("bypass", 1)):
        assert f'pilothouse_cache_requests_total{{{labels},result="{result}"}} {count}\n' in text
    assert f'pilothouse_tokens_total{{{labels},kind="output"}} 4\n' in text


async def test_a_hit_whose_record_cannot_be_kept_is_refused():
    async with caching_house() as h:
        await h.ask(more=COLD)
        h.journal.is_full = True
        answer = await h.ask(more=COLD)

    assert answer.status == 503
    assert h.journal.entries[0].record.key_id == DEVELOPER


async def test_a_large_answer_is_replayed_at_the_readers_pace():
    text = "0123456789" * 20_000
    async with caching_house(WatchedEngine(words(text)), near=FakeCache()) as h:
        first = await h.ask(more=STREAM)
        again = await h.ask(more=STREAM)

    assert again.headers["x-pilothouse-cache"] == "hit"
    assert streamed(again) == streamed(first) == text


async def test_log_probabilities_come_back_with_their_answer():
    raw = b'{"content":[{"token":"Hi","logprob":-0.5,"bytes":null,"top_logprobs":[]}]}'

    async def say(request):
        yield Chunk((Delta("Hi", 0, None, Raw(raw)),))
        yield Chunk((Delta("", 0, "stop"),), Usage(3, 1))

    more = COLD + b',"logprobs":true'
    async with caching_house(WatchedEngine(say)) as h:
        first = await h.ask(more=STREAM + b',"logprobs":true')
        whole = await h.ask(more=more)
        stream = await h.ask(more=STREAM + b',"logprobs":true')

    assert [a.headers["x-pilothouse-cache"] for a in (first, whole, stream)] == ["miss", "hit", "hit"]
    assert json.loads(whole.body)["choices"][0]["logprobs"] == json.loads(raw)
    assert [c["logprobs"] for e in events(stream) for c in e["choices"] if c["logprobs"]] == [json.loads(raw)]
