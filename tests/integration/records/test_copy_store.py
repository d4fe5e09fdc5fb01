"""From SQLite to PostgreSQL and back: every row, or nothing."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from fixtures_postgres import PASSWORD, PostgresServer
from pilothouse.app.backup import backup, restore
from pilothouse.app.copy_store import copy_store
from pilothouse.app.home import HomeLock
from pilothouse.app.stores import open_store, recall, remember
from pilothouse.cli.main import cli
from pilothouse.config import Settings, make_settings
from pilothouse.domain.errors import Conflict, InvalidRequest, NotFound, OperationFailed
from pilothouse.domain.spec import DEFAULT_SPEC
from pilothouse.domain.tenancy import Team
from pilothouse.ports.store import JournalPosition, RecordFilter, ResourceSample, SealingKey, Store
from pilothouse.testing.examples import make_key, make_model, sealed

RECORDS = 2500
"""More than two batches."""


def fill(store: Store) -> None:
    with store.unit() as unit:
        unit.teams.add(Team(name="red", created_at=1.25))
        unit.keys.add(make_key("k1", expires_at=9.5, endpoints=frozenset({"a"})))
        unit.models.put(make_model("m", "1"))
        unit.specs.put(DEFAULT_SPEC, expected_revision=0, author="Ada ü", now=1.0)
        unit.seals.add(SealingKey(id="s", team="red", subject_hash="", wrapped=b"\x00\xff", created_at=0.1))
        unit.journals.advance([JournalPosition("w-1", 1 << 40)])
        unit.leases.acquire("controller", "a", ttl_s=1, now=1.0)
        unit.resources.put_many(
            [ResourceSample(minute=60, role="worker", name="w", gpu_memory_bytes=1 << 40)]
        )
        rows = [
            sealed(f"r{n}", time=n / 7, ttft_ms=None if n % 2 else 0.1, content=os.urandom(50))
            for n in range(RECORDS)
        ]
        unit.records.insert_many(rows)


def everything(store: Store) -> tuple[object, ...]:
    with store.unit() as unit:
        page = unit.records.page(RecordFilter(), limit=RECORDS * 2).items
        return (
            unit.teams.all(),
            unit.keys.page().items,
            unit.models.all(),
            unit.specs.history().items,
            unit.seals.of_teams(),
            unit.journals.positions(),
            unit.leases.get("controller"),
            unit.resources.page(since=0, until=1e9).items,
            page,
            [unit.records.content(record.id).content for record in page],
            unit.usage.report("team", since=0, until=1e9),
        )


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    settings = make_settings(home=str(tmp_path / "home"))
    store = open_store(settings)
    fill(store)
    store.close()
    return settings


@pytest.fixture
def make_elsewhere(
    home: Settings, postgres: PostgresServer, make_database: Callable[[], str]
) -> Callable[[], Settings]:
    """The same home with its store in a new, empty database."""

    def make() -> Settings:
        return make_settings(
            home=home.home,
            store=postgres.url(make_database()),
            store_password=f"file:{postgres.password_file}",
        )

    return make


def silent(table: str, done: int, count: int) -> None: ...


def contents(settings: Settings) -> tuple[object, ...]:
    store = open_store(settings)
    try:
        return everything(store)
    finally:
        store.close()


def test_there_and_back_nothing_is_lost_or_changed(home, make_elsewhere, tmp_path):
    elsewhere = make_elsewhere()
    before = contents(home)

    there = copy_store(home, elsewhere, progress=silent)
    assert contents(elsewhere) == before
    home.database_file.rename(tmp_path / "old.db")
    back = copy_store(elsewhere, make_settings(home=home.home, store="sqlite"), progress=silent)

    assert contents(home) == before
    assert back == there
    assert {one.table: one.rows for one in there}["records"] == RECORDS


def test_what_it_goes_on_with_after_the_copy_works(home, make_elsewhere):
    elsewhere = make_elsewhere()
    copy_store(home, elsewhere, progress=silent)

    store = open_store(elsewhere)
    with store.unit() as unit:
        assert unit.specs.put(DEFAULT_SPEC, expected_revision=1, author="b", now=2.0).revision == 2
        assert unit.records.insert_many([sealed("r1"), sealed("new")]) == 1
    store.close()


def test_a_target_that_holds_something_is_refused_and_unharmed(home, make_elsewhere):
    elsewhere = make_elsewhere()
    store = open_store(elsewhere)
    with store.unit() as unit:
        unit.teams.add(Team(name="theirs", created_at=1.0))
    store.close()

    with pytest.raises(Conflict, match="teams"):
        copy_store(home, elsewhere, progress=silent)

    store = open_store(elsewhere)
    with store.unit() as unit:
        assert [team.name for team in unit.teams.all()] == ["theirs"]
    store.close()


def test_a_running_server_is_not_copied_from(home, make_elsewhere):
    lock = HomeLock(home.home_path)
    lock.acquire()
    try:
        with pytest.raises(Conflict):
            copy_store(home, make_elsewhere(), progress=silent)
    finally:
        lock.release()


def test_a_store_is_not_copied_onto_itself_nor_from_nowhere(home, tmp_path, make_elsewhere):
    with pytest.raises(InvalidRequest):
        copy_store(home, home, progress=silent)
    with pytest.raises(NotFound):
        copy_store(make_settings(home=str(tmp_path / "none")), make_elsewhere(), progress=silent)


ROUNDING = """
CREATE FUNCTION rounding() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN NEW.created_at := round(NEW.created_at); RETURN NEW; END $$
"""


def test_a_copy_that_differs_is_told_and_nothing_of_it_stays(home, make_elsewhere, postgres):
    elsewhere = make_elsewhere()
    open_store(elsewhere).close()
    name = elsewhere.store.partition("?")[0].rpartition("/")[2]
    trigger = "CREATE TRIGGER r BEFORE INSERT ON teams FOR EACH ROW EXECUTE FUNCTION rounding()"
    postgres.execute(ROUNDING, trigger, database=name)

    with pytest.raises(OperationFailed, match="teams differs"):
        copy_store(home, elsewhere, progress=silent)

    assert postgres.execute("SELECT count(*) FROM teams", database=name) == [(0,)]
    assert postgres.execute("SELECT count(*) FROM records", database=name) == [(0,)]


KILLED = """
import sys, time
from pilothouse.app.copy_store import copy_store
from pilothouse.config import make_settings

def progress(table, done, count):
    if table == "records" and done > 1000:
        print("half", flush=True)
        time.sleep(60)

home, url, password = sys.argv[1:]
target = make_settings(home=home, store=url, store_password=password)
copy_store(make_settings(home=home), target, progress=progress)
"""


def test_a_copy_that_was_killed_leaves_nothing_and_is_begun_again(home, make_elsewhere):
    elsewhere = make_elsewhere()
    argv = [sys.executable, "-c", KILLED, home.home, elsewhere.store, elsewhere.store_password]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"half\n"
        child.send_signal(signal.SIGKILL)

    copy_store(home, elsewhere, progress=silent)

    assert contents(elsewhere) == contents(home)


def test_the_command_shows_what_it_did_and_never_a_password(home, make_elsewhere):
    elsewhere = make_elsewhere()
    argv = ["store", "copy", elsewhere.store, "--password", elsewhere.store_password, "--home", home.home]

    done = CliRunner().invoke(cli, [*argv, "--json"], catch_exceptions=False)
    again = CliRunner().invoke(cli, argv)

    told = json.loads(done.stdout)
    assert {one["table"]: one["rows"] for one in told["tables"]}["records"] == RECORDS
    assert isinstance(again.exception, Conflict)
    assert PASSWORD not in done.output + again.output + str(again.exception)


def test_a_backup_of_a_store_in_postgresql_is_restored_without_it(home, make_elsewhere, tmp_path):
    elsewhere = make_elsewhere()
    copy_store(home, elsewhere, progress=silent)
    home.database_file.unlink()
    (home.keys_path).mkdir(exist_ok=True)
    remember(elsewhere)
    new = make_settings(home=str(tmp_path / "new"))

    made = backup(recall(home), tmp_path / "b.tar", now=5.0)
    restore(new, tmp_path / "b.tar")

    assert made.models == [make_model("m", "1").digest]
    assert contents(new) == contents(elsewhere)
    assert PASSWORD.encode() not in (tmp_path / "b.tar").read_bytes()
    assert recall(new).is_sqlite


def test_a_home_remembers_its_store_until_another_is_named(home, make_elsewhere):
    elsewhere = make_elsewhere()
    remember(elsewhere)

    assert recall(home).store == elsewhere.store
    assert recall(home).store_password == elsewhere.store_password
    named = make_settings(home=home.home, store="sqlite")
    assert recall(named) is named
    remember(named)
    assert recall(home).is_sqlite
    assert home.store_file.stat().st_mode & 0o077 == 0
