"""A request whose fields were met before is not decoded again, and nobody can tell by what comes of it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.errors import PilothouseError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.wire.openai import messages
from pilothouse.wire.openai.inbound import read_chat
from pilothouse.wire.openai.same_fields import SameFields

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"messages": [{"role": "user"}]}}}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


class Counted:
    """As `read_chat`, with a memory of its own; counts what the decoder sees."""

    def __init__(self) -> None:
        self.seen = 0
        self.same = SameFields(self._anew)

    def _anew(self, body: bytes) -> GenerateRequest:
        self.seen += 1
        return read_afresh(body)

    def read(self, body: bytes) -> GenerateRequest:
        around = self.same.find(body)
        if around is None:
            ask = self._anew(body)
            self.same.learn(body, ask)
            return ask
        prompt = around.messages_of(body)
        said = messages.decode(prompt)
        return around.asking(prompt, said, frozenset())


def read_afresh(body: bytes) -> GenerateRequest:
    """By the decoder alone: no other request has this field."""
    read_afresh.count += 1
    fields = json.loads(body)
    assert "metadata" not in fields
    return read_chat(body[:-1] + b',"metadata":{"n":"%d"}}' % read_afresh.count)


read_afresh.count = 0


def body_of(said: object, *, first: bool = False, **fields: object) -> bytes:
    asked = (
        {"messages": said, "model": "m", **fields} if first else {"model": "m", **fields, "messages": said}
    )
    return json.dumps(asked, separators=(",", ":"), ensure_ascii=False).encode()


texts = st.text(max_size=12)
said = st.lists(
    st.one_of(
        st.builds(lambda text: {"role": "user", "content": text}, texts),
        st.builds(lambda text: {"content": [{"type": "text", "text": text}], "role": "user"}, texts),
        st.just({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.org/"}}]}),
        st.just({"role": "assistant", "content": None, "tool_calls": [CALL]}),
        st.just({"role": "tool", "content": "7", "tool_call_id": "1"}),
        st.just({"role": "assistant"}),
        st.just({"role": "user", "content": "x", "annotations": []}),
    ),
    max_size=3,
)
fields = st.one_of(
    st.just({}),
    st.just({"temperature": 0, "max_tokens": 7, "user": "somebody"}),
    st.just({"tools": [TOOL], "tool_choice": "auto", "user": "messages"}),
    st.just({"stop": ['"messages":[', "]"], "seed": 1, "stream": True}),
    st.just({"temperature": 3}),
    st.just({"response_format": {"type": "json_object", "schema": {"type": "object"}}, "n": 2}),
    st.just({"logit_bias": {"7": 1.0}, "store": False, "max_completion_tokens": 9}),
)
bodies = st.builds(
    lambda said, fields, first: body_of(said, first=first, **fields), said, fields, st.booleans()
)


def outcome(body: bytes, read: object) -> object:
    try:
        return read(body)
    except PilothouseError as exc:
        return type(exc), exc.message, exc.param


@given(st.lists(bodies, min_size=1, max_size=6))
def test_every_request_says_what_the_decoder_says(asked):
    for body in asked + asked:
        assert outcome(body, read_chat) == outcome(body, read_afresh)


@given(st.lists(bodies, min_size=1, max_size=3), st.data())
def test_nor_can_damage_be_told_from_what_the_decoder_says(asked, draw):
    for body in asked:
        outcome(body, read_chat)
    body = bytearray(asked[-1])
    for _ in range(draw.draw(st.integers(1, 3))):
        body[draw.draw(st.integers(0, len(body) - 2))] = draw.draw(st.integers(0, 255))
    try:
        json.loads(bytes(body))
    except ValueError:
        with pytest.raises(PilothouseError):
            read_chat(bytes(body))
    else:
        expected = outcome(bytes(body), read_afresh)
        assert [outcome(bytes(body), read_chat) for _ in range(2)] == [expected, expected]


def test_requests_that_differ_in_their_messages_alone_are_decoded_once_and_tried_once():
    counted = Counted()
    asked = [
        counted.read(body_of([{"role": "user", "content": text}], temperature=0, tools=[TOOL]))
        for text in ("a", 'b"]\\', "ü")
    ]

    assert [messages.of(ask)[0].content for ask in asked] == ["a", 'b"]\\', "ü"]
    assert {ask.prompt_bytes - len(ask.prompt) for ask in asked} == {
        len(json.dumps([TOOL], separators=(",", ":")))
    }
    assert counted.seen == 2
    assert asked[1].sampling is asked[2].sampling
    assert asked[1].sampling_json == asked[0].sampling_json


def test_messages_that_stand_twice_are_left_to_the_decoder():
    twice = (
        b'{"model":"m","messages":[{"role":"user","content":"a"}],"messages":[{"role":"user","content":"a"}]}'
    )
    other = twice.replace(b'"a"}]}', b'"b"}]}')

    assert outcome(twice, read_chat) == outcome(twice, read_chat)
    assert bytes(read_chat(other).prompt) == b'[{"role":"user","content":"b"}]'
    assert bytes(read_chat(twice.replace(b'"a"', b'"c"', 1)).prompt) == b'[{"role":"user","content":"a"}]'


def test_what_no_request_has_twice_is_soon_looked_at_seldom():
    counted = Counted()
    for i in range(200):
        counted.read(body_of([{"role": "user", "content": "a"}], user=f"number {i}"))

    assert counted.seen < 200 + 8 + 200 / 64 + 1


def test_many_kinds_of_requests_are_known_at_once_and_large_ones_are_not_kept():
    counted = Counted()
    kinds = [{"seed": i} for i in range(8)]
    for _ in range(3):
        for kind in kinds:
            counted.read(body_of([{"role": "user", "content": "a"}], **kind))
    assert counted.seen == 2 * len(kinds)

    large = body_of([{"role": "user", "content": "a"}], stop=["x" * 100] * 16, user="y" * 100) + b" " * 70_000
    seen = counted.seen
    outcome(large, counted.read)
    outcome(large, counted.read)
    assert counted.seen == seen + 2


def test_fields_behind_the_messages_are_not_taken_for_messages_of_a_shorter_request():
    counted = Counted()
    said = [{"role": "user", "content": "a"}]
    for _ in range(2):
        counted.read(body_of(said))
    longer = body_of(said)[:-1] + b',"user":"somebody"}'

    assert counted.same.find(longer) is None
    assert counted.read(longer).subject == "somebody"
