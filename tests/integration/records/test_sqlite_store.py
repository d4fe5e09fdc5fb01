"""What only the SQLite store promises: its file, its schema, its disk, its locks."""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from pilothouse.adapters.stores import _schema
from pilothouse.adapters.stores._tables import HEAD, metadata, records
from pilothouse.adapters.stores.sqlite import SqliteStore
from pilothouse.control.seals import Seals
from pilothouse.domain.errors import OperationFailed, StoreUnavailable
from pilothouse.domain.record import Content, InferenceRecord, JournalEntry
from pilothouse.domain.spec import Spec
from pilothouse.domain.tenancy import Team
from pilothouse.govern.retain import Retention, periods
from pilothouse.ports.store import SealedRecord
from pilothouse.testing.examples import make_key, make_record, sealed
from pilothouse.testing.memory_keys import MemoryKeys
from small_disk import fill_disk, small_disk

MIGRATIONS = _schema.MIGRATIONS
NEXT_MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "next", "HEAD"


def upgrade():
    op.add_column("teams", sa.Column("note", sa.String()))
"""
CUT_IN_A_UNIT = """
import os, sys
from pathlib import Path
from pilothouse.adapters.stores.sqlite import SqliteStore
from pilothouse.domain.tenancy import Team

store = SqliteStore(Path(sys.argv[1]))
with store.unit() as unit:
    unit.teams.add(Team(name="kept", created_at=1.0))
with store.unit() as unit:
    unit.teams.add(Team(name="cut", created_at=1.0))
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "home" / "pilothouse.db"


def schema(path: Path) -> set[str]:
    """Every table and index as SQLite knows it, without the accidents of spacing."""
    with sqlite3.connect(path) as raw:
        rows = raw.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    raw.close()
    return {" ".join(row[0].replace("\n", " ").split()) for row in rows}


# Schema


def test_migrations_from_nothing_end_in_the_same_schema_as_a_fresh_database(tmp_path):
    SqliteStore(tmp_path / "fresh.db").close()
    engine = create_engine(f"sqlite:///{tmp_path / 'migrated.db'}")
    with engine.begin() as connection:
        config = Config(attributes={"connection": connection, "metadata": metadata})
        config.set_main_option("script_location", str(MIGRATIONS))
        command.upgrade(config, "head")
    engine.dispose()

    assert schema(tmp_path / "migrated.db") == schema(tmp_path / "fresh.db")


def test_the_newest_migration_is_the_one_that_the_tables_name():
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))

    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_every_field_of_a_record_has_its_column():
    assert set(InferenceRecord.__struct_fields__) == {column.name for column in records.columns}


def test_every_table_but_those_about_processes_carries_the_team():
    without = {name for name, table in metadata.tables.items() if "team" not in table.c}

    assert without == {"teams", "leases", "journal_positions"}


def test_an_older_database_is_migrated_when_it_is_opened(path, monkeypatch):
    SqliteStore(path).close()
    migrations = path.parent / "migrations"
    shutil.copytree(MIGRATIONS, migrations)
    (migrations / "versions" / "next.py").write_text(NEXT_MIGRATION.replace("HEAD", HEAD))
    monkeypatch.setattr(_schema, "HEAD", "next")
    monkeypatch.setattr(_schema, "MIGRATIONS", migrations)

    for _ in range(2):
        SqliteStore(path).close()

    assert any("note VARCHAR" in sql for sql in schema(path))


def test_a_migration_that_fails_leaves_the_database_as_it_was(path, monkeypatch):
    SqliteStore(path).close()
    before = schema(path)
    migrations = path.parent / "migrations"
    shutil.copytree(MIGRATIONS, migrations)
    (migrations / "versions" / "next.py").write_text(
        NEXT_MIGRATION.replace("HEAD", HEAD) + "    raise ZeroDivisionError\n"
    )
    with monkeypatch.context() as patch:
        patch.setattr(_schema, "HEAD", "next")
        patch.setattr(_schema, "MIGRATIONS", migrations)
        with pytest.raises(ZeroDivisionError):
            SqliteStore(path)

    SqliteStore(path).close()
    assert schema(path) == before


def test_a_database_of_a_newer_version_is_refused_and_unharmed(path):
    SqliteStore(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    before = schema(path)

    with pytest.raises(OperationFailed, match="newer"):
        SqliteStore(path)
    assert schema(path) == before


def test_a_database_of_another_program_is_refused(path):
    path.parent.mkdir()
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE other (x)")
    raw.close()

    with pytest.raises(OperationFailed, match="another program"):
        SqliteStore(path)


def test_opening_an_up_to_date_database_loads_no_alembic(path):
    SqliteStore(path).close()
    code = (
        "import sys; from pathlib import Path; from pilothouse.adapters.stores.sqlite import SqliteStore;"
        "SqliteStore(Path(sys.argv[1])).close(); print('alembic' in sys.modules)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.strip() == "False"


# The file


def test_all_files_are_private(path):
    store = SqliteStore(path)
    with store.unit() as unit:
        unit.teams.add(Team(name="red", created_at=1.0))

    modes = {p.name: p.stat().st_mode & 0o077 for p in path.parent.iterdir()}
    assert set(modes) >= {"pilothouse.db", "pilothouse.db-wal", "pilothouse.db.reserve"}
    assert set(modes.values()) == {0}
    assert path.parent.stat().st_mode & 0o077 == 0
    store.close()


@pytest.mark.parametrize("name", ["a b?c#d.db", "ü.db", "100%.db"])
def test_any_file_name_works(tmp_path, name):
    SqliteStore(tmp_path / name, reserve_bytes=0).close()

    assert (tmp_path / name).exists()


def test_a_file_that_is_no_database_is_told(path):
    path.parent.mkdir()
    path.write_bytes(b"not a database at all" * 1000)

    with pytest.raises(StoreUnavailable, match="not a database"):
        SqliteStore(path)


def test_values_are_never_part_of_a_statement(path):
    store = SqliteStore(path, reserve_bytes=0)
    names = ["'; DROP TABLE teams; --", '"', "a\0b", "%s", ":name", "\\"]

    with store.unit() as unit:
        for name in names:
            unit.teams.add(Team(name=name, created_at=1.0))
    with store.unit() as unit:
        assert sorted(team.name for team in unit.teams.all()) == sorted(names)
    store.close()


def test_a_locked_database_is_unavailable_and_works_again_after(path):
    store = SqliteStore(path, busy_timeout_s=0.05, reserve_bytes=0)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    def add():
        with store.unit() as unit:
            unit.teams.add(Team(name="red", created_at=1.0))

    with pytest.raises(StoreUnavailable, match="locked"):
        add()
    other.execute("ROLLBACK")
    add()

    other.close()
    store.close()


def test_what_was_committed_survives_a_kill(path):
    subprocess.run([sys.executable, "-c", CUT_IN_A_UNIT, str(path)], check=False, timeout=60)

    store = SqliteStore(path)
    with store.unit() as unit:
        assert [team.name for team in unit.teams.all()] == ["kept"]
    store.close()


# Bytes that must be gone


def bytes_on_disk(folder: Path) -> bytes:
    return b"".join(p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file())


def test_after_retention_no_byte_of_a_content_is_left_in_any_file(path):
    store = SqliteStore(path, reserve_bytes=0)
    marks = [os.urandom(3000) for _ in range(40)]
    kept = os.urandom(3000)
    rows = [sealed(f"r{n}", time=0.0, content=mark, subject_hash="ab") for n, mark in enumerate(marks)]
    with store.unit() as unit:
        unit.records.insert_many([*rows, sealed("kept", time=90 * 86400.0, content=kept)])
    assert marks[7][:64] in bytes_on_disk(path.parent)

    swept = Retention().sweep(store, periods(Spec()), now=100 * 86400.0)

    left = bytes_on_disk(path.parent)
    assert swept.contents == 40
    assert kept[:64] in left
    assert not [m for m in marks for at in range(0, 3000, 64) if m[at : at + 64] in left]
    store.close()


def test_after_an_erasure_no_byte_of_the_persons_key_is_left(path):
    store, seals = SqliteStore(path, reserve_bytes=0), Seals(MemoryKeys())
    entry = JournalEntry(make_record("r1", subject_hash="ab"), Content(b"question", ["answer"]))
    with store.unit() as unit:
        (row,) = seals.seal_all(unit, [entry])
        unit.records.insert_many([row])
        wrapped = unit.seals.get(row.sealing_key).wrapped

    with store.unit() as unit:
        unit.seals.destroy("red", "ab")
    store.scrub()

    assert wrapped[-40:] not in bytes_on_disk(path.parent)
    store.close()


def test_scrubbing_while_somebody_reads_says_so_and_works_after(path):
    store = SqliteStore(path, busy_timeout_s=0.05, reserve_bytes=0)
    with store.unit() as unit:
        unit.teams.add(Team(name="red", created_at=1.0))
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM teams").fetchall()
    with store.unit() as unit:
        unit.teams.add(Team(name="blue", created_at=1.0))

    with pytest.raises(StoreUnavailable, match="try again"):
        store.scrub()
    reader.execute("ROLLBACK")
    store.scrub()

    reader.close()
    store.close()


# A full disk


def test_on_a_full_disk_urgent_work_is_done_and_other_work_refused_until_there_is_room(tmp_path):
    with small_disk(tmp_path / "disk", size_bytes=8 << 20) as disk:
        store = SqliteStore(disk / "pilothouse.db", reserve_bytes=1 << 20)
        with store.unit() as unit:
            unit.teams.add(Team(name="red", created_at=1.0))
            unit.keys.add(make_key("k1"))
        ballast = fill_disk(disk)
        big = [SealedRecord(record=make_record("big"), content=bytes(3 << 20), sealing_key="s")]

        def insert():
            with store.unit() as unit:
                unit.records.insert_many(big)

        with pytest.raises(StoreUnavailable, match="full"):
            insert()
        with store.unit(urgent=True) as unit:
            unit.keys.revoke("k1", at=5.0)
        with store.unit() as unit:
            assert unit.keys.get("k1").revoked_at == 5.0
        assert not (disk / "pilothouse.db.reserve").exists()

        ballast.unlink()
        with store.unit() as unit:
            unit.teams.add(Team(name="blue", created_at=1.0))
        assert (disk / "pilothouse.db.reserve").exists()
        store.close()
