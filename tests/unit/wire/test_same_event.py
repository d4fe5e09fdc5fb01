"""A step of a stream that was met before is not decoded again, and nobody can tell by what comes of it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import UpstreamError
from pilothouse.wire.openai.outbound import AnswerReader, read_said
from pilothouse.wire.openai.same_event import SameEvent


def compact(step: object) -> bytes:
    return json.dumps(step, separators=(",", ":"), ensure_ascii=False).encode()


def step(text: str, *, index: int = 0, kind: str = "chat", **more: object) -> dict[str, object]:
    said = {"delta": {"content": text}} if kind == "chat" else {"text": text}
    return {"id": "1", "choices": [{"index": index, **said, "finish_reason": None}], "created": 7, **more}


class Counted:
    """Counts what the decoder sees."""

    def __init__(self) -> None:
        self.seen = 0
        self.same = SameEvent(self._read)

    def _read(self, data: bytes) -> Chunk:
        self.seen += 1
        return read_said(data)

    def read(self, data: bytes) -> Chunk:
        chunk = self.same.chunk_of(data)
        if chunk is None:
            chunk = self._read(data)
            self.same.remember(data, chunk)
        return chunk


texts = st.text(max_size=20)
steps = st.one_of(
    st.builds(step, texts, index=st.integers(0, 2), kind=st.sampled_from(["chat", "completion"])),
    st.builds(step, texts, usage=st.none() | st.just({"prompt_tokens": 1, "completion_tokens": 2})),
    st.builds(step, texts, created=st.integers(0, 1), extra=st.just({"content": "Hi"})),
    st.just({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
    st.just({"choices": [{"index": 0, "delta": {"role": "assistant", "content": None}}]}),
)


@given(st.lists(steps, max_size=12))
def test_every_event_says_what_the_decoder_says(stream):
    counted = Counted()
    for one in stream:
        data = compact(one)
        assert counted.read(data) == read_said(data)


@given(st.lists(steps, min_size=1, max_size=6), st.data())
def test_nor_can_damage_be_told_from_what_the_decoder_says(stream, draw):
    counted = Counted()
    for one in stream:
        counted.read(compact(one))
    data = bytearray(compact(stream[-1]))
    for _ in range(draw.draw(st.integers(1, 3))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))

    try:
        expected = read_said(bytes(data))
    except UpstreamError:
        with pytest.raises(UpstreamError):
            counted.read(bytes(data))
    else:
        assert counted.read(bytes(data)) == expected


def test_steps_that_differ_in_their_text_alone_are_decoded_once_and_tried_once():
    counted = Counted()
    said = [counted.read(compact(step(text))) for text in ("a", 'b"\\', "ü", "d\n")]

    assert [chunk.deltas for chunk in said] == [(Delta(text),) for text in ("a", 'b"\\', "ü", "d\n")]
    assert counted.seen == 2


def test_the_first_step_is_learnt_from_when_another_is_here_so_that_its_token_does_not_wait():
    counted = Counted()
    counted.read(compact(step("a")))
    assert counted.seen == 1

    counted.read(compact(step("b")))
    assert counted.seen == 2


@pytest.mark.parametrize(
    "one",
    [
        b'{"x":{"content":"a"},"choices":[{"index":0,"delta":{"content": "a"}}]}',
        b'{"choices":[{"index":0,"delta":{"content":"a","content": "a"}}]}',
        b'{"choices":[{"index":0,"text":"a"}],"content":"a"}',
    ],
)
def test_a_string_that_only_looks_like_the_text_is_not_taken_for_it(one):
    counted = Counted()
    counted.read(one)
    other = one.replace(b':"a"', b':"b"', 1)

    assert counted.read(other) == read_said(other)


def test_a_stream_whose_every_event_differs_is_not_looked_at_for_ever():
    counted = Counted()
    for number in range(100):
        counted.read(compact(step("a", created=number)))

    assert counted.seen < 110


def test_an_answer_that_goes_on_behind_its_end_is_refused_also_where_its_steps_are_known():
    reader = AnswerReader(1, lambda _: None)
    reader.read(compact(step("a")))
    reader.read(compact({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
    reader.read(compact(step("")))

    with pytest.raises(UpstreamError, match="went on"):
        reader.read(compact(step("b")))
