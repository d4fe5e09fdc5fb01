"""Completions that llama.cpp's server does not do by itself: scored prompts, token ids, biases."""

import json
from typing import Any

import msgspec
import pytest

from engine_home import Home, connected, launch_of, ready
from pilothouse.adapters.engines._openai_http import OpenAIEngine
from pilothouse.domain.chunk import Chunk
from pilothouse.domain.errors import InvalidRequest
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.ports.engine import Placement
from pilothouse.testing.conformance_engine import text_of, usage_of
from pilothouse.wire.openai.completions import read_completion

pytestmark = pytest.mark.engine

TEXT = "The capital of France is Paris."


def asked(**fields: Any) -> GenerateRequest:
    return read_completion(json.dumps({"model": "m", "temperature": 0, **fields}).encode())


async def said(engine: OpenAIEngine, **fields: Any) -> list[Chunk]:
    stream = engine.stream(asked(**fields), Placement(0), deadline_s=60.0)
    return [chunk async for chunk in stream]


def lists(chunks: list[Chunk]) -> dict[str, list[Any]]:
    """The log probabilities of all pieces."""
    found: dict[str, list[Any]] = {}
    for chunk in chunks:
        for delta in chunk.deltas:
            if delta.logprobs is not None:
                for name, values in msgspec.json.decode(delta.logprobs).items():
                    found.setdefault(name, []).extend(values or [])
    return found


@pytest.fixture
async def engine(home: Home, smollm2: Any) -> Any:
    replica = await home.start(launch_of(smollm2))
    await ready(home, replica)
    made = connected(replica)
    yield made
    await made.aclose()


async def test_completions(engine: OpenAIEngine) -> None:
    """One start of the engine for all of it: that is what takes the time."""
    await _a_prompt_is_scored_as_the_model_would_have_said_it(engine)
    await _token_ids_are_read_as_the_text_is(engine)
    await _the_prompt_alone_is_scored_where_nothing_is_to_be_said(engine)
    await _without_logprobs_the_prompt_only_stands_before_the_answer(engine)
    await _what_ends_a_text_or_is_no_token_is_the_callers_mistake(engine)
    await _a_biased_token_is_said(engine)


async def _a_prompt_is_scored_as_the_model_would_have_said_it(engine: OpenAIEngine) -> None:
    chunks = await said(engine, prompt=TEXT, max_tokens=1, echo=True, logprobs=1)

    scored = lists(chunks)
    assert "".join(scored["tokens"]) == text_of(chunks)
    assert text_of(chunks).startswith(TEXT)
    assert scored["text_offset"][:3] == [0, 3, 11]
    assert scored["token_logprobs"][0] is scored["top_logprobs"][0] is None
    usage = usage_of(chunks)
    assert (usage.input, usage.output) == (len(scored["tokens"]) - 1, 1)
    for place in (4, 5, 6):  # what the model itself finds likely there, asked in the usual way
        before = "".join(scored["tokens"][:place])
        (top,) = lists(await said(engine, prompt=before, max_tokens=1, logprobs=5))["top_logprobs"]
        assert scored["token_logprobs"][place] == pytest.approx(top[scored["tokens"][place]], abs=1e-3)


async def _token_ids_are_read_as_the_text_is(engine: OpenAIEngine) -> None:
    body = json.dumps({"content": TEXT, "add_special": True}).encode()
    ids = (await engine._ask_aside("/tokenize", body, dict[str, list[int]], deadline_s=10.0))["tokens"]

    by_text = await said(engine, prompt=TEXT, max_tokens=2, echo=True, logprobs=2)
    by_ids = await said(engine, prompt=ids, max_tokens=2, echo=True, logprobs=2)

    assert text_of(by_ids) == text_of(by_text)
    assert lists(by_ids)["tokens"] == lists(by_text)["tokens"]


async def _the_prompt_alone_is_scored_where_nothing_is_to_be_said(engine: OpenAIEngine) -> None:
    chunks = await said(engine, prompt=TEXT, max_tokens=0, echo=True, logprobs=0)

    assert text_of(chunks) == TEXT
    assert lists(chunks)["top_logprobs"] == []
    assert usage_of(chunks).output == 0
    assert chunks[-1].deltas[0].finish_reason == "length"


async def _without_logprobs_the_prompt_only_stands_before_the_answer(engine: OpenAIEngine) -> None:
    alone = text_of(await said(engine, prompt=TEXT, max_tokens=3))

    assert text_of(await said(engine, prompt=TEXT, max_tokens=3, echo=True)) == TEXT + alone


async def _what_ends_a_text_or_is_no_token_is_the_callers_mistake(engine: OpenAIEngine) -> None:
    for ids in ([504, 2, 282], [504, 999_999, 282]):
        with pytest.raises(InvalidRequest) as caught:
            await said(engine, prompt=ids, max_tokens=1, echo=True, logprobs=1)
        assert caught.value.param == "prompt"
    assert (await engine.health(deadline_s=30.0)).ok


async def _a_biased_token_is_said(engine: OpenAIEngine) -> None:
    chunks = await said(engine, prompt="Hello", max_tokens=2, logit_bias={"7042": 100})

    assert text_of(chunks) == " Paris Paris"
