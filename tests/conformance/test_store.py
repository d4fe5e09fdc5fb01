import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

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
