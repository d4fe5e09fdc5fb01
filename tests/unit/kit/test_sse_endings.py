"""Line ends may be mixed within one stream, and cut between CR and LF."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.kit.sse import EventParser

ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
LINES = st.sampled_from([b"data: a", b"data:b", b"data: ", b": comment", b"event: x", b"other", b""])


def expected(lines: list[bytes]) -> list[bytes]:
    """What the standard's own steps give, for lines that are already apart."""
    events: list[bytes] = []
    data: list[bytes] = []
    for line in lines:
        if not line and data:
            events.append(b"\n".join(data))
            data = []
        elif line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
    return events


@settings(deadline=None, max_examples=200)
@given(lines=st.lists(st.tuples(LINES, ENDS), max_size=12), cuts=st.lists(st.integers(0, 200), max_size=10))
def test_mixed_line_ends_give_the_events_that_are_there(lines, cuts):
    stream = b""
    for (line, end), following in zip(lines, [*lines, (b"x", b"")][1:], strict=True):
        # A CR before an empty line that ends in LF would be one line's end, not two.
        joins = end == b"\r" and not following[0] and following[1] == b"\n"
        stream += line + (b"\n" if joins else end)
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    parser = EventParser()

    found = [event for start, stop in pairwise(edges) for event in parser.feed(stream[start:stop])]

    assert found == expected([line for line, _ in lines])


def test_a_line_feed_of_its_own_after_a_cut_crlf_ends_the_event():
    parser = EventParser()

    found = [event for piece in (b"data: a\r", b"\n", b"\n") for event in parser.feed(piece)]

    assert found == [b"a"]


def test_an_empty_piece_changes_nothing():
    parser = EventParser()

    found = [event for piece in (b"data: a\r", b"", b"\n", b"\r\n") for event in parser.feed(piece)]

    assert found == [b"a"]
