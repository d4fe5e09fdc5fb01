"""
All rows of one SQL store into another, empty one, of whichever kind; then both are compared.

One transaction writes the whole: what is cut off leaves the target empty, and is
simply begun again. Rows are counted and hashed as they are read, and once more
as the target gives them back; the hashes are added up, for the two databases
sort texts differently.
"""

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Table, func, insert, select

from pilothouse.adapters.stores._tables import metadata
from pilothouse.domain.errors import Conflict, OperationFailed

BATCH_ROWS = 1000
_MODULUS = 1 << 128

Rows = Sequence[dict[str, Any]]


class TableCopy(Struct, frozen=True, kw_only=True):
    table: str
    rows: int
    checksum: str
    """The same in both: the sum of the rows' hashes."""


Progress = Callable[[str, int, int], None]
"""Called with a table, the rows of it that are done, and how many there are."""


def copy_all(source: Connection, target: Connection, *, progress: Progress) -> list[TableCopy]:
    """
    Within the transactions of both, which the caller ends.

    Raises:
        Conflict: The target holds something; nothing was written.
        OperationFailed: What the target gives back differs; the caller must roll it back.
    """
    for table in metadata.sorted_tables:
        if target.execute(select(func.count()).select_from(table)).scalar():
            raise Conflict(
                f"the target holds rows already ({table.name}), and a copy replaces nothing. "
                "fix: name an empty database"
            )
    copied = [_copy_table(source, target, table, progress) for table in metadata.sorted_tables]
    for one, table in zip(copied, metadata.sorted_tables, strict=True):
        found = _summed(table, _read(target, table))
        if found != one:
            raise OperationFailed(
                f"the copy of {table.name} differs: {one.rows} rows were read and {found.rows} are there, "
                f"with checksums {one.checksum} and {found.checksum}. Nothing was kept. fix: try again"
            )
        _set_counter(target, table)
    return copied


def _copy_table(source: Connection, target: Connection, table: Table, progress: Progress) -> TableCopy:
    count = source.execute(select(func.count()).select_from(table)).scalar() or 0
    done = 0

    def passing() -> Iterator[Rows]:
        nonlocal done
        for rows in _read(source, table):
            fitting = [_fitting(row, target) for row in rows]
            target.execute(insert(table), fitting)
            done += len(rows)
            progress(table.name, done, count)
            yield fitting

    return _summed(table, passing())


def _read(connection: Connection, table: Table) -> Iterator[Rows]:
    """Streamed: a table is larger than memory."""
    found = connection.execute(select(table).execution_options(yield_per=BATCH_ROWS)).mappings()
    for rows in found.partitions():
        yield [dict(row) for row in rows]


def _summed(table: Table, batches: Iterator[Rows]) -> TableCopy:
    names = sorted(column.name for column in table.columns)
    encode = msgspec.msgpack.Encoder().encode
    rows = total = 0
    for batch in batches:
        for row in batch:
            digest = sha256(encode([row[name] for name in names])).digest()
            total = (total + int.from_bytes(digest[:16])) % _MODULUS
        rows += len(batch)
    return TableCopy(table=f"{table.name}", rows=rows, checksum=f"{total:032x}")


def _fitting(row: dict[str, Any], target: Connection) -> dict[str, Any]:
    """PostgreSQL's text holds no NUL: what its adapter makes of one stands in the checksum too."""
    if target.dialect.name != "postgresql":
        return row
    return {
        name: value.replace("\0", "\ufffd") if isinstance(value, str) and "\0" in value else value
        for name, value in row.items()
    }


def _set_counter(target: Connection, table: Table) -> None:
    """A column that counts by itself goes on after the last row."""
    column = table.autoincrement_column
    if target.dialect.name != "postgresql" or column is None:
        return
    sequence = func.pg_get_serial_sequence(table.name, column.name)
    highest = target.execute(select(func.max(column))).scalar()
    if highest is not None:
        target.execute(select(func.setval(sequence, highest)))
