import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures_postgres import PASSWORD, PostgresServer
from pilothouse.adapters.stores._tables import metadata
from pilothouse.adapters.stores.postgresql import PostgresStore
from pilothouse.adapters.stores.sqlite import SqliteStore
from pilothouse.testing.conformance_store import StoreConformance
from pilothouse.testing.memory_store import MemoryStore


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once: a copy is much faster than another fresh one."""
    path = tmp_path_factory.mktemp("template") / "empty.db"
    SqliteStore(path, reserve_bytes=0).close()
    return path


class TestSqliteStore(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path, empty_database: Path) -> Iterator[SqliteStore]:
        path = tmp_path / "pilothouse.db"
        shutil.copy(empty_database, path)
        store = SqliteStore(path, reserve_bytes=0)
        yield store
        store.close()


@pytest.fixture(scope="module")
def postgres_url(postgres: PostgresServer) -> str:
    """A database whose schema is there: emptying it is much faster than making another."""
    postgres.execute("CREATE DATABASE conformance")
    url = postgres.url("conformance")
    PostgresStore(url, password=lambda: PASSWORD).close()
    return url


class TestPostgresStore(StoreConformance):
    @pytest.fixture
    def store(self, postgres: PostgresServer, postgres_url: str) -> Iterator[PostgresStore]:
        tables = ", ".join(f'"{table}"' for table in metadata.tables)
        postgres.execute(f"TRUNCATE {tables} CASCADE", database="conformance")
        store = PostgresStore(postgres_url, password=lambda: PASSWORD)
        yield store
        store.close()
