from typing import Any

import msgspec
import pytest

from pilothouse.domain.chat import Sampling
from pilothouse.domain.errors import NotSupported, UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.wire.tensorflow.chat import ChatTexts, prompt_of
from pilothouse.wire.tensorflow.signature import (
    Binding,
    Signature,
    Tensor,
    bind,
    read_row,
    refuse_unbound,
    row_of,
)

TEXT, COUNT = Tensor("DT_STRING"), Tensor("DT_INT32")
FULL = Signature(
    inputs={"prompt": TEXT, "max_tokens": COUNT, "temperature": Tensor("DT_FLOAT"), "state_bytes": TEXT},
    outputs={"text": TEXT, "finish_reason": TEXT, "prompt_tokens": COUNT, "state_bytes": TEXT},
)
SMALL = Signature(inputs={"question": TEXT, "max_tokens": COUNT}, outputs={"output_0": TEXT})


def bound(told: Signature | None, name: str = "generate", **named: Any) -> Binding:
    given = {"signature": "", "inputs": {}, "outputs": {}} | named
    return bind({name: told} if told else None, **given)


def asked(prompt: object = "x", kind: Any = "completion", **sampling: Any) -> GenerateRequest:
    choices = sampling.pop("choices", 1)
    return GenerateRequest(kind, "m", msgspec.Raw(msgspec.json.encode(prompt)), 9).changed(
        choices=choices, sampling=Sampling(**sampling)
    )


def test_tensors_are_bound_by_the_names_of_their_roles() -> None:
    binding = bound(FULL)

    assert binding.signature == "generate"
    assert binding.goes_on
    assert not binding.counts
    assert row_of(binding, {"prompt": "a", "max_tokens": 3, "state": ""}) == {
        "prompt": "a",
        "max_tokens": 3,
        "temperature": 1.0,
        "state_bytes": "",
    }


def test_the_only_text_is_the_prompt_and_the_only_one_back_the_answer() -> None:
    binding = bound(SMALL, name="serving_default")

    assert binding.signature == "serving_default"
    assert binding.inputs == {"prompt": "question", "max_tokens": "max_tokens"}
    assert binding.outputs == {"text": "output_0"}
    assert not binding.goes_on


@pytest.mark.parametrize(
    ("told", "named", "fault"),
    [
        (None, {}, "does not tell its signatures: name its tensors"),
        (FULL, {"signature": "other"}, "no signature 'other', it has generate"),
        (FULL, {"inputs": {"prompt": "words"}}, r"inputs: the signature has no words, it has max_tokens"),
        (Signature({"a": TEXT, "b": TEXT}, {"text": TEXT}), {}, "has a, b: write into engine_options.inputs"),
        (Signature({"a": TEXT}, {"n": COUNT}), {}, "has n: write into engine_options.outputs which is"),
        (Signature({"a": TEXT, "lang": COUNT}, {"t": TEXT}), {}, "wants lang, which stands for nothing"),
        (Signature({"a": Tensor("DT_STRING", is_row=False)}, {"t": TEXT}), {}, r"export it with the shape"),
    ],
)
def test_what_cannot_be_bound_says_what_to_write(
    told: Signature | None, named: dict[str, Any], fault: str
) -> None:
    with pytest.raises(UpstreamError, match=fault):
        bound(told, **named)


def test_a_server_that_tells_nothing_is_believed_by_its_deployment() -> None:
    binding = bound(None, inputs={"prompt": "q"}, outputs={"text": "a"}, signature="s")

    assert binding == Binding("s", {"prompt": "q"}, {"text": "a"})


@pytest.mark.parametrize("wish", [{"top_k": 3}, {"seed": 1}, {"logprobs": True}, {"choices": 2}])
def test_what_has_no_tensor_is_refused_by_name(wish: dict[str, Any]) -> None:
    with pytest.raises(NotSupported) as refused:
        refuse_unbound(bound(FULL), asked(**wish))

    assert refused.value.param == {"choices": "n"}.get(*wish, *wish)


def test_what_changes_nothing_is_taken() -> None:
    harmless = {"top_p": 1.0, "stop": ["x"], "logprobs": False, "presence_penalty": 0}

    refuse_unbound(bound(FULL), asked(temperature=0.2, **harmless))
    with pytest.raises(NotSupported):  # and one that changes something still is not
        refuse_unbound(bound(FULL), asked(**(harmless | {"presence_penalty": 1})))


@pytest.mark.parametrize(
    "said",
    [
        {"text": "a"},
        {"text": 1, "finish_reason": "", "prompt_tokens": 1, "state_bytes": ""},
        {"text": b"\xff", "finish_reason": "", "prompt_tokens": 1, "state_bytes": ""},
        {"text": "a", "finish_reason": "", "prompt_tokens": -1, "state_bytes": ""},
        {"text": "a", "finish_reason": "", "prompt_tokens": True, "state_bytes": ""},
        {"text": ["a"], "finish_reason": "", "prompt_tokens": 1, "state_bytes": ""},
    ],
)
def test_garbage_in_the_tensors_is_the_engines_fault(said: dict[str, Any]) -> None:
    with pytest.raises(UpstreamError):
        read_row(bound(FULL), said)


@pytest.mark.parametrize("empty", ["", b"", {"b64": ""}])
def test_an_empty_state_is_nothing_to_go_on_from(empty: object) -> None:
    said = {"text": "a", "finish_reason": "length", "prompt_tokens": 1}

    assert read_row(bound(FULL), said | {"state_bytes": empty}).state is None
    assert read_row(bound(FULL), said | {"state_bytes": {"b64": "AA=="}}).state == {"b64": "AA=="}


TEXTS = ChatTexts(user="U: {content}\n", assistant="A: {content}\n", reply="A:")
CHAT = [{"role": "user", "content": "hi {content}"}, {"role": "assistant", "content": "ho"}]


def test_a_chat_is_written_as_the_deployment_says() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]

    prompt = prompt_of(asked([*CHAT, {"role": "user", "content": parts}], kind="chat"), TEXTS)

    assert prompt == "U: hi {content}\nA: ho\nU: ab\nA:"


@pytest.mark.parametrize(
    ("messages", "texts", "fault"),
    [
        (CHAT, None, "use /v1/completions, or say by engine_options.chat"),
        ([{"role": "system", "content": "s"}], TEXTS, "no text for the system's messages"),
        ([{"role": "user", "content": "s", "name": "n"}], TEXTS, r"messages\[0\].name"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}],
            TEXTS,
            "reads text alone, no image",
        ),
    ],
)
def test_nothing_of_a_chat_is_guessed(messages: object, texts: ChatTexts | None, fault: str) -> None:
    with pytest.raises(NotSupported, match=fault):
        prompt_of(asked(messages, kind="chat"), texts)
