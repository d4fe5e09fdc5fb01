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
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, create_engine, event, inspect
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.pool import NullPool

from pilothouse.adapters.stores._machinery import SqlJournals, SqlLeases, SqlSealingKeys
from pilothouse.adapters.stores._records import SqlRecords, SqlResources, SqlUsage
from pilothouse.adapters.stores._registry import SqlApiKeys, SqlModels, SqlSpecs, SqlTeams
from pilothouse.adapters.stores._tables import HEAD, metadata
from pilothouse.domain.errors import OperationFailed, StoreUnavailable

_MIGRATIONS = Path(__file__).parent / "migrations"
_STAMP_TABLE = (
    "CREATE TABLE alembic_version ( version_num VARCHAR(32) NOT NULL, "
    "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num) )"
)
"""As Alembic makes it."""
RESERVE_BYTES = 8 << 20
"""Room for urgent work on a full disk. Smaller than a journal segment, which must not take it."""


class SqlUnit:
    """`ports.store.UnitOfWork` on one connection, within its transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @cached_property
    def teams(self) -> SqlTeams:
        return SqlTeams(self._connection)

    @cached_property
    def keys(self) -> SqlApiKeys:
        return SqlApiKeys(self._connection)

    @cached_property
    def models(self) -> SqlModels:
        return SqlModels(self._connection)

    @cached_property
    def specs(self) -> SqlSpecs:
        return SqlSpecs(self._connection)

    @cached_property
    def records(self) -> SqlRecords:
        return SqlRecords(self._connection)

    @cached_property
    def usage(self) -> SqlUsage:
        return SqlUsage(self._connection)

    @cached_property
    def resources(self) -> SqlResources:
        return SqlResources(self._connection)

    @cached_property
    def seals(self) -> SqlSealingKeys:
        return SqlSealingKeys(self._connection)

    @cached_property
    def journals(self) -> SqlJournals:
        return SqlJournals(self._connection)

    @cached_property
    def leases(self) -> SqlLeases:
        return SqlLeases(self._connection)


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
        self._engine = create_engine(URL.create("sqlite", database=str(path)), poolclass=NullPool)
        event.listen(self._engine, "connect", lambda raw, _: _configure(raw, busy_timeout_s))
        # One writer: taking the lock at once replaces a failure at the first write by a wait here.
        event.listen(self._engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        with _translating(path):
            _make_private(path)
            self._connection = self._engine.connect()
            try:
                with self._connection.begin():
                    _bring_up_to_date(self._connection, path)
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


def _bring_up_to_date(connection: Connection, path: Path) -> None:
    tables = inspect(connection).get_table_names()
    if not tables:
        metadata.create_all(connection)
        connection.exec_driver_sql(_STAMP_TABLE)
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES (?)", (HEAD,))
        return
    if "alembic_version" not in tables:
        raise OperationFailed(f"{path} is the database of another program. fix: name another --home")
    if connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() != HEAD:
        _migrate(connection, path)


def _migrate(connection: Connection, path: Path) -> None:
    # Half a second to load, and only needed once after an upgrade.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config(attributes={"connection": connection, "metadata": metadata})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    try:
        command.upgrade(config, "head")
    except CommandError as exc:
        raise OperationFailed(
            f"{path} was made by a newer Pilothouse ({exc}). "
            "fix: upgrade this one, or restore a backup that it made"
        ) from exc


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
