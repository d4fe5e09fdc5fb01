"""The drain with a real journal, a fake store, and a crash at every step."""

from contextlib import contextmanager

import msgspec
import pytest

from pilothouse.control.drain import Drain
from pilothouse.control.seals import Seals
from pilothouse.domain.entries import pack
from pilothouse.domain.errors import OperationFailed, StoreUnavailable
from pilothouse.domain.record import Content, JournalEntry
from pilothouse.kit.journal import folder
from pilothouse.kit.journal.reader import JournalReader
from pilothouse.kit.journal.writer import JournalWriter
from pilothouse.ports.store import RecordFilter
from pilothouse.testing.examples import make_record
from pilothouse.testing.memory_keys import MemoryKeys
from pilothouse.testing.memory_store import MemoryStore


class Crash(BaseException):
    """Stands for a kill: nothing catches it."""


class House:
    """A journal folder, a store and keys; workers and drains come and go."""

    def __init__(self, folder):
        self.folder = folder
        self.keys = MemoryKeys()
        self.store = MemoryStore()
        self.seals = Seals(self.keys)

    def writer(self, name="w1", segment_bytes=64 * 1024) -> JournalWriter:
        writer = JournalWriter(
            self.folder,
            writer=name,
            segment_bytes=segment_bytes,
            wrap=lambda key: self.keys.wrap(key, context=b"journal"),
        )
        writer.open()
        return writer

    def reader(self) -> JournalReader:
        return JournalReader(self.folder, unwrap=lambda key: self.keys.unwrap(key, context=b"journal"))

    def drain(self, **options) -> Drain:
        return Drain(self.reader(), Seals(self.keys), **options)

    def ids(self) -> list[str]:
        with self.store.unit() as unit:
            return sorted(record.id for record in unit.records.page(RecordFilter(), limit=10_000).items)

    def counted(self) -> int:
        with self.store.unit() as unit:
            return sum(line.sums.requests for line in unit.usage.report("team", since=0, until=1e6))

    def content(self, record_id: str) -> Content:
        with self.store.unit() as unit:
            return Seals(self.keys).open(unit, unit.records.content(record_id))


@pytest.fixture
def house(tmp_path):
    return House(tmp_path / "journal")


def entry(record_id: str, **changes) -> JournalEntry:
    content = Content(f"question {record_id}".encode(), [f"answer {record_id}"])
    return JournalEntry(make_record(record_id, **changes), content)


def fill(writer: JournalWriter, ids: list[str], *, a_frame: int = 1) -> None:
    """So many records share a frame."""
    entries = [
        entry(record_id, subject_hash=f"s{n % 3}" if n % 3 else "", time=60.0 + n)
        for n, record_id in enumerate(ids)
    ]
    for at in range(0, len(entries), a_frame):
        writer.append(*pack(entries[at : at + a_frame]))


def names(n: int, prefix: str = "r") -> list[str]:
    return [f"{prefix}{i:04d}" for i in range(n)]


def test_records_of_a_living_writer_arrive_sealed_and_readable(house):
    writer = house.writer()
    fill(writer, names(10))

    result = house.drain().drain_once(house.store)

    assert (result.records, result.lag_records, result.lag_bytes) == (10, 0, 0)
    assert house.ids() == names(10)
    assert house.content("r0004") == Content(b"question r0004", ["answer r0004"])
    writer.close()


def test_a_second_pass_takes_only_what_is_new(house):
    writer, drain = house.writer(), house.drain()
    fill(writer, names(3))
    drain.drain_once(house.store)
    fill(writer, names(2, "s"))

    assert drain.drain_once(house.store).records == 2
    assert drain.drain_once(house.store).records == 0
    assert house.counted() == 5
    writer.close()


def test_finished_segments_are_deleted_and_forgotten_and_living_ones_stay(house):
    writer = house.writer()
    fill(writer, names(3))
    house.drain().drain_once(house.store)
    assert len(house.reader().segments()) == 2
    writer.close()

    house.drain().drain_once(house.store)

    assert house.reader().segments() == []
    with house.store.unit() as unit:
        assert unit.journals.positions() == {}


def test_a_pass_is_bounded_and_says_what_is_left(house):
    writer = house.writer()
    fill(writer, names(50))
    drain = house.drain(batch_records=10, batches=1)

    results = [drain.drain_once(house.store) for _ in range(4)]

    lags = [result.lag_records for result in results]
    assert lags == sorted(lags, reverse=True)
    assert sum(r.records for r in results) + lags[-1] == 50
    assert all(r.lag_bytes > 0 for r in results if r.lag_records)
    writer.close()


def test_the_lag_counts_what_comes_while_it_drains(house):
    writer = house.writer()
    fill(writer, names(50))
    drain = house.drain(batch_records=10, batches=1)
    first = drain.drain_once(house.store)
    fill(writer, names(30, "s"))

    second = drain.drain_once(house.store)

    assert second.lag_records == 80 - first.records - second.records
    writer.close()


def test_the_lag_counts_records_that_share_frames(house):
    writer = house.writer()
    fill(writer, names(60), a_frame=3)
    drain = house.drain(batch_records=30, batches=1)

    results = [drain.drain_once(house.store) for _ in range(2)]

    assert sum(result.records for result in results) + results[-1].lag_records == 60
    writer.close()


def test_a_batch_is_bounded_by_records_however_many_share_a_frame(house):
    writer = house.writer()
    fill(writer, names(15), a_frame=15)
    drain = house.drain(batch_records=20, batches=1)
    drain.drain_once(house.store)
    fill(writer, names(150, "s"), a_frame=15)

    results = [drain.drain_once(house.store).records for _ in range(12)]

    assert max(results) <= 20 + 15
    assert house.ids() == names(15) + names(150, "s")
    writer.close()


def test_frames_of_an_earlier_version_and_of_this_one_stand_in_one_segment(house):
    writer = house.writer()
    writer.append(msgspec.msgpack.encode(entry("old1")))
    fill(writer, names(4), a_frame=3)
    writer.append(msgspec.msgpack.encode(entry("old2")))
    writer.close()

    result = house.drain().drain_once(house.store)

    assert (result.records, result.corrupt) == (6, ())
    assert house.ids() == ["old1", "old2", *names(4)]


def test_no_writer_waits_for_another_to_be_drained(house):
    busy, quiet = house.writer("a-busy"), house.writer("z-quiet")
    fill(busy, names(100))
    fill(quiet, names(1, "q"))

    house.drain(batch_records=5, batches=1).drain_once(house.store)

    assert "q0000" in house.ids()
    busy.close()
    quiet.close()


class Fault:
    """Raises at the n-th step that passes through it."""

    def __init__(self, at: int, error: BaseException):
        self.left, self.error, self.struck = at, error, False

    def step(self) -> None:
        if self.left == 0 and not self.struck:
            self.struck = True
            raise self.error
        self.left -= 1

    def around(self, call):
        def wrapped(*args, **kwargs):
            self.step()
            value = call(*args, **kwargs)
            self.step()
            return value

        return wrapped


class FaultyStore:
    """Fails before, inside or at the end of a unit."""

    def __init__(self, store, fault):
        self._store, self._fault = store, fault

    @contextmanager
    def unit(self, *, urgent=False):
        self._fault.step()
        with self._store.unit(urgent=urgent) as unit:
            unit.records.insert_many = self._fault.around(unit.records.insert_many)
            unit.journals.advance = self._fault.around(unit.journals.advance)
            yield unit
            self._fault.step()
        self._fault.step()


def drain_with_fault(house, fault) -> None:
    drain = house.drain(batch_records=4)
    for name in ("read", "delete", "quarantine", "segments"):
        setattr(drain._reader, name, fault.around(getattr(drain._reader, name)))
    for _ in range(3):
        drain.drain_once(FaultyStore(house.store, fault))


@pytest.mark.parametrize("error", [Crash(), StoreUnavailable("full")], ids=["killed", "store-fails"])
def test_stopped_at_any_step_nothing_is_lost_and_nothing_is_there_twice(tmp_path, error, monkeypatch):
    monkeypatch.setattr(folder, "sync_folder", lambda _: None)  # no power is lost here, and it takes 10 ms
    for at in range(200):
        house = House(tmp_path / str(at))
        dead, alive = house.writer("dead"), house.writer("alive")
        fill(dead, names(10, "d"), a_frame=1 + at % 3)
        fill(alive, names(5, "a"))
        dead.close()
        fault = Fault(at, error)
        try:
            drain_with_fault(house, fault)
        except (Crash, StoreUnavailable):
            pass
        while house.drain(batch_records=4).drain_once(house.store).lag_records:
            pass
        assert house.ids() == names(5, "a") + names(10, "d"), at
        assert house.counted() == 15, at
        assert len(house.reader().segments()) == 2, at
        alive.close()
        if not fault.struck:
            assert at > 40
            return
    raise AssertionError("the fault never came to the end of a pass")


def test_the_same_drain_goes_on_after_a_pass_that_failed_at_any_step(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "sync_folder", lambda _: None)  # as above
    for at in range(200):
        house = House(tmp_path / str(at))
        writer, drain, fault = (
            house.writer(),
            house.drain(batch_records=4),
            Fault(at, StoreUnavailable("full")),
        )
        for prefix in "abc":
            fill(writer, names(6, prefix))
            try:
                drain.drain_once(FaultyStore(house.store, fault))
            except StoreUnavailable:
                pass
        while drain.drain_once(house.store).lag_records:
            pass
        assert house.counted() == len(house.ids()) == 18, at
        writer.close()
        if not fault.struck:
            assert at > 20
            return
    raise AssertionError("the fault never came to the end of a pass")


def test_every_pass_looks_at_the_store_and_one_that_brings_records_does_it_once(house, monkeypatch):
    writer, drain = house.writer(), house.drain()
    drain.drain_once(house.store)
    units = []
    begin = house.store.unit
    monkeypatch.setattr(house.store, "unit", lambda **how: units.append(how) or begin(**how))

    drain.drain_once(house.store)
    without = len(units)
    fill(writer, names(3))
    drain.drain_once(house.store)

    assert (without, len(units) - without) == (1, 1)
    monkeypatch.undo()
    assert house.ids() == names(3)
    writer.close()


def test_a_torn_end_is_dropped_and_told(house):
    writer = house.writer()
    fill(writer, names(3))
    writer.close()
    reader = house.reader()
    path = max((reader.path(name) for name in reader.segments()), key=lambda p: reader.pending(p.stem, 0))
    with path.open("r+b") as file:
        file.truncate(reader.used_bytes(path.stem) - 30)

    result = house.drain().drain_once(house.store)

    assert house.ids() == names(2)
    (told,) = result.torn
    assert told == f"{path.stem}: a frame is not complete"
    assert result.corrupt == ()
    assert not path.exists()


def test_a_torn_end_takes_those_along_that_shared_its_frame_and_no_others(house):
    """Nobody was told that they are kept: that is said once the whole frame is written."""
    writer = house.writer()
    fill(writer, names(9), a_frame=4)
    fill(writer, names(3, "torn"), a_frame=3)
    writer.close()
    reader = house.reader()
    path = max((reader.path(name) for name in reader.segments()), key=lambda p: reader.pending(p.stem, 0))
    with path.open("r+b") as file:
        file.truncate(reader.used_bytes(path.stem) - 30)

    result = house.drain().drain_once(house.store)

    assert house.ids() == names(9)
    assert len(result.torn) == 1
    assert result.corrupt == ()


def damage_second_frame(house) -> str:
    reader = house.reader()
    path = max((reader.path(name) for name in reader.segments()), key=lambda p: reader.pending(p.stem, 0))
    second = reader.read(path.stem, 0, max_frames=1).offset
    data = bytearray(path.read_bytes())
    data[second + 30] ^= 1
    path.write_bytes(data)
    return path.stem


def test_a_damaged_segment_is_told_put_aside_and_drained_but_for_the_damage(house):
    writer = house.writer()
    fill(writer, names(4))
    writer.close()
    segment = damage_second_frame(house)
    drain = house.drain()

    result = drain.drain_once(house.store)
    again = drain.drain_once(house.store)

    assert house.ids() == ["r0000", "r0002", "r0003"]
    assert len(result.corrupt) == 1
    assert segment in result.corrupt[0]
    assert (again.corrupt, again.records) == ((), 0)
    assert house.reader().damaged() == [segment]


def test_a_frame_that_is_no_entry_is_told_and_put_aside_and_the_others_go_on(house):
    writer = house.writer()
    fill(writer, names(1))
    writer.append(b"\xc1 not msgpack")
    writer.append(msgspec.msgpack.encode({"another": "version"}))
    fill(writer, names(1, "s"))
    writer.close()

    result = house.drain().drain_once(house.store)

    assert house.ids() == ["r0000", "s0000"]
    assert len(result.corrupt) == 2
    assert len(house.reader().damaged()) == 1


def test_a_segment_whose_key_is_not_here_blocks_no_other_and_is_kept(house):
    other = House(house.folder)
    stranger, ours = other.writer("stranger"), house.writer("ours")
    fill(stranger, names(2, "x"))
    fill(ours, names(2))
    stranger.close()

    result = house.drain().drain_once(house.store)

    assert house.ids() == names(2)
    assert result.blocked
    assert "stranger" in result.blocked[0]
    assert result.lag_records == 2
    assert other.drain().drain_once(other.store).records >= 2
    ours.close()


def test_a_journal_that_cannot_be_read_is_a_store_error(house, monkeypatch):
    drain = house.drain()

    def broken():
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(drain._reader, "segments", broken)

    with pytest.raises(StoreUnavailable, match="Permission denied"):
        drain.drain_once(house.store)


def test_keys_that_are_gone_do_not_mark_a_segment_damaged(house):
    writer = house.writer()
    fill(writer, names(2))
    writer.close()
    house.keys = MemoryKeys()

    result = house.drain().drain_once(house.store)

    assert result.blocked
    assert house.reader().damaged() == []
    with pytest.raises(OperationFailed):
        house.reader().read(result.blocked[0].split(":")[0], 0)


def test_a_record_that_cannot_be_stored_is_told_and_stops_no_other(house):
    writer = house.writer()
    for record_id in names(6):
        writer.append(*pack([entry(record_id, input_tokens=2**63 if record_id == "r0003" else 1)]))
    drain = house.drain()

    class Picky(FaultyStore):
        @contextmanager
        def unit(self, *, urgent=False):
            with self._store.unit(urgent=urgent) as unit:
                real = unit.records.insert_many

                def insert_many(rows):
                    if any(row.record.input_tokens >= 2**63 for row in rows):
                        raise OverflowError("too large")
                    return real(rows)

                unit.records.insert_many = insert_many
                yield unit

    result = drain.drain_once(Picky(house.store, None))
    again = drain.drain_once(Picky(house.store, None))

    assert house.ids() == [i for i in names(6) if i != "r0003"]
    assert house.counted() == 5
    assert (result.records, again.records) == (5, 0)
    assert "r0003 cannot be stored: OverflowError" in result.corrupt[0]
    assert again.corrupt == ()
    assert len(house.reader().damaged()) == 1
    writer.close()
