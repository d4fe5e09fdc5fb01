import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from control_fakes import model
from pilothouse.adapters.stores.glimpse import glimpse
from pilothouse.adapters.stores.sqlite import SqliteStore
from pilothouse.domain.spec import DEFAULT_SPEC, Spec


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a home" / "pilothouse.db"


@pytest.fixture
def store(path: Path) -> SqliteStore:
    path.parent.mkdir()
    return SqliteStore(path, reserve_bytes=0)


def test_it_sees_what_the_store_holds(path, store):
    with store.unit() as unit:
        unit.specs.put(Spec(), expected_revision=0, author="a", now=1.0)
        newest = unit.specs.put(DEFAULT_SPEC, expected_revision=1, author="b", now=2.0)
        unit.models.put(model())
        known = unit.models.all()

    seen = glimpse(path)  # while it is open
    store.close()

    assert seen is not None
    assert seen.spec == newest
    assert seen.models == known
    assert glimpse(path) == seen  # and closed
    assert not seen.is_complete, "the declared model is not the one that is here"


def test_an_empty_store_shows_nothing(path, store):
    store.close()

    assert glimpse(path) is None


def test_no_store_is_none_and_none_is_made(path):
    path.parent.mkdir()

    assert glimpse(path) is None
    assert not path.exists()


def test_what_it_does_not_understand_it_leaves_to_the_store(path):
    path.parent.mkdir()
    path.write_bytes(b"no database at all" * 100)
    assert glimpse(path) is None

    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE specs (revision, document, author, time)")
        connection.execute("CREATE TABLE models (document, created_at)")
        connection.execute("INSERT INTO specs VALUES (1, '{\"version\": 99}', 'a', 1)")
        connection.commit()

    assert glimpse(path) is None
