"""What clients get is JSON of the published shapes, whatever the text holds."""

import base64
import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.domain.chat import Aside, Embeddings, ToolCall
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import InvalidRequest, Overloaded, UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.used_tokens import Usage
from pilothouse.gateway.generate import Gathered
from pilothouse.kit.sse import EventParser
from pilothouse.wire.dialect import GenerateDialect
from pilothouse.wire.openai import answers, dialect, outbound
from pilothouse.wire.openai.inbound import read_chat
from pilothouse.wire.responses.dialect import RESPONSES

ASK = read_chat(
    b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true,"n":2,'
    b'"stream_options":{"include_usage":true}}'
)
COMPLETION = GenerateRequest("completion", "m", ASK.prompt, 3)

DELTAS = st.builds(Delta, st.text(max_size=20), st.integers(0, 1), st.sampled_from([None, "stop", "length"]))


def events_of(stream: bytes) -> list[bytes]:
    return EventParser().feed(stream)


@settings(deadline=None)
@given(chunks=st.lists(st.lists(DELTAS, min_size=1, max_size=3).map(lambda d: Chunk(tuple(d))), max_size=6))
def test_a_stream_written_is_a_stream_read(chunks: list[Chunk]) -> None:
    writer = answers.StreamWriter(ASK, answer_id="chatcmpl-1", created=7)

    stream = b"".join(writer.chunk(chunk) for chunk in chunks) + writer.end(Usage(3, 2, 1))

    *said, usage_event, done = events_of(stream)
    assert done == b"[DONE]"
    assert outbound.read_said(usage_event).usage == Usage(3, 2, 1)
    for index in (0, 1):
        written = "".join(d.text for c in chunks for d in c.deltas if d.index == index)
        read = "".join(d.text for e in said for d in outbound.read_said(e).deltas if d.index == index)
        assert read == written


PIECES = st.builds(ToolCall, st.integers(0, 2), st.just(""), st.just(""), st.text(max_size=8))
ASIDES = st.builds(
    Aside,
    st.text(max_size=5),
    st.text(max_size=5),
    st.lists(
        st.builds(ToolCall, st.integers(0, 2), st.just(""), st.just(""), st.text(max_size=8)), max_size=2
    ).map(tuple),
)


@settings(deadline=None)
@given(asides=st.lists(ASIDES, max_size=6))
def test_what_is_said_beside_the_text_is_read_as_it_was_written(asides: list[Aside]) -> None:
    writer = answers.StreamWriter(ASK, answer_id="chatcmpl-1", created=7)
    begin = tuple(ToolCall(i, f"call_{i}", f"tool_{i}") for i in range(3))
    said, read = Gathered(1), Gathered(1)

    for aside in (Aside(tools=begin), *asides):
        chunk = Chunk((Delta("", 0, None, None, aside),))
        said.add(chunk)
        for event in events_of(writer.chunk(chunk)):
            read.add(outbound.read_said(event))
    whole = answers.write_whole(ASK, said.deltas(), Usage(1, 1), answer_id="x", created=7)

    assert read.deltas() == said.deltas()
    assert outbound.read_whole(whole).deltas[0].aside == said.deltas()[0].aside


def test_each_choice_opens_with_its_role_once() -> None:
    writer = answers.StreamWriter(ASK, answer_id="chatcmpl-1", created=7)

    first = events_of(writer.chunk(Chunk((Delta("a"), Delta("b", 1)))))
    second = events_of(writer.chunk(Chunk((Delta("c"),))))

    roles = [json.loads(e)["choices"][0]["delta"].get("role") for e in first + second]
    assert roles == ["assistant", None, "assistant", None, None]


def test_usage_is_null_until_the_end_when_it_was_asked_for() -> None:
    writer = answers.StreamWriter(ASK, answer_id="x", created=7)

    event = json.loads(events_of(writer.chunk(Chunk((Delta("a"),))))[1])

    assert event["usage"] is None
    assert event["object"] == "chat.completion.chunk"


@given(text=st.text(max_size=50))
def test_a_whole_answer_holds_the_text_unchanged(text: str) -> None:
    body = answers.write_whole(ASK, [Delta(text, 0, "stop")], Usage(1, 2), answer_id="c", created=1)

    answer = json.loads(body)
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": text, "refusal": None}
    assert answer["usage"]["total_tokens"] == 3


def test_a_completion_has_its_own_shape() -> None:
    body = answers.write_whole(COMPLETION, [Delta("t", 0, "length")], Usage(), answer_id="c", created=1)

    answer = json.loads(body)
    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["text"] == "t"


def test_base64_embeddings_are_little_endian_floats() -> None:
    body = answers.write_embeddings(Embeddings([[0.5, -2.0]], Usage(4)), endpoint="e", base64=True)

    answer = json.loads(body)
    assert struct.unpack("<2f", base64.b64decode(answer["data"][0]["embedding"])) == (0.5, -2.0)
    assert answer["usage"] == {"prompt_tokens": 4, "total_tokens": 4}


def test_an_error_has_the_openai_shape() -> None:
    answer = json.loads(answers.write_error(Overloaded("full", param="x")))

    assert answer == {
        "error": {"message": "full", "type": "server_error", "param": "x", "code": "overloaded"}
    }


def test_only_allowed_fields_reach_an_engine() -> None:
    ask = read_chat(
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"metadata":{"a":"b"},'
        b'"user":"me","seed":4,"logprobs":true}'
    )

    sent = json.loads(
        b"".join(outbound.RequestWriter("real").write(ask, stream=True, slot=2, reuse_prefix=False))
    )

    assert sent == {
        "model": "real",
        "messages": [{"role": "user", "content": "x"}],
        "seed": 4,
        "logprobs": True,
        "top_logprobs": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,
        "cache_prompt": False,
        "id_slot": 2,
    }


def test_log_probabilities_are_carried_as_the_engine_said_them() -> None:
    said = outbound.read_said(
        b'{"choices":[{"index":0,"delta":{"content":"a"},"logprobs":{"content":[{"token":"a"}]}}]}'
    )

    assert bytes(said.deltas[0].logprobs or b"") == b'{"content":[{"token":"a"}]}'
    assert outbound.read_said(b'{"choices":[{"text":"a","logprobs":null}]}').deltas[0].logprobs is None


def test_an_error_inside_an_answer_is_an_error() -> None:
    with pytest.raises(UpstreamError, match="broke off"):
        outbound.read_said(b'{"error":{"message":"secret text"}}')


@pytest.mark.parametrize(
    ("spoken", "field"),
    [(dialect.CHAT, "messages[0]"), (dialect.COMPLETION, "prompt"), (RESPONSES, "input")],
)
def test_a_fault_of_the_prompt_is_in_the_field_that_has_it(spoken: GenerateDialect, field: str) -> None:
    """Engines and providers name it as chats have it."""
    error = InvalidRequest("too long", param="messages[0]")

    assert json.loads(spoken.error(error))["error"]["param"] == field
