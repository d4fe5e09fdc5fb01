"""The page of OpenAI's protocol has a true word on every field of its client's types."""

import json
from typing import Any

import pytest
from msgspec import Raw
from openai import types
from openai.types import chat, moderation
from openai.types.chat import chat_completion, chat_completion_chunk
from openai.types.chat.completion_create_params import CompletionCreateParamsBase as ChatParams
from openai.types.completion_create_params import CompletionCreateParamsBase as PlainParams

from pilothouse.domain.chat import Aside, Chunk, Delta, Embeddings, ToolCall, Usage
from pilothouse.domain.errors import InvalidRequest, NotSupported
from pilothouse.wire.openai import answers, completions, inbound
from pilothouse.wire.openai.moderation import CATEGORIES, Moderations
from pilothouse.wire.openai.reference import ANSWERS, REQUESTS, Table

BEYOND = {"top_k", "min_p", "stream"}
"""Of a request: ours, and what the client has in types of its own."""
PARAMS: list[Any] = [
    ChatParams,
    PlainParams,
    types.EmbeddingCreateParams,
    types.ModerationCreateParams,
    types.FileCreateParams,
    types.BatchCreateParams,
]
SHAPES: list[Any] = [
    chat.ChatCompletion,
    chat_completion.Choice,
    chat.ChatCompletionMessage,
    chat.ChatCompletionChunk,
    chat_completion_chunk.Choice,
    chat_completion_chunk.ChoiceDelta,
    types.CompletionUsage,
    types.Completion,
    types.CompletionChoice,
    types.CreateEmbeddingResponse,
    types.Embedding,
    types.ModerationCreateResponse,
    types.Moderation,
    moderation.Categories,
    types.FileObject,
    types.Batch,
    types.Model,
]


@pytest.mark.parametrize(("title", "params"), list(zip(REQUESTS, PARAMS, strict=True)))
def test_every_field_of_a_request_has_its_mark(title: str, params: Any) -> None:
    assert set(REQUESTS[title]) - BEYOND == set(params.__annotations__) - BEYOND


@pytest.mark.parametrize(("title", "shape"), list(zip(ANSWERS, SHAPES, strict=True)))
def test_every_field_of_an_answer_has_its_mark(title: str, shape: Any) -> None:
    names = {field.alias or name for name, field in shape.model_fields.items()}

    assert set(ANSWERS[title]) == names


def test_nothing_is_refused_or_left_out_without_a_word() -> None:
    silent = {
        (title, name)
        for title, table in {**REQUESTS, **ANSWERS}.items()
        for name, (mark, note) in table.items()
        if mark in ("refused", "not given") and not note
    }

    assert silent == set()


def given(table: Table) -> set[str]:
    return {name for name, (mark, _) in table.items() if mark == "yes"}


def table(part: str) -> set[str]:
    (found,) = [given(rows) for title, rows in ANSWERS.items() if part in title]
    return found


def test_what_the_page_calls_given_stands_in_answers() -> None:
    ask = inbound.read_chat(
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true,'
        b'"stream_options":{"include_usage":true}}'
    )
    rich = Delta("a", 0, "stop", Raw(b'{"content":[]}'), Aside("r", "no", (ToolCall(0, "c", "f", "{}"),)))
    whole = json.loads(answers.write_whole(ask, [rich], Usage(1, 2, 1), answer_id="i", created=1))
    writer = answers.StreamWriter(ask, answer_id="i", created=1)
    stream = writer.chunk(Chunk((rich,))) + writer.end(Usage(1, 2, 1))
    events = [json.loads(line[6:]) for line in stream.decode().splitlines() if line.startswith("data: {")]
    deltas: set[str] = {name for event in events for one in event["choices"] for name in one["delta"]}

    assert table("(`ChatCompletion`)") == set(whole)
    assert table("(`Choice`)") == set(whole["choices"][0])
    assert table("`ChatCompletionMessage`") == set(whole["choices"][0]["message"]) - {"reasoning_content"}
    assert table("`ChatCompletionChunk`") == set(events[-1])
    assert table("`Choice` of a chunk") == set(events[0]["choices"][0])
    assert table("`ChoiceDelta`") == deltas - {"reasoning_content"}
    assert table("`CompletionUsage`") == set(whole["usage"])


def test_so_it_is_for_the_other_routes() -> None:
    ask = completions.read_completion(b'{"model":"m","prompt":"x"}')
    plain = json.loads(answers.write_whole(ask, [Delta("a")], Usage(1, 2), answer_id="i", created=1))
    vectors = json.loads(answers.write_embeddings(Embeddings([[0.5]], Usage(1)), endpoint="m", base64=False))
    judge = Moderations("m")
    asked = judge.read(b'{"input":"x"}')
    verdict = Delta(json.dumps(dict.fromkeys(CATEGORIES, False)), 0, "stop")
    judged = json.loads(judge.whole(asked, [verdict], Usage(), answer_id="i", created=1))

    assert table("(`Completion`)") == set(plain)
    assert table("`CompletionChoice`") == set(plain["choices"][0])
    assert table("`CreateEmbeddingResponse`") == set(vectors)
    assert table("(`Embedding`)") == set(vectors["data"][0])
    assert table("`ModerationCreateResponse`") == set(judged)
    assert table("(`Moderation`)") == set(judged["results"][0])
    assert table("(`Model`)") == set(json.loads(answers.write_model("m", 1)))


READS: dict[str, Any] = {
    "chat": (inbound.read_chat, {"messages": [{"role": "user", "content": "x"}]}),
    "completions: request": (completions.read_completion, {"prompt": "x"}),
    "embeddings: request": (inbound.read_embed, {"input": "x"}),
}


@pytest.mark.parametrize("route", READS)
def test_what_the_page_calls_refused_is_refused_by_its_name(route: str) -> None:
    read, needed = READS[route]
    (rows,) = [rows for title, rows in REQUESTS.items() if title.startswith(route)]
    for name in [name for name, (mark, _) in rows.items() if mark == "refused"]:
        with pytest.raises((NotSupported, InvalidRequest)) as caught:
            read(json.dumps({"model": "m", **needed, name: 3}).encode())
        assert caught.value.param == name
