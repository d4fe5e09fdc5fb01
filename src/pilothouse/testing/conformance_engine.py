"""
What every Engine does, whatever runs behind it.

Subclass `EngineConformance` in a test file and give it the fixture `lab`, an
`EngineLab`. Engines that also answer whole add `WholeConformance`, engines that
give vectors have `EmbeddingConformance`.
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

import msgspec
import pytest

from pilothouse.domain.chat import EmbedRequest, Sampling
from pilothouse.domain.chunk import Chunk
from pilothouse.domain.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineUnavailable,
    NotSupported,
    PilothouseError,
)
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.used_tokens import Usage
from pilothouse.ports.engine import KEEPS_ALL, Engine, Placement, Promise

DEADLINE_S = 60.0
FREE_AGAIN_S = 1.0
"""How soon a slot is free when its reader is gone, as the port has it."""
LOOK_S = 0.01
ANYWHERE = Placement()


class EngineLab(Protocol):
    """
    An engine with at least two places and a context of `context_tokens`.

    One that says many hundreds of tokens a second has a `pace` above 1: how many
    times longer an answer must be that somebody hangs up on.
    `long_words`, where it is there, is how many words nearly fill that context; half as many
    as there are tokens will do where a word is one or two.
    """

    engine: Engine
    context_tokens: int

    def dead(self) -> Engine:
        """An engine of the same kind where nobody listens."""
        ...


def ask(prompt: object = "One, two, three, four,", **changes: Any) -> GenerateRequest:
    """A greedy completion of at most 8 tokens."""
    sampling = {name: changes.pop(name) for name in Sampling.__struct_fields__ if name in changes}
    text = msgspec.json.encode(prompt)
    fields: dict[str, Any] = {"max_tokens": 8, "stream": True}
    return GenerateRequest("completion", "m", msgspec.Raw(text), len(text)).changed(
        **fields | changes, sampling=Sampling(**{"temperature": 0.0} | sampling)
    )


async def answer(engine: Engine, request: GenerateRequest, *, placement: Placement = ANYWHERE) -> list[Chunk]:
    stream = engine.stream(request, placement, deadline_s=DEADLINE_S)
    async with aclosing(stream):
        return [chunk async for chunk in stream]


def text_of(chunks: list[Chunk], index: int = 0) -> str:
    return "".join(delta.text for chunk in chunks for delta in chunk.deltas if delta.index == index)


def ends_of(chunks: list[Chunk]) -> dict[int, str]:
    return {d.index: d.finish_reason for chunk in chunks for d in chunk.deltas if d.finish_reason}


def usage_of(chunks: list[Chunk]) -> Usage:
    (usage,) = [chunk.usage for chunk in chunks if chunk.usage is not None]
    return usage


async def running(engine: Engine, condition: Callable[[int], bool], *, timeout_s: float) -> float:
    """Wait until that many requests run; the seconds that it took, or a failed test."""
    began = time.monotonic()
    while not condition(found := (await engine.load()).running):
        took_s = time.monotonic() - began
        assert took_s < timeout_s, f"after {took_s:.2f} s {found} requests run"
        await asyncio.sleep(LOOK_S)
    return time.monotonic() - began


PROMISES: dict[Promise, str] = {
    "completion": "a prompt is answered as it is",
    "chat": "a chat is answered by the model's own template",
    "pieces": "answers come in pieces, each saying something",
    "usage": "the last piece has the true counts of tokens",
    "limit": "`max_tokens` ends the answer",
    "stop": "a stop text ends the answer before it",
    "seed": "the same seed gives the same answer",
    "unicode": "no character is cut in two",
    "too_long": "a prompt that is too long is refused with both counts, and the next one is answered",
    "side_by_side": "several requests are answered at once",
    "queue": "more requests than places are all answered",
    "cancel": "a hang-up frees the place within 1 s",
    "cancel_prompt": "so it does while the prompt is read",
    "deadline": "an answer that takes too long is cut with a typed error",
    "health": "healthy means that a token came",
    "dead": "nobody there is a typed error",
    "no_vectors": "vectors of a text model are refused by name",
}
"""What the suite tries, in words for the reference."""
_Test = TypeVar("_Test", bound=Callable[..., object])


def tries(promise: Promise) -> Callable[[_Test], _Test]:
    def named(test: _Test) -> _Test:
        test.promise = promise  # type: ignore[attr-defined]
        return test

    return named


class EngineConformance:
    """A lab's `cannot` says what its engine does not keep; the reason stands in the reference."""

    @pytest.fixture(autouse=True)
    def _only_what_it_promises(self, request: pytest.FixtureRequest) -> None:
        promise = getattr(request.function, "promise", None)
        if promise is None:
            return
        cannot: Mapping[Promise, str] = getattr(request.getfixturevalue("lab"), "cannot", KEEPS_ALL)
        if promise in cannot:
            pytest.skip(cannot[promise])

    @tries("completion")
    async def test_a_completion_is_answered(self, lab: EngineLab) -> None:
        chunks = await answer(lab.engine, ask())

        assert text_of(chunks)
        assert ends_of(chunks)[0] in ("stop", "length")

    @tries("chat")
    async def test_a_chat_is_answered(self, lab: EngineLab) -> None:
        messages = [{"role": "user", "content": "Say something."}]

        chunks = await answer(lab.engine, ask(messages, kind="chat"))

        assert text_of(chunks)
        assert ends_of(chunks)[0] in ("stop", "length")

    @tries("pieces")
    async def test_the_answer_comes_in_pieces_each_saying_something(self, lab: EngineLab) -> None:
        chunks = await answer(lab.engine, ask())

        assert sum(bool(delta.text) for chunk in chunks for delta in chunk.deltas) > 1
        for chunk in chunks:
            assert chunk.usage or any(d.text or d.finish_reason or d.logprobs for d in chunk.deltas)

    @tries("usage")
    async def test_the_last_chunk_carries_the_usage(self, lab: EngineLab) -> None:
        chunks = await answer(lab.engine, ask(max_tokens=5))

        assert chunks[-1].usage is not None
        usage = usage_of(chunks)
        assert 1 < usage.input < 20
        assert 0 < usage.output <= 5
        assert 0 <= usage.cached <= usage.input

    @tries("limit")
    async def test_the_limit_of_tokens_ends_the_answer(self, lab: EngineLab) -> None:
        chunks = await answer(lab.engine, ask(max_tokens=3))

        assert ends_of(chunks) == {0: "length"}
        assert usage_of(chunks).output == 3

    @tries("stop")
    async def test_a_stop_text_ends_the_answer_before_it(self, lab: EngineLab) -> None:
        unstopped = text_of(await answer(lab.engine, ask(max_tokens=8)))
        stop = unstopped[len(unstopped) // 2 :][:4]

        chunks = await answer(lab.engine, ask(max_tokens=8, stop=[stop]))

        assert text_of(chunks) == unstopped[: unstopped.index(stop)]
        assert ends_of(chunks) == {0: "stop"}

    @tries("seed")
    async def test_the_same_seed_gives_the_same_answer(self, lab: EngineLab) -> None:
        def request(seed: int) -> GenerateRequest:
            return ask("Once upon a time", temperature=1.5, seed=seed, max_tokens=12)

        texts = [text_of(await answer(lab.engine, request(seed))) for seed in (7, 7, 8)]

        assert texts[0] == texts[1]
        assert texts[0] != texts[2]

    @tries("unicode")
    async def test_text_beyond_ascii_arrives_whole(self, lab: EngineLab) -> None:
        chunks = await answer(lab.engine, ask("Grüße, naïve café, 東京, 🚢", max_tokens=12))

        text_of(chunks).encode()

    @tries("too_long")
    async def test_a_prompt_that_is_too_long_is_refused_with_both_counts(self, lab: EngineLab) -> None:
        words = lab.context_tokens * 2

        with pytest.raises(ContextLengthExceeded) as refused:
            await answer(lab.engine, ask("sea " * words))

        numbers = [int(word) for word in refused.value.message.replace(";", " ").split() if word.isdigit()]
        assert lab.context_tokens in numbers
        assert any(number >= words for number in numbers)

    @tries("too_long")
    async def test_after_a_refusal_it_still_answers(self, lab: EngineLab) -> None:
        with pytest.raises(PilothouseError):
            await answer(lab.engine, ask("sea " * lab.context_tokens * 2))

        assert text_of(await answer(lab.engine, ask()))

    @tries("side_by_side")
    async def test_requests_are_answered_side_by_side(self, lab: EngineLab) -> None:
        requests = [ask(f"Count with me: {i},", max_tokens=24 * _pace(lab)) for i in range(2)]

        tasks = [asyncio.create_task(answer(lab.engine, request)) for request in requests]
        await running(lab.engine, lambda count: count == 2, timeout_s=DEADLINE_S)
        answers = await asyncio.gather(*tasks)

        assert all(text_of(chunks) for chunks in answers)
        await running(lab.engine, lambda count: count == 0, timeout_s=FREE_AGAIN_S)

    @tries("queue")
    async def test_more_requests_than_places_are_all_answered(self, lab: EngineLab) -> None:
        answers = await asyncio.gather(
            *(answer(lab.engine, ask(f"Number {i}:", max_tokens=2)) for i in range(8))
        )

        assert all(ends_of(chunks) for chunks in answers)

    @tries("cancel")
    async def test_closing_the_stream_frees_the_slot(self, lab: EngineLab) -> None:
        stream = lab.engine.stream(_long(lab), ANYWHERE, deadline_s=DEADLINE_S)
        await anext(stream)
        await running(lab.engine, lambda count: count == 1, timeout_s=FREE_AGAIN_S)

        await stream.aclose()

        await running(lab.engine, lambda count: count == 0, timeout_s=FREE_AGAIN_S)

    @tries("cancel")
    async def test_cancelling_the_reader_frees_the_slot(self, lab: EngineLab) -> None:
        has_begun = asyncio.Event()

        async def read() -> None:
            async for _ in lab.engine.stream(_long(lab), ANYWHERE, deadline_s=DEADLINE_S):
                has_begun.set()

        reading = asyncio.create_task(read())
        await asyncio.wait_for(has_begun.wait(), DEADLINE_S)

        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)

        await running(lab.engine, lambda count: count == 0, timeout_s=FREE_AGAIN_S)

    @tries("cancel_prompt")
    async def test_cancelling_while_the_prompt_is_read_frees_the_slot(self, lab: EngineLab) -> None:
        """Within a second, or on a machine too slow for that, long before the prompt is read."""
        words = "sea " * getattr(lab, "long_words", lab.context_tokens // 2)
        began = time.monotonic()
        await answer(lab.engine, ask("First: " + words, max_tokens=1))
        read_s = time.monotonic() - began
        reading = asyncio.create_task(answer(lab.engine, ask("Then: " + words, max_tokens=1)))
        await running(lab.engine, lambda count: count == 1, timeout_s=DEADLINE_S)

        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)

        await running(lab.engine, lambda count: count == 0, timeout_s=max(FREE_AGAIN_S, 0.6 * read_s))

    @tries("deadline")
    async def test_an_answer_that_takes_too_long_is_cut_and_frees_the_slot(self, lab: EngineLab) -> None:
        began = time.monotonic()

        with pytest.raises(DeadlineExceeded):
            async for _ in lab.engine.stream(_long(lab), ANYWHERE, deadline_s=1.0):
                pass

        assert time.monotonic() - began < 1.0 + FREE_AGAIN_S
        await running(lab.engine, lambda count: count == 0, timeout_s=FREE_AGAIN_S)

    @tries("health")
    async def test_health_is_a_token(self, lab: EngineLab) -> None:
        health = await lab.engine.health(deadline_s=DEADLINE_S)

        assert health.ok
        assert health.reason == ""

    @tries("dead")
    async def test_nobody_there_is_unavailable_and_not_healthy(self, lab: EngineLab) -> None:
        dead = lab.dead()

        with pytest.raises(EngineUnavailable):
            await answer(dead, ask())
        with pytest.raises(EngineUnavailable):
            await dead.load()
        health = await dead.health(deadline_s=5.0)
        await dead.aclose()

        assert not health.ok
        assert health.reason

    @tries("no_vectors")
    async def test_a_model_of_text_gives_no_vectors(self, lab: EngineLab) -> None:
        with pytest.raises(NotSupported):
            await lab.engine.embed(EmbedRequest(endpoint="m", inputs=["x"]), deadline_s=DEADLINE_S)


class WholeConformance:
    """For engines whose `info.whole` is true."""

    async def test_a_whole_answer_is_the_streamed_one_at_once(self, lab: EngineLab) -> None:
        streamed = await answer(lab.engine, ask())

        whole = await lab.engine.complete(ask(stream=False), ANYWHERE, deadline_s=DEADLINE_S)

        assert lab.engine.info.whole
        assert text_of([whole]) == text_of(streamed)
        assert ends_of([whole]) == ends_of(streamed)
        assert whole.usage == usage_of(streamed)

    async def test_several_choices_come_in_one_answer(self, lab: EngineLab) -> None:
        whole = await lab.engine.complete(ask(choices=2), ANYWHERE, deadline_s=DEADLINE_S)

        assert sorted(ends_of([whole])) == [0, 1]


class EmbeddingConformance:
    """For engines whose model gives vectors."""

    async def test_texts_become_vectors_of_one_size_in_their_order(self, lab: EngineLab) -> None:
        texts = ["a cat", "a kitten", "the stock market"]

        together = await lab.engine.embed(EmbedRequest(endpoint="m", inputs=texts), deadline_s=DEADLINE_S)
        alone = await lab.engine.embed(EmbedRequest(endpoint="m", inputs=[texts[2]]), deadline_s=DEADLINE_S)

        assert len({len(vector) for vector in together.vectors}) == 1
        assert _cosine(together.vectors[2], alone.vectors[0]) > 0.999
        assert _cosine(together.vectors[0], together.vectors[2]) < 0.9
        assert together.usage.input > alone.usage.input > 0

    async def test_health_is_a_vector(self, lab: EngineLab) -> None:
        assert (await lab.engine.health(deadline_s=DEADLINE_S)).ok

    async def test_a_model_of_vectors_says_no_text(self, lab: EngineLab) -> None:
        with pytest.raises(NotSupported):
            await answer(lab.engine, ask())


def _long(lab: EngineLab) -> GenerateRequest:
    """An answer that goes on for seconds."""
    return ask("One, two, three, four, five, six, seven, eight, nine,", max_tokens=400 * _pace(lab))


def _pace(lab: EngineLab) -> int:
    return getattr(lab, "pace", 1)


def _cosine(one: list[float], other: list[float]) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))
