"""
Where the SQL dialects differ, for the repositories; all else is the same statement on each.

A statement that would fail is avoided rather than caught: PostgreSQL takes a
transaction for lost after its first error.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Dialect, Float, Table, cast, func, insert
from sqlalchemy.dialects.sqlite import Insert


def upsert(connection: Connection, table: Table) -> Insert:
    """
    An insert that knows `on_conflict_do_nothing` and `on_conflict_do_update`.

    Of PostgreSQL it is another class, with the same methods; only who uses it loads it.
    """
    made: Insert = import_module(f"sqlalchemy.dialects.{connection.dialect.name}").insert(table)
    return made


def total(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """The sum as a number of the column's kind; PostgreSQL's sum of integers would be a decimal."""
    return cast(func.sum(column), Float if isinstance(column.type, Float) else BigInteger)


def insert_rows(connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """
    Insert many rows, as the driver takes them: each has a value for every column, in the table's order.

    SQLAlchemy's work on each row is most of a drain's, and these values need none.
    """
    connection.exec_driver_sql(_insertion(connection.dialect, table), list(rows))


@cache
def _insertion(dialect: Dialect, table: Table) -> str:
    return str(insert(table).compile(dialect=dialect))


def insert_new(connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Insert a row; False, and nothing done, when its key or another unique value is taken."""
    statement = upsert(connection, table).values(**values).on_conflict_do_nothing()
    return connection.execute(statement.returning(*table.primary_key.columns)).first() is not None
