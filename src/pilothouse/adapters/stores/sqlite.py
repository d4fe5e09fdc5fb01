"""
The default store: one SQLite file, written by the controller alone.

Write-ahead log, synced at every commit: the drain deletes a journal segment
after its commit, so the commit must hold. What is deleted is overwritten with
zeros. The schema's revision is one query at the start; Alembic is only loaded
when there is something to migrate.
"""

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.pool import NullPool

from pilothouse.adapters.stores._schema import bring_up_to_date
from pilothouse.adapters.stores._unit import SqlUnit
from pilothouse.domain.errors import StoreUnavailable

RESERVE_BYTES = 8 << 20
"""Room for urgent work on a full disk. Smaller than a journal segment, which must not take it."""


class SqliteStore:
    """
    Args:
        path: The database file; made when absent, for its owner alone.
        busy_timeout_s: How long another process's transaction is waited for.
        reserve_bytes: Disk space kept for urgent units; 0 keeps none.

    Raises:
        StoreUnavailable: It cannot be opened now.
        OperationFailed: A newer Pilothouse made it, or it is another program's.
    """

    def __init__(
        self, path: Path, *, busy_timeout_s: float = 5.0, reserve_bytes: int = RESERVE_BYTES
    ) -> None:
        self._path = path
        self._reserve = path.with_name(path.name + ".reserve")
        self._reserve_bytes = reserve_bytes
        self._engine = create_engine(
            URL.create("sqlite", database=str(path)), poolclass=NullPool, hide_parameters=True
        )
        event.listen(self._engine, "connect", lambda raw, _: _configure(raw, busy_timeout_s))
        # One writer: taking the lock at once replaces a failure at the first write by a wait here.
        event.listen(self._engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        with _translating(path):
            _make_private(path)
            self._connection = self._engine.connect()
            try:
                with self._connection.begin():
                    bring_up_to_date(self._connection, str(path))
            except BaseException:
                self._connection.close()
                raise
        self._take_reserve()

    @contextmanager
    def unit(self, *, urgent: bool = False) -> Iterator[SqlUnit]:
        if urgent:
            self._give_up_reserve()
        else:
            self._take_reserve()
        with _translating(self._path), self._connection.begin():
            yield SqlUnit(self._connection)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """All tables as they are at one moment, for a copy."""
        with _translating(self._path), self._connection.begin():
            yield self._connection

    writing = reading
    """One long transaction; here it is the same."""

    def scrub(self) -> None:
        with _translating(self._path):
            raw: Any = self._connection.connection.dbapi_connection
            busy, *_ = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StoreUnavailable(
                "another process reads the database, so erased bytes are still in its log; try again",
                retry_after_s=1.0,
            )

    def close(self) -> None:
        self._connection.close()
        self._engine.dispose()

    def _give_up_reserve(self) -> None:
        if _free_bytes(self._path.parent) < self._reserve_bytes:
            self._reserve.unlink(missing_ok=True)

    def _take_reserve(self) -> None:
        """Only when there is plenty: it must not be what fills the disk."""
        if not self._reserve_bytes or self._reserve.exists():
            return
        if _free_bytes(self._path.parent) < 4 * self._reserve_bytes:
            return
        try:
            _allocate(self._reserve, self._reserve_bytes)
        except OSError:  # somebody was faster to fill the disk: the next unit tries again
            self._reserve.unlink(missing_ok=True)


@contextmanager
def _translating(path: Path) -> Iterator[None]:
    """Foreign errors become StoreUnavailable here, but for those that are defects of ours."""
    try:
        yield
    except (IntegrityError, ProgrammingError, DataError):
        raise
    except (DBAPIError, sqlite3.Error, OSError) as exc:
        reason = exc.orig if isinstance(exc, DBAPIError) else exc
        raise StoreUnavailable(
            f"the database {path} cannot be used now: {reason}. fix: see that its disk has room, works, "
            "and that no other program holds the file",
            retry_after_s=5.0,
        ) from exc


def _configure(raw: Any, busy_timeout_s: float) -> None:
    raw.isolation_level = None  # SQLAlchemy's events begin transactions, not the driver's guesses
    for pragma in (
        f"busy_timeout={int(busy_timeout_s * 1000)}",
        "page_size=8192",  # of a new file: 3 sealed contents of 2 kB a page, where 4096 holds one
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "secure_delete=ON",
        "temp_store=MEMORY",
        "journal_size_limit=67108864",
    ):
        raw.execute(f"PRAGMA {pragma}").close()


def _make_private(path: Path) -> None:
    """SQLite gives its other files the mode of the database."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _allocate(path: Path, size_bytes: int) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if sys.platform == "linux":
            os.posix_fallocate(fd, 0, size_bytes)
        else:
            os.write(fd, bytes(size_bytes))
    finally:
        os.close(fd)
