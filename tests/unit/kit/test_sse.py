"""The event-stream parser: any chunking gives the same events."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.kit.sse import EventParser, EventTooLarge, event

LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
DATA = st.binary(min_size=0, max_size=12).map(lambda b: b.replace(b"\n", b"n").replace(b"\r", b"r"))


def whole_stream(events: list[list[bytes]], end: bytes) -> bytes:
    blocks = [b"".join(b"data: " + line + end for line in lines) + end for lines in events]
    return b": a comment" + end + b"".join(blocks)


def parse(stream: bytes, cuts: list[int]) -> list[bytes]:
    parser = EventParser()
    edges = [0, *sorted(c % (len(stream) + 1) for c in cuts), len(stream)]
    found: list[bytes] = []
    for start, stop in pairwise(edges):
        found.extend(parser.feed(stream[start:stop]))
    return found


@settings(deadline=None)
@given(
    events=st.lists(st.lists(DATA, min_size=1, max_size=3), max_size=5),
    end=LINE_ENDS,
    cuts=st.lists(st.integers(0, 10_000), max_size=8),
)
def test_any_chunking_gives_the_same_events(events: list[list[bytes]], end: bytes, cuts: list[int]) -> None:
    stream = whole_stream(events, end)

    assert parse(stream, cuts) == [b"\n".join(lines) for lines in events]


def test_an_event_cut_by_the_end_of_the_stream_is_never_given() -> None:
    parser = EventParser()

    assert parser.feed(b"data: whole\n\ndata: half") == [b"whole"]
    assert parser.is_mid_event


def test_whole_events_leave_nothing_behind() -> None:
    parser = EventParser()

    assert parser.feed(event(b"a") + event(b"b")) == [b"a", b"b"]
    assert not parser.is_mid_event


def test_an_endless_event_is_refused() -> None:
    parser = EventParser(max_bytes=100)

    parser.feed(b"data: " + b"x" * 90 + b"\n")

    with pytest.raises(EventTooLarge):
        parser.feed(b"data: " + b"x" * 11 + b"\n")


def test_other_fields_are_passed_over() -> None:
    parser = EventParser()

    assert parser.feed(b"event: ping\nid: 1\nretry: 5\ndata:tight\n\n") == [b"tight"]
