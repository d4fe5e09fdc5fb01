"""The journal on a real (temporary) file: what is read is what was appended, or it is told."""

import asyncio
import errno
import os
import shutil
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.kit.journal import folder
from pilothouse.kit.journal.frames import (
    aligned,
    decode_head,
    decode_header,
    encode_frame,
    encode_header,
    framed_bytes,
)
from pilothouse.kit.journal.reader import JournalReader
from pilothouse.kit.journal.writer import JournalFull, JournalWriter

SEGMENT_BYTES = 64 * 1024


def wrap(key: bytes) -> bytes:
    return bytes(b ^ 0x5A for b in key)


def make_writer(path: Path, **changes) -> JournalWriter:
    options = {"writer": "w1", "segment_bytes": SEGMENT_BYTES, "wrap": wrap} | changes
    writer = JournalWriter(path, **options)
    writer.open()
    return writer


def make_reader(path: Path) -> JournalReader:
    return JournalReader(path, unwrap=wrap)


def wait_until(is_true) -> None:
    """Bounded wait for a background thread."""
    tick = threading.Event()
    for _ in range(2000):
        if is_true():
            return
        tick.wait(0.005)
    raise AssertionError("it never came true")


def read_all(reader: JournalReader, *, put_aside: bool = False) -> tuple[list[bytes], list[str]]:
    """Everything readable in all segments, and what was said about the rest."""
    frames, said = [], []
    for name in reader.segments():
        offset = 0
        while True:
            batch = reader.read(name, offset)
            frames += batch.frames
            if batch.reason or batch.state == "damaged":
                said.append(f"{batch.state}: {batch.reason}")
            if batch.state == "damaged" and put_aside:
                reader.quarantine(name)
            offset = batch.resume if batch.state == "damaged" else batch.offset
            if batch.state in ("done", "waiting"):
                break
    return frames, said


@pytest.fixture
def three_frames(tmp_path):
    """A finished segment with three frames: its path, and what it holds."""
    writer = make_writer(tmp_path / "j")
    payloads = [b"first" * 3, b"second", b"third one" * 5]
    for payload in payloads:
        writer.append(payload)
    writer.close()
    (path,) = [p for p in (tmp_path / "j").iterdir() if make_reader(tmp_path / "j").pending(p.stem, 0)[0]]
    return path, payloads


# Writing and reading


def test_what_was_appended_is_read_in_order_while_the_writer_lives(tmp_path):
    writer = make_writer(tmp_path)
    for n in range(10):
        writer.append(b"%d" % n)
    reader = make_reader(tmp_path)

    first = reader.read(reader.segments()[0], 0, max_frames=4)
    rest = reader.read(reader.segments()[0], first.offset)

    assert first.frames + rest.frames == [b"%d" % n for n in range(10)]
    assert (first.state, rest.state) == ("more", "waiting")
    writer.close()


def test_reading_goes_on_where_it_stopped(tmp_path):
    writer = make_writer(tmp_path)
    reader = make_reader(tmp_path)
    name = reader.segments()[0]
    writer.append(b"a")
    offset = reader.read(name, 0).offset

    writer.append(b"b")

    assert reader.read(name, offset).frames == [b"b"]
    writer.close()


def test_a_batch_stops_at_its_byte_limit(tmp_path):
    writer = make_writer(tmp_path)
    for _ in range(5):
        writer.append(bytes(1000))
    reader = make_reader(tmp_path)

    batch = reader.read(reader.segments()[0], 0, max_bytes=2500)

    assert len(batch.frames) == 3
    assert batch.state == "more"
    writer.close()


def test_an_append_is_one_write_and_touches_no_other_file(tmp_path, monkeypatch):
    writer = make_writer(tmp_path)
    calls = []
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda *args: calls.append("pwritev") or real(*args))
    for name in ("open", "fsync", "fdatasync", "posix_fallocate", "rename", "write"):
        monkeypatch.setattr(os, name, lambda *args, name=name: calls.append(name))

    writer.append(b"x" * 2048)

    assert calls == ["pwritev"]
    monkeypatch.undo()
    writer.close()


def test_the_file_holds_no_plaintext(three_frames):
    path, payloads = three_frames
    data = path.read_bytes()

    assert not [p for p in payloads if p in data]


def test_segments_are_private_to_their_user(three_frames):
    path, _ = three_frames

    assert path.stat().st_mode & 0o077 == 0


@given(st.lists(st.lists(st.binary(max_size=3000), min_size=1, max_size=4), max_size=30))
@settings(deadline=None, max_examples=25)
def test_any_payloads_come_back_whole_across_rotations(tmp_path_factory, groups):
    """Those appended together as well, which one segment may not hold."""
    path = tmp_path_factory.mktemp("journal")
    writer = make_writer(path, segment_bytes=16 * 1024)
    kept = []
    for group in groups:
        wait_until(lambda: writer.has_room(4 * 3100))
        writer.append(*group)
        kept += group
    writer.close()

    frames, said = read_all(make_reader(path))

    assert frames == kept
    assert said == []
    shutil.rmtree(path)


# Segments


def test_a_full_segment_is_followed_by_the_spare_and_then_finished(tmp_path):
    writer = make_writer(tmp_path, segment_bytes=8 * 1024)
    reader = make_reader(tmp_path)
    first = reader.segments()[0]
    for _ in range(3):
        writer.append(bytes(3000))

    wait_until(lambda: reader.read(first, 0).state == "done")

    assert len(reader.read(first, 0).frames) == 2
    wait_until(lambda: writer.has_room(8000))
    assert len(reader.segments()) == 3
    writer.close()


def test_a_payload_larger_than_a_segment_is_refused_and_nothing_else_suffers(tmp_path):
    writer = make_writer(tmp_path)

    assert not writer.has_room(SEGMENT_BYTES)
    with pytest.raises(JournalFull):
        writer.append(bytes(SEGMENT_BYTES))

    writer.append(b"fits")
    assert read_all(make_reader(tmp_path))[0] == [b"fits"]
    writer.close()


def test_room_is_said_exactly(tmp_path):
    writer = make_writer(tmp_path, segment_bytes=8 * 1024)
    largest = max(n for n in range(8 * 1024) if writer.has_room(n))

    writer.append(bytes(largest))

    assert read_all(make_reader(tmp_path))[0] == [bytes(largest)]
    writer.close()


def test_two_lives_of_one_writer_never_use_a_name_twice(tmp_path):
    names = set()
    for _ in range(3):
        writer = make_writer(tmp_path)
        names |= (living := set(make_reader(tmp_path).segments()))
        writer.append(b"x")
        writer.close()
        assert len(living) >= 2

    assert len(make_reader(tmp_path).segments()) >= 3
    assert len(names) == 6


def test_empty_segments_of_dead_writers_are_cleared_away_and_others_kept(tmp_path):
    first = make_writer(tmp_path)
    first.append(b"kept")
    first.close()
    (tmp_path / "w1-0000000000000001.tmp").write_bytes(b"")

    second = make_writer(tmp_path, writer="w2")

    left = sorted(p.name.split("-")[0] + p.suffix for p in tmp_path.iterdir())
    assert left == ["w1.journal", "w2.journal", "w2.journal"]
    second.close()


def test_a_living_writers_segments_are_never_cleared_away(tmp_path):
    first = make_writer(tmp_path)
    before = make_reader(tmp_path).segments()

    make_reader(tmp_path).remove_leftovers()

    assert make_reader(tmp_path).segments() == before
    first.close()


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b", "x" * 65, "é"])
def test_a_writer_name_that_is_no_file_name_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="writer's name"):
        JournalWriter(tmp_path, writer=name, segment_bytes=SEGMENT_BYTES, wrap=wrap)


def test_a_segment_size_that_holds_nothing_is_refused(tmp_path):
    writer = JournalWriter(tmp_path, writer="w", segment_bytes=64, wrap=wrap)

    with pytest.raises(ValueError, match="holds nothing"):
        writer.open()


# A disk that is full, or fails


def test_a_full_disk_is_no_room_and_is_tried_again_until_it_works(tmp_path, monkeypatch):
    is_full = True

    def preallocate(fd, size):
        if is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        os.posix_fallocate(fd, 0, size)

    monkeypatch.setattr(folder, "preallocate", preallocate)
    writer = make_writer(tmp_path)

    assert not writer.has_room(1)
    assert "No space left" in writer.problem
    with pytest.raises(JournalFull, match="No space left"):
        writer.append(b"x")
    wait_until(lambda: list(tmp_path.iterdir()) == [])  # it is tried again and again: each try leaves nothing

    is_full = False
    wait_until(lambda: writer.has_room(1))
    writer.append(b"x")

    assert read_all(make_reader(tmp_path))[0] == [b"x"]
    assert writer.problem == ""
    writer.close()


def test_a_key_service_that_fails_for_a_while_does_not_end_the_journal(tmp_path):
    broken = False

    def unsteady(key):
        if broken:
            raise RuntimeError("key service away")
        return wrap(key)

    writer = make_writer(tmp_path, segment_bytes=8 * 1024, wrap=unsteady)
    broken = True
    writer.append(bytes(6000))
    writer.append(bytes(6000))
    wait_until(lambda: "key service away" in writer.problem)
    assert not writer.has_room(6000)

    broken = False
    wait_until(lambda: writer.has_room(6000))
    writer.close()


def test_more_frames_than_a_system_call_takes_are_all_written(tmp_path):
    writer = make_writer(tmp_path)

    writer.append(*[b"%d" % i for i in range(1500)])
    writer.close()

    frames, _ = read_all(make_reader(tmp_path))
    assert frames == [b"%d" % i for i in range(1500)]


@pytest.mark.parametrize("fault", ["raises", "short"])
def test_a_write_that_fails_keeps_nothing_and_the_next_goes_to_the_spare(tmp_path, monkeypatch, fault):
    writer = make_writer(tmp_path)
    writer.append(b"before")
    real = os.pwritev

    def failing(fd, data, at):
        if fault == "raises":
            raise OSError(errno.EIO, "Input/output error")
        return real(fd, [data[0][:20]], at)

    monkeypatch.setattr(os, "pwritev", failing)
    with pytest.raises(JournalFull):
        writer.append(b"lost, and the caller knows it")
    monkeypatch.undo()
    writer.append(b"after")
    writer.close()

    frames, said = read_all(make_reader(tmp_path))
    assert frames == [b"before", b"after"]
    assert len(said) == (fault == "short")


def test_a_folder_that_cannot_be_made_is_an_error_at_once(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(OSError, match="file"):
        make_writer(tmp_path / "file" / "journal")


# Torn and damaged


def test_cut_at_every_byte_the_whole_frames_before_the_cut_are_read(three_frames, tmp_path):
    path, payloads = three_frames
    data = path.read_bytes()
    header_ends = 24 + len("w1") + 32 + 4
    starts = [aligned(header_ends)]
    for payload in payloads:
        starts.append(starts[-1] + framed_bytes(len(payload)))
    # A frame ends before its padding does.
    ends = [start + 24 + len(p) + 16 for start, p in zip(starts, payloads, strict=False)]

    for cut in range(starts[-1] + 8):
        path.write_bytes(data[:cut])
        frames, said = read_all(make_reader(path.parent))
        inside_a_frame = any(start < cut < end for start, end in zip(starts, ends, strict=False))
        assert frames == payloads[: sum(cut >= end for end in ends)], cut
        assert bool(said) == (0 < cut < header_ends or inside_a_frame), cut


def test_a_flipped_bit_in_every_byte_is_noticed_or_harmless_and_costs_one_frame_at_most(three_frames):
    path, payloads = three_frames
    data = path.read_bytes()
    header = decode_header(data[:4096]).size
    used = header + sum(framed_bytes(len(p)) for p in payloads)

    for at in range(used):
        altered = bytearray(data)
        altered[at] ^= 1 << (at % 8)
        path.write_bytes(altered)
        frames, said = read_all(make_reader(path.parent))
        lost = [p for p in payloads if p not in frames]
        assert all(f in payloads for f in frames)
        if at < header:
            assert (lost == payloads and said == ["damaged: its header is not whole"]) or (
                not lost and not said
            ), at
        else:
            assert len(lost) == len(said) <= 1, at


def test_damage_before_good_frames_puts_the_segment_aside_and_reads_the_rest(three_frames):
    path, payloads = three_frames
    data = bytearray(path.read_bytes())
    second = decode_header(bytes(data[:4096])).size + framed_bytes(len(payloads[0]))
    data[second + 25] ^= 1
    path.write_bytes(data)
    reader = make_reader(path.parent)

    frames, said = read_all(reader, put_aside=True)

    assert frames == [payloads[0], payloads[2]]
    assert said == ["damaged: a frame does not authenticate"]
    assert not path.exists()
    assert reader.damaged() == [path.stem]
    assert path.stem in reader.segments()
    assert read_all(reader)[0] == frames


def test_a_bad_frame_is_not_complete_yet_while_its_writer_lives(tmp_path):
    writer = make_writer(tmp_path)
    writer.append(b"one")
    writer.append(b"two")
    reader = make_reader(tmp_path)
    path = reader.path(reader.segments()[0])
    start = decode_header(path.read_bytes()[:4096]).size
    with path.open("r+b") as file:
        file.seek(start + 40)
        good = file.read(1)
        file.seek(start + 40)
        file.write(bytes([good[0] ^ 1]))

    assert reader.read(path.stem, 0).state == "waiting"
    writer.close()
    assert reader.read(path.stem, 0).state == "damaged"


def test_frames_swapped_within_a_segment_do_not_open(tmp_path):
    writer = make_writer(tmp_path)
    writer.append(b"aaaa")
    writer.append(b"bbbb")
    writer.close()
    reader = make_reader(tmp_path)
    (name,) = [n for n in reader.segments() if reader.pending(n, 0)[0]]
    path = reader.path(name)
    data = bytearray(path.read_bytes())
    start, step = decode_header(bytes(data[:4096])).size, framed_bytes(4)
    one, two = data[start : start + step], data[start + step : start + 2 * step]
    data[start : start + 2 * step] = two + one
    path.write_bytes(data)

    assert read_all(make_reader(tmp_path))[0] == []


def test_a_segment_passed_off_as_another_does_not_open(three_frames, tmp_path):
    path, _ = three_frames
    data = path.read_bytes()
    header = decode_header(data[:4096])
    forged = encode_header(header.writer, header.seq + 1, header.wrapped_key)
    path.write_bytes(forged + data[header.size :])

    frames, said = read_all(make_reader(path.parent))

    assert frames == []
    assert said


def test_a_missing_key_is_an_error_and_no_damage(three_frames):
    path, _ = three_frames

    def no_key(_wrapped):
        raise LookupError("the key is not here")

    with pytest.raises(LookupError):
        JournalReader(path.parent, unwrap=no_key).read(path.stem, 0)
    assert path.exists()


def test_a_segment_of_zeros_is_empty_and_not_damaged(tmp_path):
    (tmp_path / "w1-0000000000000001.journal").write_bytes(bytes(9000))

    assert make_reader(tmp_path).read("w1-0000000000000001", 0).state == "done"


def test_a_copy_of_the_used_bytes_holds_everything(three_frames, tmp_path):
    path, payloads = three_frames
    reader = make_reader(path.parent)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / path.name).write_bytes(path.read_bytes()[: reader.used_bytes(path.stem)])

    assert read_all(make_reader(copy)) == (payloads, [])
    assert (copy / path.name).stat().st_size < 1000


def test_pending_counts_frames_and_bytes(three_frames):
    path, payloads = three_frames
    reader = make_reader(path.parent)
    after_first = reader.read(path.stem, 0, max_frames=1).offset

    assert reader.pending(path.stem, 0) == (3, sum(framed_bytes(len(p)) for p in payloads))
    assert reader.pending(path.stem, after_first)[0] == 2


def test_a_deleted_segment_is_gone(three_frames):
    path, _ = three_frames
    reader = make_reader(path.parent)
    reader.delete(path.stem)
    reader.delete(path.stem)

    with pytest.raises(FileNotFoundError):
        reader.read(path.stem, 0)


def test_no_folder_is_no_segments(tmp_path):
    assert make_reader(tmp_path / "none").segments() == []


# Power


async def test_in_process_mode_nothing_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "sync_data", lambda fd: pytest.fail("synced"))
    writer = make_writer(tmp_path)
    writer.append(b"x")

    await writer.durable()

    writer.close()


async def test_in_power_mode_waiters_share_a_sync_that_covers_their_append(tmp_path, monkeypatch):
    syncs = []
    gate = threading.Event()

    def slow(fd):
        gate.wait(5)
        syncs.append(fd)

    writer = make_writer(tmp_path, sync="power")
    monkeypatch.setattr(folder, "sync_data", slow)

    async def keep(n):
        writer.append(b"%d" % n)
        await writer.durable()

    first = asyncio.create_task(keep(0))
    await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    others = [asyncio.create_task(keep(n)) for n in range(1, 50)]
    await asyncio.sleep(0)
    assert not first.done()
    gate.set()
    await asyncio.gather(first, *others)

    assert len(syncs) == 2
    monkeypatch.undo()
    writer.close()


async def test_in_power_mode_a_rotation_is_covered_too(tmp_path):
    writer = make_writer(tmp_path, sync="power", segment_bytes=8 * 1024)
    for _ in range(4):
        wait_until(lambda: writer.has_room(5000))
        writer.append(bytes(5000))
        await writer.durable()
    writer.close()

    assert len(read_all(make_reader(tmp_path))[0]) == 4


async def test_in_power_mode_a_failed_sync_is_told_and_the_segment_left(tmp_path, monkeypatch):
    writer = make_writer(tmp_path, sync="power")

    def broken(fd):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(folder, "sync_data", broken)
    writer.append(b"doubtful")
    with pytest.raises(JournalFull, match="sync"):
        await writer.durable()
    monkeypatch.undo()
    wait_until(lambda: writer.has_room(1))
    writer.append(b"sure")
    try:
        await writer.durable()
    except JournalFull:  # the failing close of the segment that was left, told once
        await writer.durable()

    assert read_all(make_reader(tmp_path))[0] == [b"doubtful", b"sure"]
    writer.close()


async def test_cancelling_one_waiter_leaves_the_others_alone(tmp_path, monkeypatch):
    writer = make_writer(tmp_path, sync="power")
    gate = threading.Event()
    monkeypatch.setattr(folder, "sync_data", lambda fd: gate.wait(5))
    writer.append(b"x")
    one, two = asyncio.create_task(writer.durable()), asyncio.create_task(writer.durable())
    await asyncio.sleep(0.01)
    one.cancel()
    await asyncio.sleep(0)
    gate.set()

    await two

    assert one.cancelled()
    monkeypatch.undo()
    writer.close()


# The format


@given(st.text("abc-_.019", min_size=1, max_size=64), st.integers(0, 2**63), st.binary(max_size=300))
@settings(deadline=None)
def test_a_header_reads_back_as_it_was_written(writer, seq, wrapped):
    header = decode_header(encode_header(writer, seq, wrapped) + b"more")

    assert (header.writer, header.seq, header.wrapped_key) == (writer, seq, wrapped)


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_are_read_as_a_header_or_a_head_without_error(data):
    decode_header(data)
    decode_header(b"sealjrn1" + data)
    decode_head(data, room=len(data))
    decode_head(b"\xf5jR\x0e" + data, room=len(data) + 4)


@given(st.binary(min_size=16, max_size=100), st.binary(min_size=12, max_size=12))
@settings(deadline=None)
def test_a_frame_takes_the_room_that_was_said(body, nonce):
    frame = b"".join(encode_frame(nonce, body, framed_bytes(len(body) - 16)))
    head = decode_head(frame, room=len(frame))

    assert head.fits(body[-16:])
    assert len(frame) == aligned(len(frame)) == head.framed_bytes


def test_a_wrapped_key_too_large_for_a_header_is_refused():
    with pytest.raises(ValueError, match="4096"):
        encode_header("w", 1, bytes(5000))
