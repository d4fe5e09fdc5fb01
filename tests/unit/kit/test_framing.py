import asyncio
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.kit.framing import read_frame


def frame(message: bytes) -> bytes:
    return len(message).to_bytes(4, "big") + message


async def read_all(chunks: list[bytes], *, max_bytes: int = 1000) -> list[bytes]:
    reader = asyncio.StreamReader()
    for chunk in chunks:
        reader.feed_data(chunk)
    reader.feed_eof()
    found: list[bytes] = []
    while (message := await read_frame(reader, max_bytes=max_bytes)) is not None:
        found.append(message)
    return found


@settings(deadline=None)
@given(st.lists(st.binary(max_size=20), max_size=6), st.lists(st.integers(0, 150), max_size=8))
def test_any_chunking_gives_the_same_messages(messages, cuts):
    stream = b"".join(map(frame, messages))
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[a:b] for a, b in pairwise(edges)]

    assert asyncio.run(read_all(chunks)) == messages


@pytest.mark.parametrize("cut", [1, 3, 4, 6])
async def test_an_end_inside_a_message_is_an_error(cut):
    with pytest.raises(ConnectionError, match="inside a message"):
        await read_all([frame(b"hello")[:cut]])


async def test_a_message_over_the_limit_is_refused_before_it_is_read():
    with pytest.raises(ConnectionError, match="over the limit of 10"):
        await read_all([(11).to_bytes(4, "big")], max_bytes=10)
