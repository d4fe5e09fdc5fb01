"""Workers and drains are killed at any time: what was acknowledged is in the store, once."""

import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from pilothouse.adapters.keys.file import FileKeys
from pilothouse.adapters.stores.sqlite import SqliteStore
from pilothouse.app.stores import open_store
from pilothouse.config import Settings, make_settings
from pilothouse.control.drain import Drain
from pilothouse.control.seals import Seals
from pilothouse.domain.errors import StoreUnavailable
from pilothouse.domain.record import Content, JournalEntry
from pilothouse.kit.journal.reader import JournalReader
from pilothouse.kit.journal.writer import JournalFull, JournalWriter
from pilothouse.ports.store import RecordFilter, Store
from pilothouse.testing.examples import make_record
from small_disk import fill_disk, small_disk

WRITER = """
import os, sys, time
from pathlib import Path
from pilothouse.adapters.keys.file import FileKeys
from pilothouse.domain.entries import pack
from pilothouse.domain.errors import StoreUnavailable
from pilothouse.domain.record import Content, JournalEntry
from pilothouse.kit.journal.writer import JournalFull, JournalWriter
from pilothouse.testing.examples import make_record

home, life, pause_s = Path(sys.argv[1]), sys.argv[2], float(sys.argv[4])
keys = FileKeys(home / "keys")
writer = JournalWriter(home / "journal", writer="w", segment_bytes=256 * 1024,
                       wrap=lambda key: keys.wrap(key, context=b"journal"), sync=sys.argv[3])
writer.open()
def entry(n):
    content = Content(f"{life}-{n}".encode() * 100, ["x" * (n % 4000)])
    return JournalEntry(make_record(f"{life}-{n}"), content)

n = 0
while True:
    together = range(n, n + 1 + n % 7)
    n = together.stop
    try:
        writer.append(*pack([entry(one) for one in together]))
    except JournalFull:
        continue
    os.write(1, "".join(f"{life}-{one}\\n" for one in together).encode())
    time.sleep(pause_s)
"""

DRAIN = """
import sys
from pathlib import Path
from pilothouse.adapters.keys.file import FileKeys
from pilothouse.app.stores import open_store
from pilothouse.config import make_settings
from pilothouse.control.drain import Drain
from pilothouse.control.seals import Seals
from pilothouse.kit.journal.reader import JournalReader

home = Path(sys.argv[1])
keys = FileKeys(home / "keys")
settings = make_settings(home=str(home), store=sys.argv[2], store_password=sys.argv[3])
store = open_store(settings)
reader = JournalReader(home / "journal", unwrap=lambda key: keys.unwrap(key, context=b"journal"))
drain = Drain(reader, Seals(keys), batch_records=20)
print("ready", flush=True)
while True:
    drain.drain_once(store)
"""


class Child:
    """A process that says one line for each thing done, and is killed sooner or later."""

    def __init__(self, code: str, *args: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, args)], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self._pipe = self._process.stdout
        self._said = b""

    def said(self, count: int) -> None:
        """Wait until it said `count` lines more."""
        before = self._said.count(b"\n")
        while self._said.count(b"\n") < before + count:
            assert select.select([self._pipe], [], [], 30)[0], "the child says nothing"
            read = os.read(self._pipe.fileno(), 1 << 16)
            assert read, "the child ended by itself"
            self._said += read

    def kill(self) -> list[str]:
        """End it at once; return all that it said."""
        self._process.send_signal(signal.SIGKILL)
        self._said += self._pipe.read()
        self._pipe.close()
        self._process.wait(timeout=10)
        return self._said.decode().split()


@pytest.fixture(params=["sqlite", "postgresql"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """A home with each kind of store; that of PostgreSQL with a password in a file."""
    if request.param == "sqlite":
        return make_settings(home=str(tmp_path))
    server = request.getfixturevalue("postgres")
    url = server.url(request.getfixturevalue("make_database")())
    return make_settings(home=str(tmp_path), store=url, store_password=f"file:{server.password_file}")


def drain_all(home: Settings) -> tuple[Store, list[str]]:
    keys = FileKeys(home.home_path / "keys")
    store = open_store(home)
    reader = JournalReader(home.journal_path, unwrap=lambda key: keys.unwrap(key, context=b"journal"))
    drain, corrupt = Drain(reader, Seals(keys)), []
    while True:
        result = drain.drain_once(store)
        corrupt += [*result.corrupt, *result.blocked]
        if not result.lag_bytes and not result.records:
            return store, corrupt


def kept_ids(store: Store) -> list[str]:
    ids, cursor = [], None
    with store.unit() as unit:
        while True:
            page = unit.records.page(RecordFilter(), cursor=cursor, limit=1000)
            ids += [record.id for record in page.items]
            if (cursor := page.next) is None:
                return ids


def counted(store: Store) -> int:
    with store.unit() as unit:
        return sum(line.sums.requests for line in unit.usage.report("team", since=0, until=1e6))


@pytest.mark.parametrize(("sync", "kills"), [("process", 10), ("power", 3)])
def test_killed_writers_lose_nothing_that_they_acknowledged(home, sync, kills):
    acknowledged: list[str] = []
    chance = random.Random(7)
    for life in range(kills):
        child = Child(WRITER, home.home, f"life{life}", sync, 0)
        child.said(chance.randrange(1, 400))
        acknowledged += child.kill()

    store, complaints = drain_all(home)

    kept = kept_ids(store)
    assert len(acknowledged) > 50 * kills
    assert set(acknowledged) - set(kept) == set()
    assert len(kept) == len(set(kept)) == counted(store)
    assert complaints == []
    store.close()


def test_killed_drains_lose_and_double_nothing_while_a_writer_goes_on(home):
    writer = Child(WRITER, home.home, "life", "process", 0.001)
    writer.said(50)
    chance = random.Random(11)
    for _ in range(6):
        drain = Child(DRAIN, home.home, home.store, home.store_password)
        drain.said(1)
        writer.said(chance.randrange(20, 300))
        drain.kill()
    acknowledged = writer.kill()

    store, complaints = drain_all(home)

    kept = kept_ids(store)
    assert set(acknowledged) - set(kept) == set()
    assert len(kept) == len(set(kept)) == counted(store)
    assert complaints == []
    with store.unit() as unit:
        sealed = unit.records.content(kept[0])
        content = Seals(FileKeys(home.home_path / "keys")).open(unit, sealed)
    assert content.request == kept[0].encode() * 100
    assert list(home.journal_path.iterdir()) == []
    store.close()


def test_on_a_full_disk_the_journal_says_so_keeps_what_it_has_and_recovers_by_itself(tmp_path):
    keys = FileKeys(tmp_path / "keys")
    with small_disk(tmp_path / "disk", size_bytes=2 << 20) as disk:
        journal = JournalWriter(
            disk / "journal",
            writer="w",
            segment_bytes=512 * 1024,
            wrap=lambda key: keys.wrap(key, context=b"journal"),
        )
        journal.open()
        ballast = fill_disk(disk)
        kept = 0
        while journal.has_room(2000):
            journal.append(entry(f"r{kept}"))
            kept += 1
        ends = time.monotonic() + 30.0
        while not journal.problem and time.monotonic() < ends:  # a thread finds it out
            time.sleep(0.01)
        with pytest.raises(JournalFull, match="No space left"):
            journal.append(bytes(400_000))
        assert kept > 200
        assert "No space left" in journal.problem

        ballast.unlink()
        tick = threading.Event()
        for _ in range(200):
            if journal.has_room(2000):
                break
            tick.wait(0.1)
        journal.append(entry("after"))
        journal.close()

        reader = JournalReader(disk / "journal", unwrap=lambda key: keys.unwrap(key, context=b"journal"))
        store = SqliteStore(tmp_path / "pilothouse.db")
        drain = Drain(reader, Seals(keys))
        while drain.drain_once(store).records:
            pass
        ids = kept_ids(store)
        store.close()
    assert {f"r{n}" for n in range(kept)} | {"after"} <= set(ids)


def test_a_store_on_a_full_disk_leaves_the_journal_as_it_was(tmp_path):
    keys = FileKeys(tmp_path / "keys")
    journal = JournalWriter(
        tmp_path / "journal",
        writer="w",
        segment_bytes=16 << 20,
        wrap=lambda key: keys.wrap(key, context=b"journal"),
    )
    journal.open()
    for n in range(2000):
        journal.append(entry(f"r{n}"))
    journal.close()
    reader = JournalReader(tmp_path / "journal", unwrap=lambda key: keys.unwrap(key, context=b"journal"))
    with small_disk(tmp_path / "disk", size_bytes=16 << 20) as disk:
        store = SqliteStore(disk / "pilothouse.db")
        drain = Drain(reader, Seals(keys))
        ballast = fill_disk(disk)
        before = reader.segments()
        with pytest.raises(StoreUnavailable, match="full"):
            drain.drain_once(store)
        assert reader.segments() == before

        ballast.unlink()
        while drain.drain_once(store).lag_bytes:
            pass
        assert len(kept_ids(store)) == counted(store) == 2000
        store.close()


def entry(record_id: str) -> bytes:
    content = Content(record_id.encode(), ["answer" * 300])
    return msgspec.msgpack.encode(JournalEntry(make_record(record_id), content))


def test_a_number_that_the_database_cannot_hold_stops_no_other_record(home):
    keys = FileKeys(home.home_path / "keys")
    wrap, unwrap = (
        lambda key: keys.wrap(key, context=b"journal"),
        lambda key: keys.unwrap(key, context=b"journal"),
    )
    journal = JournalWriter(home.journal_path, writer="w", segment_bytes=1 << 20, wrap=wrap)
    journal.open()
    for n in range(10):
        record = make_record(f"r{n}", output_tokens=2**64 - 1 if n == 4 else 1)
        journal.append(msgspec.msgpack.encode(JournalEntry(record)))
    journal.close()
    store = open_store(home)

    result = Drain(JournalReader(home.journal_path, unwrap=unwrap), Seals(keys)).drain_once(store)

    assert (result.records, len(result.corrupt)) == (9, 1)
    assert "r4" not in kept_ids(store)
    store.close()
