"""Records that share a frame come back as they were, and no frame grows beyond its bounds."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.chat import Aside
from pilothouse.domain.entries import ENOUGH_BYTES, MOST, pack, unpack
from pilothouse.domain.record import Content, InferenceRecord, JournalEntry, Shadowed
from pilothouse.testing.examples import make_record

sizes = st.one_of(st.integers(0, 300), st.integers(ENOUGH_BYTES - 1000, 2 * ENOUGH_BYTES))


def an_entry(n: int, size: int = 10) -> JournalEntry:
    content = Content(b"q" * size, ["an answer", "another"], asides=[Aside()]) if n % 3 else None
    shadowed = Shadowed(make_record(f"shadowed-{n}"), ["said"]) if n % 4 == 1 else None
    return JournalEntry(make_record(f"r{n}", output_tokens=n), content, shadowed, n % 2)


@given(st.lists(sizes, max_size=40))
def test_what_was_packed_comes_back_in_its_order(sizes):
    entries = [an_entry(n, size) for n, size in enumerate(sizes)]

    frames = pack(entries)

    assert [entry for frame in frames for entry in unpack(bytes(frame))] == entries


@given(st.lists(sizes, min_size=1, max_size=60))
def test_a_frame_is_closed_once_it_holds_enough(sizes):
    frames = pack([an_entry(n, size) for n, size in enumerate(sizes)])

    shared = [unpack(bytes(frame)) for frame in frames]
    assert all(1 <= len(entries) <= MOST for entries in shared)
    for entries in shared:
        before_the_last = sum(len(bytes(*pack([entry]))) for entry in entries[:-1])
        assert before_the_last < ENOUGH_BYTES + MOST
    for entries, frame in zip(shared[:-1], frames, strict=False):
        assert len(entries) == MOST or len(frame) >= ENOUGH_BYTES, "it was closed while it had room"


def test_a_frame_of_an_earlier_version_is_read():
    """It held one record, by itself, with every field written out."""
    record = make_record("r1", input_tokens=3)
    content = {"request": b"q", "answers": ["a"], "protocol": "openai", "asides": []}
    old = {
        "record": msgspec.structs.asdict(record),
        "content": content,
        "shadowed": None,
        "life": 0,
    }

    assert unpack(msgspec.msgpack.encode(old)) == [JournalEntry(record, Content(b"q", ["a"]))]


def test_a_record_that_says_the_least_comes_back_whole():
    record = InferenceRecord(id="r", time=1.0, team="a", key_id="k", endpoint="chat")

    (frame,) = pack([JournalEntry(record)])

    assert unpack(bytes(frame)) == [JournalEntry(record)]


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x91\x80", b"\x93\x01\x02\x03"])
def test_what_is_no_record_is_an_error(payload):
    with pytest.raises(msgspec.DecodeError):
        unpack(payload)
