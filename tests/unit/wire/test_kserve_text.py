"""Text through tensors: prompts of chats, what is passed on by which name, and what answers say."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.chat import EmbedRequest, Sampling
from pilothouse.domain.errors import InvalidRequest, NotSupported, UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.tensors import Inferred, Tensor
from pilothouse.domain.used_tokens import Usage
from pilothouse.wire.kserve_v2 import text
from pilothouse.wire.kserve_v2.text import Convention
from pilothouse.wire.kserve_v2.turns import Turns, prompt_of

CHATML = Turns(
    system="<|im_start|>system\n{content}<|im_end|>\n",
    user="<|im_start|>user\n{content}<|im_end|>\n",
    assistant="<|im_start|>assistant\n{content}<|im_end|>\n",
    answer="<|im_start|>assistant\n",
)


def asking(prompt: object, kind: Any = "completion", **changes: Any) -> GenerateRequest:
    sampling = {name: changes.pop(name) for name in list(changes) if name in Sampling.__struct_fields__}
    raw = msgspec.json.encode(prompt)
    return GenerateRequest(kind, "m", msgspec.Raw(raw), len(raw)).changed(
        sampling=Sampling(**sampling), **changes
    )


def test_a_chat_is_written_as_its_turns_say():
    chat = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Say "}, {"type": "text", "text": "{content}"}],
        },
        {"role": "assistant", "content": "Aye."},
        {"role": "user", "content": "Again"},
    ]

    assert prompt_of(asking(chat, "chat"), CHATML) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nSay {content}<|im_end|>\n"
        "<|im_start|>assistant\nAye.<|im_end|>\n<|im_start|>user\nAgain<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_chat_without_turns_is_refused_with_the_fix():
    with pytest.raises(NotSupported, match=r"/v1/completions.*engine_options\.chat"):
        prompt_of(asking([{"role": "user", "content": "x"}], "chat"), None)


@pytest.mark.parametrize(
    ("message", "at"),
    [
        ({"role": "tool", "content": "x"}, "messages[0].role"),
        ({"role": "assistant", "content": None, "tool_calls": [{}]}, "messages[0].role"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "messages[0].content"),
    ],
)
def test_a_message_that_has_no_place_is_refused_by_its_own(message: dict[str, Any], at: str):
    with pytest.raises(InvalidRequest) as refused:
        prompt_of(asking([message], "chat"), CHATML)

    assert refused.value.param == at


def test_a_system_message_where_the_model_knows_none_is_refused():
    turns = Turns(user="{content}", assistant="{content}")

    with pytest.raises(InvalidRequest, match="no system message"):
        prompt_of(asking([{"role": "system", "content": "x"}], "chat"), turns)


def test_what_a_server_has_no_name_for_is_refused_by_its_name():
    for field, value in {"frequency_penalty": 0.5, "logprobs": True, "min_p": 0.1}.items():
        with pytest.raises(NotSupported) as refused:
            text.parameters_of(asking("x", **{field: value}), Convention())
        assert refused.value.param == field
    with pytest.raises(NotSupported):
        text.parameters_of(asking("x", choices=2), Convention())


def test_what_asks_for_nothing_is_not_refused():
    asked = asking("x", frequency_penalty=0.0, logprobs=False, stop=["."], max_tokens=3)

    assert text.parameters_of(asked, Convention()) == {"max_tokens": 3}


def test_parameters_go_by_the_servers_names_in_its_way():
    convention = Convention(
        parameters={"max_tokens": "n", "temperature": "t", "stop": "stop_words"}, constants={"echo": False}
    )
    asked = asking("x", max_tokens=3, temperature=0.5, stop=["."])
    apart = msgspec.structs.replace(convention, parameters_as="tensors", is_batched=True)

    sent = text.tensors_of(asked, convention)
    tensors = {one.name: one for one in text.tensors_of(asked, apart).inputs}

    assert sent.parameters == {"echo": False, "n": 3, "t": 0.5, "stop_words": '["."]'}
    assert sent.inputs == (Tensor("text_input", "BYTES", (1,), [b"x"]),)
    assert tensors["n"] == Tensor("n", "INT32", (1, 1), [3])
    assert tensors["echo"] == Tensor("echo", "BOOL", (1, 1), [False])
    assert tensors["stop_words"].texts() == ["."]


def test_generate_is_plain_json():
    asked = asking("x", max_tokens=3)

    inside = json.loads(text.write_generate(asked, Convention()))
    flat = json.loads(text.write_generate(asked, Convention(parameters_as="tensors")))

    assert inside == {"text_input": "x", "parameters": {"max_tokens": 3}}
    assert flat == {"text_input": "x", "max_tokens": 3}


def test_an_answer_says_its_text_its_end_and_its_usage():
    body = b"""{"model_name":"m","text_output":"Ahoy","finish_reason":"length",
        "prompt_tokens":3,"completion_tokens":2}"""
    inferred = Inferred(
        outputs=(Tensor.of_texts("text_output", ["Ahoy"]), Tensor("completion_tokens", "INT32", (1,), [2])),
        parameters={"prompt_tokens": 3, "finish_reason": "length"},
    )

    chunks = [
        text.chunk_of(text.read_generate(body), Convention()),
        text.chunk_of(text.said_by(inferred), Convention()),
    ]

    assert chunks[0] == chunks[1]
    assert chunks[0].deltas[0].text == "Ahoy"
    assert chunks[0].deltas[0].finish_reason == "length"
    assert chunks[0].usage == Usage(3, 2)


def test_a_count_alone_is_no_usage():
    assert text.usage_of({"completion_tokens": 2}, Convention()) is None
    assert text.usage_of({"completion_tokens": -2, "prompt_tokens": 1}, Convention()) is None


@pytest.mark.parametrize("body", [b"[]", b"{", b"\xff", b'{"error":"CUDA out of memory"}'])
def test_an_answer_that_is_none_is_a_typed_error(body: bytes):
    with pytest.raises(UpstreamError) as refused:
        text.read_generate(body)

    assert "CUDA" not in refused.value.message


@given(st.dictionaries(st.text(max_size=12), st.recursive(st.none() | st.integers(), st.lists, max_leaves=3)))
def test_an_answer_without_text_names_the_option(said: dict[str, Any]):
    with pytest.raises(UpstreamError, match=r"engine_options\.text_output"):
        text.chunk_of(said, Convention())


def test_vectors_come_in_the_order_of_their_texts():
    asked = EmbedRequest(endpoint="m", inputs=["a", "bcde"])
    convention = Convention(text_output="embedding")
    answer = Inferred(outputs=(Tensor("embedding", "FP32", (2, 2), [1.0, 2.0, 3.0, 4.0]),))

    sent = text.texts_of(asked, convention)
    embeddings = text.vectors_of(answer, asked, convention)

    assert sent.inputs[0].texts() == ["a", "bcde"]
    assert embeddings.vectors == [[1.0, 2.0], [3.0, 4.0]]
    assert embeddings.usage.input == 3, "one token for the first three bytes or less, as limits count"


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor("embedding", "FP32", (1, 2), [1.0, 2.0]),
        Tensor("embedding", "INT32", (2, 1), [1, 2]),
        Tensor("other", "FP32", (2, 1), [1.0, 2.0]),
    ],
)
def test_other_tensors_than_vectors_are_named(tensor: Tensor):
    with pytest.raises(UpstreamError, match=tensor.name):
        text.vectors_of(
            Inferred(outputs=(tensor,)),
            EmbedRequest(endpoint="m", inputs=["a", "b"]),
            Convention(text_output="embedding"),
        )
