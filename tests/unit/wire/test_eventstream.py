"""The framing of streams from AWS."""

from struct import pack
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstream_rig import framed, header
from pilothouse.domain.errors import UpstreamError
from pilothouse.wire.bedrock.eventstream import MAX_BYTES, Message, MessageParser

names = st.text(min_size=1, max_size=20)
messages = st.builds(
    Message, st.dictionaries(names, st.text(max_size=40), max_size=4), st.binary(max_size=60)
)
OTHERS = {0: b"", 1: b"", 2: b"x", 3: b"xx", 4: b"xxxx", 5: b"x" * 8, 6: pack(">H", 3) + b"xxx"}
OTHERS |= {8: b"x" * 8, 9: b"x" * 16}


def written(message: Message) -> bytes:
    return framed(b"".join(header(*one) for one in message.headers.items()), message.payload)


@given(st.lists(messages, max_size=4), st.lists(st.integers(1, 40), max_size=20))
def test_however_a_stream_is_cut_its_messages_are_the_same(sent: list[Message], cuts: list[int]) -> None:
    data, parser, found = b"".join(map(written, sent)), MessageParser(), []
    for size in [*cuts, len(data)]:
        found += parser.feed(data[:size])
        data = data[size:]

    assert found == sent
    assert not parser.is_mid_event


@given(messages, st.data())
def test_a_bit_that_was_flipped_is_never_read(message: Message, data: st.DataObject) -> None:
    sent = bytearray(written(message))
    at = data.draw(st.integers(0, len(sent) * 8 - 1))
    sent[at // 8] ^= 1 << at % 8

    with pytest.raises(UpstreamError, match="checksum"):
        MessageParser().feed(bytes(sent))


@given(messages, st.data())
def test_what_was_cut_is_no_message(message: Message, data: st.DataObject) -> None:
    sent = written(message)
    parser = MessageParser()

    assert parser.feed(sent[: data.draw(st.integers(1, len(sent) - 1))]) == []
    assert parser.is_mid_event


def test_headers_that_are_no_text_are_read_over() -> None:
    heads = b"".join(b"\x01" + b"k" + bytes([kind]) + value for kind, value in OTHERS.items())

    assert MessageParser().feed(framed(heads + header("a", "b"), b"p")) == [Message({"a": "b"}, b"p")]


@pytest.mark.parametrize(
    "heads",
    [b"\x05ab", b"\x01a\x07\x00\x09b", b"\x01a\x0b", b"\x01\xff\x07\x00\x00", b"\x01a\x07\x00"],
    ids=["name", "value", "type", "encoding", "length"],
)
def test_headers_that_cannot_be_read_are_an_error(heads: bytes) -> None:
    with pytest.raises(UpstreamError, match="headers"):
        MessageParser().feed(framed(heads, b""))


@pytest.mark.parametrize(("size", "heads"), [(15, 0), (16, 1), (MAX_BYTES + 1, 0)])
def test_a_length_that_cannot_be_is_an_error_before_the_rest_is_waited_for(size: int, heads: int) -> None:
    prelude = pack(">II", size, heads)

    with pytest.raises(UpstreamError, match="length"):
        MessageParser().feed(prelude + pack(">I", crc32(prelude)))
