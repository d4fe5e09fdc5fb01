"""What clients send: carried, dropped, or refused by name; never passed on unseen."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from openai.types import EmbeddingCreateParams
from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from openai.types.completion_create_params import CompletionCreateParamsBase as PlainParamsBase

from pilothouse.domain.chunk import Delta
from pilothouse.domain.errors import AnswerUnfit, InvalidRequest, NotSupported, PilothouseError
from pilothouse.wire.openai import formats, shapes
from pilothouse.wire.openai.completions import read_completion
from pilothouse.wire.openai.fields import Fates
from pilothouse.wire.openai.inbound import read_chat, read_embed
from pilothouse.wire.openai.shapes import CHAT_FATES, COMPLETION_FATES, EMBED_FATES

TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
MESSAGES = [{"role": "user", "content": "hi"}]


def status_of(read: Callable[[bytes], object], raw: bytes) -> int:
    """200, or the status of the typed error; any other exception fails the test."""
    try:
        read(raw)
    except PilothouseError as exc:
        return exc.status
    return 200


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": MESSAGES, **fields}).encode()


def test_a_plain_request_keeps_its_messages_byte_for_byte() -> None:
    raw = b'{"model":"m","messages":[ {"role":"user","content":"h\\u00e9"} ],"stop":"x","max_tokens":5}'

    ask = read_chat(raw)

    assert bytes(ask.prompt) == b'[ {"role":"user","content":"h\\u00e9"} ]'
    assert ask.sampling.stop == ["x"]
    assert ask.max_tokens == 5
    assert not ask.stream


SHAPING = {
    "temperature": 0.1,
    "top_p": 0.2,
    "top_k": 3,
    "min_p": 0.4,
    "seed": 5,
    "stop": ["6"],
    "frequency_penalty": 0.7,
    "presence_penalty": 0.8,
}


def test_every_field_of_a_chat_comes_to_its_place() -> None:
    of_a_chat = {"logprobs": True, "top_logprobs": 9, "response_format": {"type": "text"}, "tools": TOOLS}
    more = {"tool_choice": "auto", "parallel_tool_calls": False, "reasoning_effort": "low"}
    rest = {"stream": True, "stream_options": {"include_usage": True}, "n": 3, "store": False, "user": "u"}

    ask = read_chat(body(**SHAPING, **of_a_chat, **more, **rest, max_tokens=11))

    assert json.loads(msgspec.json.encode(ask.sampling)) == {**SHAPING, **of_a_chat, **more}
    assert (ask.kind, ask.endpoint, ask.max_tokens, ask.choices) == ("chat", "m", 11, 3)
    assert (ask.stream, ask.include_usage, ask.store, ask.subject) == (True, True, False, "u")


def test_every_field_of_a_completion_comes_to_its_place() -> None:
    rest = {"stream": True, "stream_options": {"include_usage": True}, "n": 3, "user": "u"}

    asked = {"model": "m", "prompt": "p", "logprobs": 4, "max_tokens": 11, **SHAPING, **rest}
    ask = read_completion(json.dumps(asked).encode())

    assert json.loads(msgspec.json.encode(ask.sampling)) == {**SHAPING, "logprobs": 4}
    assert (ask.kind, ask.endpoint, ask.max_tokens, ask.choices) == ("completion", "m", 11, 3)
    assert (ask.stream, ask.include_usage, ask.subject, bytes(ask.prompt)) == (True, True, "u", b'"p"')


def test_the_newer_name_of_max_tokens_works() -> None:
    assert read_chat(body(max_completion_tokens=7)).max_tokens == 7


def test_null_means_absent_as_sdks_send_it() -> None:
    ask = read_chat(body(temperature=None, stream=None, n=None, stop=None))

    assert ask.sampling.temperature is None
    assert ask.choices == 1


def test_harmless_fields_are_dropped() -> None:
    ask = read_chat(body(metadata={"a": "b"}, store=True, temperature=0.5))

    assert ask.sampling.temperature == 0.5


@pytest.mark.parametrize("name", sorted(CHAT_FATES.not_built))
def test_known_fields_that_are_not_built_are_refused_by_name(name: str) -> None:
    with pytest.raises(NotSupported) as caught:
        read_chat(body(**{name: []}))

    assert caught.value.param == name
    assert caught.value.status == 501


@pytest.mark.parametrize(
    "name", ["n_discard", "prompt_embeds", "chat_template", "id_slot", "cache_prompt", "lora", "grammar"]
)
def test_an_engines_own_fields_never_pass(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_chat(body(**{name: 1}))

    assert caught.value.param == name


@pytest.mark.parametrize(("name", "newer"), [("functions", "tools"), ("function_call", "tool_choice")])
def test_the_older_form_of_tools_is_refused_with_the_newer_one(name: str, newer: str) -> None:
    with pytest.raises(NotSupported, match=f"send {newer}, its newer form"):
        read_chat(body(**{name: []}))


def test_a_mistyped_field_gets_the_nearest_name() -> None:
    with pytest.raises(InvalidRequest, match="did you mean temperature"):
        read_chat(body(temprature=1))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 5}, "n"),
        ({"n": 0}, "n"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"seed": 2**70}, "seed"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "cache_prompt": True}]}, "messages[0]"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_completion_tokens"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"response_format": {"type": "poem"}}, "response_format.type"),
        ({"model": 3}, "model"),
        ({"metadata": {"a": 1}}, "metadata[...]"),
        ({"metadata": {"a": "x" * 513}}, "metadata[...]"),
        ({"metadata": {"x" * 65: "a"}}, "metadata"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
    ],
)
def test_a_bad_value_is_refused_with_its_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_chat(body(**fields))

    assert caught.value.param == param


def test_a_field_that_is_missing_is_named() -> None:
    with pytest.raises(InvalidRequest, match=r"^messages: is required$") as caught:
        read_chat(b'{"model": "m"}')

    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"not json",
        b"[]",
        b'"text"',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"temperature":NaN}',
        b'{"model":"m","messages":' + b"[" * 100_000,
        b'{"model":"m","response_format":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b'{"model":"m","messages":[{"role":"user","content":"\xff\xfe"}]}',
        b'{"model":"m"}',
    ],
)
def test_what_is_not_a_request_is_an_invalid_request(raw: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_chat(raw)


def test_what_a_model_must_be_able_to_read_is_said() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    sound = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}
    text = {"type": "text", "text": "x"}

    def needs(*parts: dict[str, Any], **fields: Any) -> frozenset[str]:
        return read_chat(body(messages=[{"role": "user", "content": list(parts)}], **fields)).needs

    assert needs(text) == frozenset()
    assert needs(text, image) == {"image"}
    assert needs(image, sound, tools=TOOLS) == {"image", "audio", "tools"}


CALLED = {
    "role": "assistant",
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
}


def test_tools_and_their_answers_are_carried() -> None:
    answer = {"role": "tool", "tool_call_id": "c1", "content": "blue"}

    ask = read_chat(
        body(
            messages=[*MESSAGES, CALLED, answer],
            tools=TOOLS,
            tool_choice="required",
            parallel_tool_calls=False,
            reasoning_effort="low",
        )
    )

    assert ask.sampling.tools is not None
    assert json.loads(bytes(ask.sampling.tools)) == TOOLS
    assert json.loads(bytes(ask.sampling.tool_choice or b"")) == "required"
    assert ask.sampling.parallel_tool_calls is False
    assert ask.sampling.reasoning_effort == "low"
    assert ask.prompt_bytes == len(bytes(ask.prompt)) + len(bytes(ask.sampling.tools))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant"}]}, "messages[0].content"),
        (
            {"messages": [{"role": "assistant", "tool_calls": CALLED["tool_calls"] * 2}]},
            "messages[0].tool_calls",
        ),
        ({"tools": []}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "other"}}},
            "tool_choice",
        ),
    ],
)
def test_tools_that_fit_nothing_are_refused_with_their_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_chat(body(**fields))

    assert caught.value.param == param


@settings(deadline=None, max_examples=300)
@given(raw=st.binary(max_size=200))
def test_any_bytes_give_a_request_or_a_typed_error(raw: bytes) -> None:
    for read in (read_chat, read_completion, read_embed):
        assert status_of(read, raw) in (200, 400, 501)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3)
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=300)
@given(
    fields=st.dictionaries(
        st.sampled_from(
            ["model", "messages", "n", "stop", "seed", "stream", "logprobs", "user", "x", "tools"]
        ),
        JSON_VALUES,
    )
)
def test_any_json_object_gives_a_request_or_a_typed_error(fields: dict[str, Any]) -> None:
    assert status_of(read_chat, json.dumps(fields).encode()) in (200, 400, 501)


def completion(prompt: Any, **fields: Any) -> bytes:
    return json.dumps({"model": "m", "prompt": prompt, **fields}).encode()


@pytest.mark.parametrize(
    ("prompt", "carried", "count", "needs"),
    [
        ("once upon", "once upon", 1, set()),
        (["once upon"], "once upon", 1, set()),
        (["a", "b"], ["a", "b"], 2, set()),
        ([1, 2], [1, 2], 1, {"token_ids"}),
        ([[1, 2]], [1, 2], 1, {"token_ids"}),
        ([[1], [2, 3]], [[1], [2, 3]], 2, {"token_ids"}),
    ],
)
def test_a_completion_takes_texts_or_token_ids(
    prompt: Any, carried: Any, count: int, needs: set[str]
) -> None:
    ask = read_completion(completion(prompt, n=2, logprobs=2))

    assert json.loads(bytes(ask.prompt)) == carried
    assert (ask.prompts, ask.choices, ask.sampling.logprobs) == (count, 2 * count, 2)
    assert ask.needs == needs


@pytest.mark.parametrize(
    ("prompt", "fields", "param"),
    [
        ("", {}, "prompt"),
        ([], {}, "prompt"),
        (["a", ""], {}, "prompt"),
        ([[1], []], {}, "prompt"),
        (["a", 1], {}, "prompt"),
        ([[1], 2], {}, "prompt"),
        ([-1], {}, "prompt[0]"),
        (["a"] * 65, {}, "prompt"),
        ("a", {"max_tokens": 0}, "max_tokens"),
        ("a", {"logit_bias": {"word": 1}}, "logit_bias"),
        ("a", {"logit_bias": {"5": 101}}, "logit_bias[...]"),
        ("a", {"best_of": 3}, "best_of"),
        ("a", {"suffix": "b"}, "suffix"),
    ],
)
def test_a_completion_that_cannot_be_carried_is_refused_with_its_field(
    prompt: Any, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises((InvalidRequest, NotSupported)) as caught:
        read_completion(completion(prompt, **fields))

    assert caught.value.param == param


def test_a_prompt_is_repeated_where_that_is_asked_for() -> None:
    ask = read_completion(completion("a", echo=True, max_tokens=0, best_of=1))

    assert ask.with_prompt
    assert ask.needs == {"echo"}
    assert ask.max_tokens == 0


def test_biases_are_carried_to_engines_that_take_them() -> None:
    ask = read_chat(body(logit_bias={"15": -100, "7": 2.5}))

    assert json.loads(bytes(ask.sampling.logit_bias or b"")) == {"15": -100, "7": 2.5}
    assert ask.needs == {"logit_bias"}
    assert read_chat(body(logit_bias={})) == read_chat(body())


def test_embedding_input_is_one_text_or_a_list() -> None:
    assert read_embed(b'{"model":"m","input":"a"}').inputs == ["a"]
    assert read_embed(b'{"model":"m","input":["a","b"],"encoding_format":"base64"}').base64
    with pytest.raises(InvalidRequest):
        read_embed(b'{"model":"m","input":["a",""]}')


@pytest.mark.parametrize(
    "form", [{"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "n"}}]
)
def test_a_response_format_is_carried(form: dict[str, Any]) -> None:
    found = read_chat(body(response_format=form)).sampling.response_format

    assert found is not None
    assert json.loads(bytes(found)) == form


def test_the_schema_of_a_json_object_is_asked_for_as_any_other() -> None:
    schema = {"type": "object", "required": ["a"]}

    found = read_chat(body(response_format={"type": "json_object", "schema": schema})).sampling

    assert found.response_format is not None
    assert json.loads(bytes(found.response_format)) == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema},
    }
    with pytest.raises(AnswerUnfit):
        formats.check(found, [Delta('{"b":1}', 0, "stop")])
    formats.check(found, [Delta('{"a":1}', 0, "stop")])


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"type": "json_object", "grammar": "x"}, "response_format"),
        ({"type": "text", "schema": {}}, "response_format.schema"),
        ({"type": "json_schema", "schema": {}}, "response_format.schema"),
        ({"type": "json_object", "json_schema": {}}, "response_format.json_schema"),
    ],
)
def test_what_a_response_format_does_not_hold_is_refused_by_its_name(
    form: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_chat(body(response_format=form))

    assert caught.value.param == param
    assert any(name in str(caught.value.message) for name in form if name != "type")


def test_a_response_format_of_null_is_none() -> None:
    assert read_chat(body(response_format=None)).sampling.response_format is None


@pytest.mark.parametrize(
    ("published", "shape", "fates"),
    [
        (CompletionCreateParamsBase, shapes.Chat, CHAT_FATES),
        (PlainParamsBase, shapes.Completion, COMPLETION_FATES),
        (EmbeddingCreateParams, shapes.Embed, EMBED_FATES),
    ],
)
def test_every_field_of_the_published_client_is_decided_about(
    published: type, shape: type[Struct], fates: Fates
) -> None:
    decided = set(shape.__struct_fields__) | fates.harmless | fates.not_built | {"stream"}

    assert set(published.__annotations__) - decided == set()


def test_who_is_spoken_of_is_known_by_either_name() -> None:
    assert read_chat(body(user="u1")).subject == "u1"
    assert read_chat(body(safety_identifier="s1")).subject == "s1"
    assert read_chat(body(user="u1", safety_identifier="s1", store=False)).subject == "s1"
    assert read_chat(body(user="u1", store=False)).subject == "u1"


@pytest.mark.parametrize("name", sorted(CHAT_FATES.not_built))
def test_null_asks_for_nothing(name: str) -> None:
    assert read_chat(body(**{name: None})) == read_chat(body())
