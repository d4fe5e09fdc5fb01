"""The page of OpenAI's protocol has a true word on every field of its client's types."""

import json
from typing import Any, get_args

import pytest
from msgspec import Raw
from openai import types
from openai.types import chat, moderation
from openai.types.chat import (
    chat_completion,
    chat_completion_chunk,
    chat_completion_content_part_image_param,
    chat_completion_content_part_input_audio_param,
    chat_completion_content_part_param,
    chat_completion_message_function_tool_call_param,
)
from openai.types.chat.completion_create_params import CompletionCreateParamsBase as ChatParams
from openai.types.completion_create_params import CompletionCreateParamsBase as PlainParams
from openai.types.shared_params import FunctionDefinition

from pilothouse.domain.chat import Aside, Embeddings, ToolCall
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import InvalidRequest, NotSupported
from pilothouse.domain.used_tokens import Usage
from pilothouse.wire.openai import answers, completions, inbound
from pilothouse.wire.openai.moderation import CATEGORIES, Moderations
from pilothouse.wire.openai.reference import ANSWERS, REQUESTS, Table
from pilothouse.wire.openai.reference_parts import PARTS

BEYOND = {"top_k", "min_p", "stream", "reasoning_content"}
"""Of a request: ours, and what the client has in types of its own."""
NESTED: dict[str, Any] = {
    "ImageURL": chat_completion_content_part_image_param.ImageURL,
    "InputAudio": chat_completion_content_part_input_audio_param.InputAudio,
    "File": chat_completion_content_part_param.File,
    "FileFile": chat_completion_content_part_param.FileFile,
    "Function": chat_completion_message_function_tool_call_param.Function,
    "FunctionDefinition": FunctionDefinition,
}
"""Types within a chat that the client keeps in their own modules."""
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


def named(title: str) -> str:
    return title.rpartition("`")[0].rpartition("`")[2]


@pytest.mark.parametrize("title", PARTS)
def test_every_field_within_a_chat_has_its_mark(title: str) -> None:
    shape = NESTED.get(named(title)) or getattr(chat, named(title))

    assert set(PARTS[title]) - BEYOND == set(shape.__annotations__) - BEYOND


UNIONS: list[Any] = [
    chat.ChatCompletionMessageParam,
    chat.ChatCompletionContentPartParam,
    chat.ChatCompletionMessageToolCallUnionParam,
    chat.ChatCompletionToolUnionParam,
    chat.ChatCompletionToolChoiceOptionParam,
]


@pytest.mark.parametrize("union", UNIONS)
def test_every_kind_of_what_stands_in_a_chat_has_its_table(union: Any) -> None:
    kinds = {kind.__name__ for kind in get_args(union) if isinstance(kind, type)}

    assert kinds
    assert kinds <= set(map(named, PARTS))


@pytest.mark.parametrize(("title", "shape"), list(zip(ANSWERS, SHAPES, strict=True)))
def test_every_field_of_an_answer_has_its_mark(title: str, shape: Any) -> None:
    names = {field.alias or name for name, field in shape.model_fields.items()}

    assert set(ANSWERS[title]) == names


def test_nothing_is_refused_or_left_out_without_a_word() -> None:
    silent = {
        (title, name)
        for title, table in {**REQUESTS, **PARTS, **ANSWERS}.items()
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


USER: dict[str, Any] = {"role": "user", "content": "x"}
CALL: dict[str, Any] = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "f"}}
TEXT: dict[str, Any] = {"type": "text", "text": "x"}
PICTURE: dict[str, Any] = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
SOUND: dict[str, Any] = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}
FILE: dict[str, Any] = {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA=="}}
AT: dict[str, Any] = {"mode": "explicit"}


def said(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


REFUSED_WITHIN: dict[str, tuple[dict[str, Any], str]] = {
    "audio": ({"messages": [{"role": "assistant", "content": "x", "audio": {"id": "a"}}]}, "messages[0]"),
    "function_call": (
        {"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}]},
        "messages[0]",
    ),
    "function message": ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages[0]"),
    "breakpoint of a text": (said({**TEXT, "prompt_cache_breakpoint": AT}), "messages[0].content[0]"),
    "breakpoint of a picture": (said({**PICTURE, "prompt_cache_breakpoint": AT}), "messages[0].content[0]"),
    "breakpoint of a sound": (said({**SOUND, "prompt_cache_breakpoint": AT}), "messages[0].content[0]"),
    "breakpoint of a file": (said({**FILE, "prompt_cache_breakpoint": AT}), "messages[0].content[0]"),
    "custom call": (
        {
            "messages": [
                {"role": "assistant", "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "f"}}]}
            ]
        },
        "messages[0].tool_calls[0]",
    ),
    "custom tool": ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0]"),
    "custom choice": (
        {"tools": [TOOL], "tool_choice": {"type": "custom", "custom": {"name": "f"}}},
        "tool_choice",
    ),
    "some of the tools": (
        {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}},
        "tool_choice",
    ),
}


@pytest.mark.parametrize("what", REFUSED_WITHIN)
def test_what_the_page_refuses_within_a_chat_is_refused_by_its_place(what: str) -> None:
    fields, place = REFUSED_WITHIN[what]

    with pytest.raises(InvalidRequest) as caught:
        inbound.read_chat(json.dumps({"model": "m", "messages": [USER], **fields}).encode())

    assert (caught.value.param or "").startswith(place)


def test_what_the_page_says_is_taken_within_a_chat_is() -> None:
    fields = {
        "tools": [{"type": "function", "function": {"name": "f", "description": "d", "strict": True}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "messages": [
            {"role": "developer", "content": [TEXT], "name": "n"},
            {"role": "system", "content": "x", "name": "n"},
            {"role": "user", "content": [TEXT, PICTURE, SOUND, FILE], "name": "n"},
            {"role": "assistant", "content": [TEXT, {"type": "refusal", "refusal": "no"}], "name": "n"},
            {"role": "assistant", "content": None, "refusal": "no", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c", "content": [TEXT]},
        ],
    }

    ask = inbound.read_chat(json.dumps({"model": "m", **fields}).encode())

    assert json.loads(bytes(ask.prompt)) == fields["messages"]
    assert ask.needs == {"tools", "image", "audio", "file"}


def test_an_answer_that_a_client_sends_back_with_all_of_its_fields_is_taken() -> None:
    """As `model_dump()` of OpenAI's client writes it."""
    ask = inbound.read_chat(json.dumps({"model": "m", "messages": [USER]}).encode())
    written = answers.write_whole(ask, [Delta("a", 0, "stop")], Usage(), answer_id="i", created=1)
    dumped = chat.ChatCompletion.model_validate_json(written).choices[0].message.model_dump()
    assert {"audio", "function_call", "annotations"} <= set(dumped)

    again = inbound.read_chat(json.dumps({"model": "m", "messages": [USER, dumped, USER]}).encode())

    assert json.loads(bytes(again.prompt))[1] == {"role": "assistant", "content": "a"}
