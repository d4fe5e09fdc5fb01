"""What only the store in PostgreSQL promises: its schema, its limits, its way back after a crash."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy.exc import DataError

from client_rig import wait_until
from fixtures_postgres import PASSWORD, PostgresServer
from pilothouse.adapters.keys.file import FileKeys
from pilothouse.adapters.stores.postgresql import Limits, PostgresStore, is_near, shown
from pilothouse.control.drain import Drain
from pilothouse.control.seals import Seals
from pilothouse.domain.errors import OperationFailed, StoreUnavailable
from pilothouse.domain.record import Content, JournalEntry
from pilothouse.domain.tenancy import Team
from pilothouse.kit.journal.reader import JournalReader
from pilothouse.kit.journal.writer import JournalWriter
from pilothouse.ports.store import RecordFilter, SealingKey, Store
from pilothouse.testing.examples import make_record, sealed

Open = Callable[..., PostgresStore]


@pytest.fixture
def open_new(postgres: PostgresServer, make_database: Callable[[], str]) -> Iterator[Open]:
    """Opens stores in one new database."""
    url = postgres.url(make_database())
    opened: list[PostgresStore] = []

    def open_it(**more: object) -> PostgresStore:
        opened.append(PostgresStore(url, password=lambda: PASSWORD, **more))  # type: ignore[arg-type]
        return opened[-1]

    yield open_it
    for store in opened:
        store.close()


def add_team(store: Store, name: str) -> None:
    with store.unit() as unit:
        unit.teams.add(Team(name=name, created_at=1.0))


def teams(store: Store) -> list[str]:
    with store.unit() as unit:
        return [team.name for team in unit.teams.all()]


# Opening


def test_of_two_that_start_at_once_one_makes_the_schema(open_new):
    errors: list[BaseException] = []

    def start() -> None:
        try:
            open_new()
        except BaseException as exc:  # noqa: BLE001 - told to the test
            errors.append(exc)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert errors == []


def test_a_database_of_another_program_is_refused_and_unharmed(postgres, make_database):
    name = make_database()
    postgres.execute("CREATE TABLE other (x int)", database=name)

    with pytest.raises(OperationFailed, match="another program"):
        PostgresStore(postgres.url(name), password=lambda: PASSWORD)
    assert postgres.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", database=name) == [
        ("other",)
    ]


def test_a_database_that_cannot_hold_every_text_is_refused(postgres):
    postgres.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")

    with pytest.raises(OperationFailed, match="UTF8"):
        PostgresStore(postgres.url("latin"), password=lambda: PASSWORD)
    postgres.execute("DROP DATABASE latin")


@pytest.mark.parametrize("password", ["wrong-Planted-Secret", None])
def test_a_wrong_password_is_told_and_not_repeated(postgres, password, monkeypatch):
    monkeypatch.setenv("PGPASSFILE", "/nowhere")

    with pytest.raises(StoreUnavailable, match=r"password") as caught:
        PostgresStore(postgres.url(), password=lambda: password)

    seen: BaseException | None = caught.value
    while seen is not None:
        assert "Planted" not in f"{seen!s} {seen!r}"
        seen = seen.__cause__


def test_libpqs_own_password_file_works(postgres, make_database, tmp_path, monkeypatch):
    file = tmp_path / "pgpass"
    file.write_text(f"*:*:*:*:{PASSWORD}\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))

    store = PostgresStore(postgres.url(make_database()))

    assert teams(store) == []
    store.close()


def test_a_changed_password_needs_no_new_store(postgres, open_new):
    asked: list[str] = []

    def password() -> str:
        asked.append(PASSWORD)
        return PASSWORD

    store = PostgresStore(postgres.url(), password=password)
    postgres.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pilothouse'"
    )
    with pytest.raises(StoreUnavailable):
        teams(store)

    assert teams(store) == []
    assert len(asked) == 2
    store.close()
    postgres.execute("DROP SCHEMA public CASCADE", "CREATE SCHEMA public")


def test_nothing_of_a_record_is_in_an_error(open_new, postgres):
    store = open_new()
    add_team(store, "red")

    def break_it() -> None:
        with store.unit() as unit:
            unit.records.insert_many([sealed("Planted-Id", output_tokens=2**70)])

    with pytest.raises(DataError) as caught:
        break_it()

    assert "Planted-Id" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "near"),
    [
        ("postgresql:///db", True),
        ("postgresql://u@/db?host=/run/postgresql", True),
        ("postgresql://u@localhost:5433/db", True),
        ("postgresql://u@127.0.0.1/db", True),
        ("postgresql://u@[::1]:5432/db", True),
        ("postgresql://u@db.example/db", False),
        ("postgresql://u@127.0.0.1,10.0.0.7/db", False),
        ("postgresql://u@localhost/db?host=db.example", False),
        ("postgresql://u@localhost/db?hostaddr=10.0.0.7", False),
        ("postgresql://u@[2001:db8::1]/db", False),
    ],
)
def test_what_leaves_this_machine_is_known(url, near):
    assert is_near(url) is near


def test_an_address_is_shown_without_its_options():
    assert shown("postgresql://u@h/db?sslkey=/etc/x") == "postgresql://u@h/db"


# Values


def test_what_postgresql_cannot_hold_in_a_text_is_replaced(open_new):
    store = open_new()
    names = ["'; DROP TABLE teams; --", '"', "%s %(x)s", ":name", "\\", "ü🦀", "a\0b"]

    for name in names:
        add_team(store, name)

    assert sorted(teams(store)) == sorted([*names[:-1], "a\ufffdb"])


def test_a_destroyed_key_is_in_no_file_of_its_table_after_the_scrub(open_new, postgres):
    store, mark = open_new(), b"\x17Planted-Wrapped-Key\x99" * 3
    with store.unit() as unit:
        unit.seals.add(SealingKey(id="s", team="red", subject_hash="ab", wrapped=mark, created_at=1.0))
        unit.seals.add(SealingKey(id="t", team="red", subject_hash="cd", wrapped=b"other", created_at=1.0))
    with store.unit() as unit:
        unit.seals.destroy("red", "ab")

    store.scrub()

    with store.reading() as connection:
        (path,) = connection.exec_driver_sql("SELECT pg_relation_filepath('sealing_keys')").one()
    postgres.execute("CHECKPOINT")
    table = postgres.data / path
    assert b"other" in table.read_bytes()
    assert mark not in table.read_bytes()
    assert teams(store) == []


# Limits


def test_a_statement_that_takes_too_long_is_ended_and_the_next_one_works(open_new):
    store = open_new(limits=Limits(statement_s=0.2))

    def sleep() -> None:
        with store._transaction() as connection:
            connection.exec_driver_sql("SELECT pg_sleep(30)")

    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="statement timeout"):
        sleep()

    assert time.monotonic() - began < 5
    assert teams(store) == []


def test_a_lock_of_somebody_else_is_not_waited_for_for_ever(open_new):
    first, second = open_new(), open_new(limits=Limits(lock_s=0.2))
    with first._transaction() as connection:
        connection.exec_driver_sql("LOCK TABLE teams IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            add_team(second, "red")

    add_team(second, "red")


def test_a_server_that_says_nothing_is_given_up(tmp_path):
    import socket

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        began = time.monotonic()

        with pytest.raises(StoreUnavailable, match="timeout"):
            PostgresStore(f"postgresql://u@127.0.0.1:{port}/db", limits=Limits(connect_s=2))

    assert time.monotonic() - began < 10


# Two controllers


def test_two_that_take_the_lease_at_once_do_not_both_get_it(open_new):
    stores = [open_new() for _ in range(4)]
    start, taken = threading.Barrier(len(stores)), []

    def take(number: int) -> None:
        start.wait(10)
        with stores[number].unit() as unit:
            if unit.leases.acquire("controller", f"h{number}", ttl_s=30, now=100.0):
                taken.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(taken) == 1


def test_a_successor_waits_for_what_its_predecessor_is_writing(open_new):
    first, second = open_new(), open_new(limits=Limits(lock_s=0.3))
    with first.unit() as unit:
        lease = unit.leases.acquire("controller", "a", ttl_s=10, now=0.0)
    assert lease is not None

    def take_over() -> None:
        with second.unit() as unit:
            unit.leases.acquire("controller", "b", ttl_s=10, now=100.0)

    with first.unit() as unit:
        assert unit.leases.is_held(lease)
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            take_over()
        unit.teams.add(Team(name="still-mine", created_at=1.0))
    take_over()

    with first.unit() as unit:
        assert not unit.leases.is_held(lease)


# A crash of the server


def journaled(folder: Path, count: int) -> JournalReader:
    keys = FileKeys(folder / "keys")
    journal = JournalWriter(
        folder / "journal",
        writer="w",
        segment_bytes=1 << 20,
        wrap=lambda key: keys.wrap(key, context=b"journal"),
    )
    journal.open()
    for n in range(count):
        entry = JournalEntry(make_record(f"r{n}"), Content(b"question", ["answer" * 50]))
        journal.append(msgspec.msgpack.encode(entry))
    journal.close()
    return JournalReader(folder / "journal", unwrap=lambda key: keys.unwrap(key, context=b"journal"))


def test_killed_and_restarted_under_load_it_has_every_record_once(own_postgres, tmp_path):
    reader = journaled(tmp_path, 3000)
    store = PostgresStore(own_postgres.url(), password=lambda: PASSWORD)
    drain = Drain(reader, Seals(FileKeys(tmp_path / "keys")), batch_records=25, batches=1)
    failures, ended = [], threading.Event()
    # 120 batches: some go on while it is killed, and many are left for the connection that it broke.
    allowed = threading.Semaphore(20)

    def drain_on() -> None:
        while not ended.is_set():
            if not allowed.acquire(timeout=0.05):
                continue
            try:
                if not drain.drain_once(store).lag_bytes:
                    return
            except StoreUnavailable as exc:
                failures.append(str(exc))
                allowed.release()
                ended.wait(0.05)

    thread = threading.Thread(target=drain_on)
    thread.start()
    for crash in (own_postgres.kill, own_postgres.stop, own_postgres.kill):
        for _ in range(10):
            allowed.release()
        seen = len(failures)
        crash()
        own_postgres.start()
        for _ in range(10):
            allowed.release()
        wait_until(lambda seen=seen: len(failures) > seen, what="a batch that fails", within_s=30)
    for _ in range(200):
        allowed.release()
    thread.join(60)
    ended.set()

    assert not thread.is_alive()
    with store.unit() as unit:
        ids = [record.id for record in unit.records.page(RecordFilter(), limit=10_000).items]
        counted = sum(line.sums.requests for line in unit.usage.report("team", since=0, until=1e6))
    assert len(failures) >= 3
    assert sorted(ids) == sorted(f"r{n}" for n in range(3000))
    assert counted == 3000
    assert reader.segments() == []
    store.close()
