"""
The store in PostgreSQL, for records that outgrow one machine's disk, or must outlive it.

The same statements as in SQLite, on one connection, which is made anew when it
broke. Nothing waits without a limit: connecting, each statement, each lock and a
silent network have theirs. libpq reads the address, so that everything it knows
works (several hosts, sockets, TLS). The password is asked for at each connection
and is no part of any address, message or process list.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
from msgspec import Struct
from psycopg.types.string import StrDumperUnknown
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.pool import NullPool

from pilothouse.adapters.stores._schema import bring_up_to_date
from pilothouse.adapters.stores._unit import SqlUnit
from pilothouse.domain.errors import OperationFailed, StoreUnavailable

_MIGRATION_LOCK = 0x70686F757365  # "phouse": of two that start at once, one makes the schema


class Limits(Struct, frozen=True, kw_only=True):
    """How long each thing may take."""

    connect_s: int = 5
    """libpq counts whole seconds, of at least two."""
    statement_s: float = 20.0
    lock_s: float = 10.0
    silence_s: int = 20
    """A network that answers nothing, not even that it is alive."""
    migration_s: float = 600.0


class _Text(StrDumperUnknown):
    """PostgreSQL's text holds no NUL: a replacement character stands for it, as for broken UTF-8."""

    def dump(self, obj: str) -> Any:
        return super().dump(obj.replace("\0", "\ufffd") if "\0" in obj else obj)


class PostgresStore:
    """
    Args:
        url: `postgresql://user@host:port/database`, as libpq reads it, without a password.
        password: Asked for at each connection; None leaves it to libpq (PGPASSFILE).

    Raises:
        StoreUnavailable: It cannot be reached now.
        OperationFailed: It is not UTF-8, a newer Pilothouse made it, or it is another program's.
    """

    def __init__(
        self, url: str, *, password: Callable[[], str | None] = lambda: None, limits: Limits | None = None
    ) -> None:
        self._url = url
        self._password = password
        self._limits = limits or Limits()
        self._engine = create_engine(
            "postgresql+psycopg://",
            creator=self._connect,
            poolclass=NullPool,
            hide_parameters=True,
            paramstyle="format",  # rows go to the driver as they are: `_dialect.insert_rows`
            use_native_hstore=False,
        )
        self._connection: Connection | None = None
        try:
            with self._transaction() as connection:
                self._prepare(connection)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def unit(self, *, urgent: bool = False) -> Iterator[SqlUnit]:  # noqa: ARG002 - its disk is not ours to reserve
        with self._transaction() as connection:
            yield SqlUnit(connection)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """All tables as they are at one moment, however long that takes, for a copy."""
        with self._transaction() as connection:
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            self._give_time(connection)
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One long transaction."""
        with self._transaction() as connection:
            self._give_time(connection)
            yield connection

    def scrub(self) -> None:
        """
        Write the table of keys anew, without those that were destroyed.

        What else the server keeps of them (its log, its backups) ends by its own rules.
        """
        with self._translating():
            raw: Any = self._connected().connection.dbapi_connection
            raw.autocommit = True
            try:
                raw.execute("VACUUM (FULL) sealing_keys")
                raw.execute("VACUUM contents")
            finally:
                if not raw.closed:
                    raw.autocommit = False

    def close(self) -> None:
        self._drop()
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._translating():
            connection = self._connected()
            with connection.begin():
                yield connection

    @contextmanager
    def _translating(self) -> Iterator[None]:
        """Foreign errors become StoreUnavailable here, but for those that are defects of ours."""
        try:
            yield
        except (IntegrityError, ProgrammingError, DataError):
            raise
        except (DBAPIError, psycopg.OperationalError, psycopg.InterfaceError) as exc:
            self._drop()
            reason = exc.orig if isinstance(exc, DBAPIError) else exc
            raise StoreUnavailable(
                f"the database {shown(self._url)} cannot be used now: {_one_line(reason)}. "
                "fix: see that PostgreSQL runs, has room, and lets this user in",
                retry_after_s=5.0,
            ) from exc

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.invalidated:
            self._drop()
            self._connection = self._engine.connect()
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None

    def _connect(self) -> Any:
        raw = psycopg.connect(self._url, autocommit=True, **self._arguments())
        try:
            raw.adapters.register_dumper(str, _Text)
            limits = self._limits
            # By statements, for a pooler in between refuses what it does not know at the start.
            raw.execute(
                f"SET statement_timeout = {int(limits.statement_s * 1000)};"
                f"SET lock_timeout = {int(limits.lock_s * 1000)};"
                f"SET idle_in_transaction_session_timeout = {int(3000 * limits.statement_s)};"
                "SET synchronous_commit = on"  # the drain deletes a journal's segment after its commit
            )
            raw.autocommit = False
        except BaseException:
            raw.close()
            raise
        return raw

    def _arguments(self) -> dict[str, Any]:
        """What the address does not say itself."""
        limits = self._limits
        given: dict[str, Any] = {
            "application_name": "pilothouse",
            "connect_timeout": limits.connect_s,
            "keepalives_idle": max(1, limits.silence_s // 2),
            "keepalives_interval": max(1, limits.silence_s // 6),
            "keepalives_count": 3,
            "tcp_user_timeout": limits.silence_s * 1000,
            "target_session_attrs": "read-write",
            "gssencmode": "disable",
        }
        if not is_near(self._url):  # records cross a network: to the right server, unread
            given |= {"sslmode": "verify-full", "sslrootcert": "system"}
        said = parse_qs(urlsplit(self._url).query, keep_blank_values=True)
        if "sslmode" in said:
            given.pop("sslrootcert", None)
        arguments = {name: value for name, value in given.items() if name not in said}
        password = self._password()
        return arguments if password is None else {**arguments, "password": password}

    def _prepare(self, connection: Connection) -> None:
        raw: Any = connection.connection.dbapi_connection
        encoding = raw.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise OperationFailed(
                f"{shown(self._url)} is encoded as {encoding} and cannot hold every text. "
                "fix: make a database with ENCODING 'UTF8' TEMPLATE template0"
            )
        self._give_time(connection)
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
        bring_up_to_date(connection, shown(self._url))

    def _give_time(self, connection: Connection) -> None:
        """For this transaction: it is expected to be long."""
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {int(self._limits.migration_s * 1000)}")


def shown(url: str) -> str:
    """The address as it may be printed: without what follows the question mark."""
    return url.partition("?")[0]


def is_near(url: str) -> bool:
    """Whether the address names only sockets and this machine: nothing leaves it on the way."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    _, _, authority = parts.netloc.rpartition("@")
    hosts = query.get("host", [authority])[0].split(",") + query.get("hostaddr", [""])[0].split(",")
    return all(_is_here(host) for host in hosts)


def _is_here(host: str) -> bool:
    name = host.partition("]")[0].strip("[") if host.startswith("[") else host.partition(":")[0]
    return not name or name.startswith(("/", "127.")) or name in ("localhost", "::1")


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split())
