"""Triton's generate extension: what each kind of repository is asked, and what its answers mean."""

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import (
    ContextLengthExceeded,
    EngineUnavailable,
    InvalidRequest,
    NotSupported,
    Overloaded,
    PilothouseError,
    UpstreamError,
)
from pilothouse.domain.tensors import Inferred, Tensor
from pilothouse.domain.used_tokens import Usage
from pilothouse.testing.conformance_engine import ask
from pilothouse.wire.kserve_v2.about import TensorSpec
from pilothouse.wire.triton import outbound, said, tensors

SAMPLED = {"temperature": 0.5, "top_p": 0.9, "top_k": 4, "seed": 3, "stop": ["end"]}


def written(backend: outbound.Backend, prompt: object = "Hi", **changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(outbound.written(outbound.fields_of(ask(prompt, **changes), backend)))
    return body


def test_our_own_model_takes_messages() -> None:
    messages = [{"role": "user", "content": "Hello"}]

    body = outbound.own_fields({"messages": messages, "max_tokens": 8})

    assert (body["text_input"], json.loads(body["messages"])) == ("", messages)
    assert json.loads(body["sampling_parameters"]) == {"max_tokens": 8}
    assert outbound.own_fields({"prompt": "Hi"}) == {"text_input": "Hi", "sampling_parameters": "{}"}


def test_the_vllm_backend_is_asked_for_ends_and_counts() -> None:
    body = written("vllm", min_p=0.1)

    assert body["text_input"] == "Hi"
    assert body["stream"] is body["exclude_input_in_output"] is body["return_num_output_tokens"] is True
    assert json.loads(body["sampling_parameters"]) == {"temperature": 0.0, "min_p": 0.1, "max_tokens": 8}


def test_tensorrt_llm_has_names_of_its_own() -> None:
    body = written("tensorrtllm", **SAMPLED)

    assert (body["random_seed"], body["stop_words"], body["max_tokens"]) == (3, ["end"], 8)
    assert "seed" not in body


def test_any_other_repository_gets_parameters() -> None:
    assert written("text", top_k=4) == {
        "text_input": "Hi",
        "parameters": {"stream": True, "temperature": 0.0, "top_k": 4, "max_tokens": 8},
    }


@pytest.mark.parametrize(
    ("backend", "changes", "field"),
    [
        ("vllm", {"logprobs": 2}, "logprobs"),
        ("vllm", {"choices": 2}, "n"),
        ("vllm", {"prompt": [1, 2]}, "prompt"),
        ("text", {"stop": ["x"]}, "stop"),
        ("vllm", {"kind": "chat", "prompt": [{"role": "user", "content": "x"}]}, "messages"),
    ],
)
def test_what_a_repository_has_no_word_for_is_refused_by_name(
    backend: outbound.Backend, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(NotSupported) as refused:
        written(backend, **changes)

    assert refused.value.param == field


def said_by(*events: dict[str, Any], max_tokens: int | None = None) -> list[Chunk]:
    reader = said.Reader(max_tokens)
    chunks = [reader.read(said.decoded(json.dumps(event).encode())) for event in events]
    return [chunk for chunk in (*chunks, reader.end()) if chunk is not None]


def test_an_answer_ends_with_its_reason_and_the_true_counts() -> None:
    """Counts come at the end from ours, and with each piece from vLLM's: both are sums."""
    pieces = said_by(
        {"text_output": "a", "num_output_tokens": 2},
        {"text_output": ["b"], "finish_reason": "length", "num_input_tokens": 5, "num_output_tokens": [1]},
    )

    assert pieces[0] == Chunk((Delta("a"),))
    assert pieces[1:] == [Chunk((Delta("b", finish_reason="length"),), Usage(5, 3))]


@pytest.mark.parametrize(("max_tokens", "finish"), [(None, "stop"), (2, "length"), (3, "stop")])
def test_a_repository_that_says_no_more_than_text_has_ended_when_its_stream_has(
    max_tokens: int | None, finish: str
) -> None:
    pieces = said_by({"text_output": "a"}, {"text_output": "b"}, {"text_output": ""}, max_tokens=max_tokens)

    assert pieces[2:] == [Chunk((Delta(finish_reason=finish),))]


@pytest.mark.parametrize(
    ("why", "kind", "part"),
    [
        ('{"error":"too_long","prompt_tokens":9,"limit":5}', ContextLengthExceeded, "9 tokens"),
        ('{"error":"full"}', Overloaded, ""),
        ('{"error":"no_chat_template"}', NotSupported, "/v1/completions"),
        ('{"error":"invalid","reason":"x"}', InvalidRequest, ""),
        ("Stub process 'm_0_0' is not healthy.", EngineUnavailable, "has ended"),
        ("Request for unknown model: 'x' is not found", UpstreamError, "no such model"),
        ("Request for unknown model: 'x' has no available versions", EngineUnavailable, "loading"),
        ("This protocol is restricted, expecting header 'k'", UpstreamError, "refused the secret"),
        ("[request id: 1] Exceeds maximum queue size", Overloaded, ""),
        ("anything with a prompt in it", UpstreamError, "its log says why"),
    ],
)
def test_refusals_are_told_apart_and_never_repeated(why: str, kind: type[PilothouseError], part: str) -> None:
    error = said.refused(why)

    assert type(error) is kind
    assert part in error.message
    assert "prompt in it" not in error.message


def test_an_error_amid_an_answer_is_one() -> None:
    with pytest.raises(UpstreamError):
        said_by({"text_output": "a"}, {"error": "broken"})


@given(st.binary(max_size=60) | st.recursive(st.none() | st.integers() | st.text(max_size=4), st.lists))
def test_garbage_is_an_error_of_ours(garbage: object) -> None:
    event = garbage if isinstance(garbage, bytes) else json.dumps(garbage).encode()
    assume(not is_object(event))  # an object without any of the fields is an event that says nothing

    for read in (said.decoded, said.read_counts):
        with pytest.raises(UpstreamError):
            read(event)


def is_object(event: bytes) -> bool:
    try:
        return isinstance(json.loads(event), dict)
    except ValueError:
        return False


def test_the_load_is_read_and_a_dead_process_is_none() -> None:
    load = json.dumps({"running": 1, "waiting": 2, "process": 77})

    found = said.read_load(said.Event(text_output=load))

    assert found == said.LoadSaid(running=1, waiting=2, process=77)
    assert said.read_load(said.Event(error="Stub process 'm' is not healthy.")) is None
    with pytest.raises(UpstreamError):
        said.read_load(said.Event(text_output="garbage"))


def test_counts_are_of_all_versions() -> None:
    one = {"inference_stats": {"success": {"count": 2, "ns": 9}, "fail": {"count": 1}}}

    assert said.read_counts(json.dumps({"model_stats": [one, one]}).encode()) == said.Counts(4, 2)


def spec(name: str, datatype: str, *shape: int) -> TensorSpec:
    return TensorSpec(name, datatype, list(shape))


def test_fields_are_the_tensors_that_the_model_takes_and_parameters_else() -> None:
    fields = outbound.fields_of(ask("Hi", **SAMPLED), "tensorrtllm")
    inputs = [
        spec("text_input", "BYTES", -1, 1),
        spec("max_tokens", "INT32", -1, 1),
        spec("temperature", "FP32", -1, 1),
        spec("stop_words", "BYTES", -1, -1),
        spec("stream", "BOOL", -1, 1),
        spec("bad_words", "BYTES", -1, -1),
    ]

    asked = tensors.asked_as(fields, inputs)

    assert {one.name: (one.datatype, one.shape, list(one.values)) for one in asked.inputs} == {
        "text_input": ("BYTES", (1, 1), [b"Hi"]),
        "max_tokens": ("INT32", (1, 1), [8]),
        "temperature": ("FP32", (1, 1), [0.5]),
        "stop_words": ("BYTES", (1, 1), [b"end"]),
        "stream": ("BOOL", (1, 1), [True]),
    }
    assert asked.parameters == {"top_p": 0.9, "top_k": 4, "random_seed": 3}


def test_the_parameters_of_any_other_repository_are_told_one_by_one() -> None:
    fields = outbound.fields_of(ask("Hi", top_k=4), "text")

    asked = tensors.asked_as(fields, [spec("text_input", "BYTES", 1)])

    assert [one.shape for one in asked.inputs] == [(1,)]
    assert asked.parameters == {"stream": True, "temperature": 0.0, "top_k": 4, "max_tokens": 8}


@pytest.mark.parametrize("known", [spec("seed", "INT8", 1), spec("seed", "BF16", 1)])
def test_a_value_that_its_input_cannot_hold_is_refused_by_name(known: TensorSpec) -> None:
    with pytest.raises(InvalidRequest, match="seed"):
        tensors.asked_as({"text_input": "Hi", "seed": 1000}, [known])


def test_an_answer_of_tensors_says_the_same_as_one_of_text() -> None:
    outputs = {
        "text_output": ("BYTES", [b"h\xc3\xa9"]),
        "num_output_tokens": ("UINT32", [3]),
        "other": ("FP32", []),
    }
    answer = Inferred(
        outputs=tuple(Tensor(name, kind, (len(values),), values) for name, (kind, values) in outputs.items())
    )

    event = tensors.event_of(answer)

    assert said.Reader(None).read(event) == Chunk((Delta("hé"),))
    assert event.num_output_tokens == [3]


@pytest.mark.parametrize(
    "wrong",
    [Tensor("text_output", "FP32", (1,), [0.5]), Tensor("text_output", "BYTES", (1,), [b"\xff"])],
)
def test_tensors_of_another_type_are_an_error_of_ours(wrong: Tensor) -> None:
    with pytest.raises(UpstreamError):
        tensors.event_of(Inferred(outputs=(wrong,)))
