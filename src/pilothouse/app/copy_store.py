"""From one store of a home to another: a move to PostgreSQL or back, and the portable file of a backup."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pilothouse.app.home import HomeLock
from pilothouse.app.stores import open_store, place_of
from pilothouse.config import Settings
from pilothouse.domain.errors import InvalidRequest, NotFound

Progress = Callable[[str, int, int], None]


def copy_store(source: Settings, target: Settings, *, progress: Progress) -> list[Any]:
    """
    Copy all of it. The server must be stopped: what it writes meanwhile would be missing.

    Returns:
        What `adapters.stores.copying` counted, table by table.

    Raises:
        InvalidRequest: Both are the same.
        Conflict: A server runs in this home, or the target is not empty.
        NotFound: There is nothing to copy.
        StoreUnavailable, OperationFailed: The target was left empty.
    """
    if place_of(source) == place_of(target):
        raise InvalidRequest(f"{place_of(source)} is the store that is to be copied. fix: name another one")
    if source.is_sqlite and not source.database_file.exists():
        raise NotFound(f"there is no database in {source.home}. fix: name the --home of your server")
    lock = HomeLock(source.home_path)
    lock.acquire()
    try:
        return _copy(open_store(source), open_store, target, progress)
    finally:
        lock.release()


def export_to_sqlite(settings: Settings, path: Path) -> None:
    """The store as it is at this moment, as a SQLite file; the server may run."""
    sqlite = importlib.import_module("pilothouse.adapters.stores.sqlite")
    _copy(
        open_store(settings),
        lambda _: sqlite.SqliteStore(path, reserve_bytes=0),
        settings,
        lambda _table, _done, _count: None,
    )


def _copy(
    source: Any, open_target: Callable[[Settings], Any], target: Settings, progress: Progress
) -> list[Any]:
    copying = importlib.import_module("pilothouse.adapters.stores.copying")
    try:
        there = open_target(target)
        try:
            with source.reading() as read, there.writing() as write:
                copied: list[Any] = copying.copy_all(read, write, progress=progress)
                return copied
        finally:
            there.close()
    finally:
        source.close()
