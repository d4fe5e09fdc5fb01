"""Several choices from an engine that gives one a slot; whole answers from one that streams."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_rig import replica_entry
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import DeadlineExceeded, UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.snapshot import DeploymentEntry
from pilothouse.domain.used_tokens import Usage
from pilothouse.gateway import generate
from pilothouse.gateway.permit import Places
from pilothouse.gateway.place import ReplicaPlaces
from pilothouse.wire.openai.completions import read_completion
from pilothouse.wire.openai.inbound import read_chat
from watched_engine import WatchedEngine, endless, fails, words


def ask(n: int = 1, *, seed: int | None = None) -> GenerateRequest:
    more = b"" if seed is None else b',"seed":%d' % seed
    return read_chat(b'{"model":"m","messages":[{"role":"user","content":"x"}],"n":%d%s}' % (n, more))


def places_on(engine: WatchedEngine, slots: int = 2) -> Places:
    made = Places("d")
    entry = replica_entry(slots=tuple(range(slots)) if engine.info.slots else ())
    made.change(DeploymentEntry(name="d", phase="ready"), {"r": ReplicaPlaces(entry, engine)})
    return made


async def answered(
    places: Places, request: GenerateRequest, *, team: str = "a", deadline_s: float = 5.0
) -> generate.Gathered:
    place = await places.take(team, timeout_s=10.0)
    found = generate.Gathered(request.choices)
    try:
        async with aclosing(generate.chunks(request, place, places, team, deadline_s=deadline_s)) as chunks:
            async for chunk in chunks:
                found.add(chunk)
    finally:
        places.release(place)
    return found


async def test_one_choice_is_one_stream_on_the_place():
    engine = WatchedEngine(slots=True)

    found = await answered(places_on(engine), ask())

    assert found.texts == [["Hello", " world"]]
    assert [placement.slot for _, placement in engine.asked] == [0]


async def test_an_engine_without_slots_gets_all_choices_at_once():
    engine = WatchedEngine()

    found = await answered(places_on(engine), ask(3))

    assert [request.choices for request, _ in engine.asked] == [3]
    assert found.texts == [["Hello", " world"]] * 3


@pytest.mark.parametrize("slots", [1, 2, 3, 8])
async def test_each_choice_has_a_slot_of_its_own_at_its_time_and_its_own_seed(slots: int):
    engine = WatchedEngine(words("a", "b", pause_s=0.001), slots=True)
    places = places_on(engine, slots)

    found = await answered(places, ask(4, seed=7))

    assert found.texts == [["a", "b"]] * 4
    assert sorted(request.sampling.seed for request, _ in engine.asked) == [7, 8, 9, 10]
    assert all(request.choices == 1 for request, _ in engine.asked)
    assert not engine.collisions
    assert places.inflight == 0


async def test_without_a_seed_the_engine_draws_one_for_each():
    engine = WatchedEngine(slots=True)

    await answered(places_on(engine), ask(3))

    assert [request.sampling.seed for request, _ in engine.asked] == [None] * 3


async def test_the_prompt_of_several_choices_is_counted_once():
    engine = WatchedEngine(words("a", usage=Usage(10, 4, 2)), slots=True)

    found = await answered(places_on(engine), ask(3))

    assert found.counted() == Usage(10, 12, 2)


@pytest.mark.parametrize("has_slots", [True, False])
async def test_each_of_several_prompts_is_asked_by_itself_and_counted(has_slots: bool):
    engine = WatchedEngine(words("a", usage=Usage(10, 4, 2)), slots=has_slots)
    body = b'{"model":"m","prompt":["x","y"],"n":2,"seed":7}'

    found = await answered(places_on(engine), read_completion(body))

    asked = sorted((bytes(one.prompt), one.sampling.seed, one.choices) for one, _ in engine.asked)
    assert asked == [(b'"x"', 7, 1), (b'"x"', 8, 1), (b'"y"', 7, 1), (b'"y"', 8, 1)]
    assert found.texts == [["a"]] * 4
    assert found.counted() == Usage(20, 16, 4)


async def test_many_requests_for_four_choices_on_two_slots_all_end():
    engine = WatchedEngine(words("a", "b", pause_s=0.0005), slots=True)
    places = places_on(engine, 2)

    async with asyncio.timeout(20):
        found = await asyncio.gather(*(answered(places, ask(4), team=f"t{n % 3}") for n in range(25)))

    assert all(gathered.texts == [["a", "b"]] * 4 for gathered in found)
    assert not engine.collisions
    assert (places.inflight, places.queued, engine.running) == (0, 0, 0)


async def test_another_choices_place_is_not_taken_from_those_who_wait():
    engine = WatchedEngine(words(*"abcdef", pause_s=0.002), slots=True)
    places = places_on(engine, 1)
    first = asyncio.create_task(answered(places, ask(1)))
    await asyncio.sleep(0)
    greedy = asyncio.create_task(answered(places, ask(4)))
    patient = asyncio.create_task(answered(places, ask(1), team="b"))

    await asyncio.gather(first, greedy, patient)

    assert not engine.collisions


async def test_one_choice_that_fails_ends_the_others_and_gives_their_places_back():
    began = 0

    async def say(request: GenerateRequest) -> AsyncIterator[Chunk]:
        nonlocal began
        began += 1
        script = fails(UpstreamError("cut"), after=["x"]) if began == 2 else endless(0.001)
        async for chunk in script(request):
            yield chunk

    engine = WatchedEngine(say, slots=True)
    places = places_on(engine, 3)

    with pytest.raises(UpstreamError):
        await answered(places, ask(3))

    assert (places.inflight, engine.running) == (0, 0)


async def test_giving_up_several_choices_stops_them_all():
    engine = WatchedEngine(endless(0.001), slots=True)
    places = places_on(engine, 3)
    task = asyncio.create_task(answered(places, ask(3)))
    await asyncio.sleep(0.02)
    running = engine.running

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert running == 3
    assert (places.inflight, engine.running) == (0, 0)


async def test_a_slow_reader_of_several_choices_holds_the_engine():
    engine = WatchedEngine(endless(0), slots=True)
    places = places_on(engine, 2)
    place = places.try_take("a")
    said = 0

    async def counting(request: GenerateRequest) -> AsyncIterator[Chunk]:
        nonlocal said
        async for chunk in endless(0)(request):
            said += 1
            yield chunk

    engine.say = counting
    async with aclosing(generate.chunks(ask(2), place, places, "a", deadline_s=5.0)) as chunks:
        await anext(chunks)
        await asyncio.sleep(0.05)
        assert said < 100
    places.release(place)


async def test_choices_one_after_the_other_share_one_deadline():
    engine = WatchedEngine(words("a", pause_s=0.05), slots=True)

    with pytest.raises(DeadlineExceeded):
        await answered(places_on(engine, 1), ask(4), deadline_s=0.06)


async def test_an_endless_answer_is_cut_at_its_bound():
    """An engine that ignores max_tokens must not fill the worker's memory, nor the journal."""
    engine = WatchedEngine(endless(0, text="x" * 100_000))

    with pytest.raises(UpstreamError, match="longer than"):
        await answered(places_on(engine), ask())


STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.text(max_size=4), st.sampled_from([None, None, "stop", "length"])),
    max_size=20,
)


@settings(deadline=None, max_examples=60)
@given(steps=STEPS)
def test_whole_choices_are_the_sum_of_their_steps(steps):
    gathered = generate.Gathered(3)

    for index, text, finish in steps:
        gathered.add(Chunk((Delta(text, index, finish),)))

    for delta in gathered.deltas():
        mine = [(text, finish) for index, text, finish in steps if index == delta.index]
        assert delta.text == "".join(text for text, _ in mine)
        ends = [finish for _, finish in mine if finish]
        assert delta.finish_reason == (ends[-1] if ends else "stop")


def test_an_index_that_nobody_asked_for_is_passed_over():
    gathered = generate.Gathered(1)

    gathered.add(Chunk((Delta("x", 5), Delta("y", 0))))

    assert gathered.texts == [["y"]]


def test_log_probabilities_of_the_steps_are_joined():
    gathered = generate.Gathered(1)
    for token in ("a", "b"):
        raw = msgspec.Raw(json.dumps({"content": [{"token": token, "logprob": -0.5}]}).encode())
        gathered.add(Chunk((Delta(token, 0, None, raw),)))

    (delta,) = gathered.deltas()

    assert [step["token"] for step in json.loads(bytes(delta.logprobs))["content"]] == ["a", "b"]


@pytest.mark.parametrize("raw", [b'{"tokens":["a"]}', b"{}"])
def test_log_probabilities_of_another_shape_are_those_of_the_last_step(raw: bytes):
    gathered = generate.Gathered(1)
    for _ in range(2):
        gathered.add(Chunk((Delta("a", 0, None, msgspec.Raw(raw)),)))

    assert gathered.deltas()[0].logprobs == msgspec.Raw(raw)


@pytest.mark.parametrize("raw", [b"[1]", b'"x"', b'{"content":3}', b"7"])
def test_log_probabilities_that_cannot_be_read_are_the_engines_fault(raw: bytes):
    gathered = generate.Gathered(1)
    for _ in range(2):
        gathered.add(Chunk((Delta("a", 0, None, msgspec.Raw(raw)),)))

    with pytest.raises(UpstreamError):
        gathered.deltas()


def test_a_stream_holds_no_log_probabilities():
    gathered = generate.Gathered(1, with_logprobs=False)
    gathered.add(Chunk((Delta("a", 0, None, msgspec.Raw(b'{"content":[]}')),)))

    assert gathered.deltas()[0].logprobs is None


def test_usage_is_counted_where_the_engine_gives_none():
    gathered = generate.Gathered(1)
    for text in ("a", "b", ""):
        gathered.add(Chunk((Delta(text),)))

    assert gathered.counted() == Usage(0, 2, 0)
