"""Repository of events: what the control loop did, the newest first, bounded in number."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, select, tuple_

from pilothouse.adapters.stores._cursor import decode_cursor, fetch_page
from pilothouse.adapters.stores._dialect import upsert
from pilothouse.adapters.stores._tables import events
from pilothouse.domain.events import Event
from pilothouse.ports.store import Page


class SqlEvents:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put_many(self, batch: Sequence[Event]) -> None:
        if not batch:
            return
        statement = upsert(self._connection, events)
        changed = {name: statement.excluded[name] for name in ("time", "count", "revision")}
        self._connection.execute(
            statement.on_conflict_do_update(index_elements=["id"], set_=changed),
            [msgspec.structs.asdict(event) for event in batch],
        )

    def page(
        self,
        *,
        kind: str | None = None,
        name: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page[Event]:
        query = select(events).order_by(events.c.time.desc(), events.c.id.desc())
        if kind is not None:
            query = query.where(events.c.kind == kind)
        if name is not None:
            query = query.where(events.c.name == name)
        if cursor is not None:
            place = decode_cursor(cursor, tuple[float, str])
            query = query.where(tuple_(events.c.time, events.c.id) < place)
        return fetch_page(
            self._connection, query, limit=limit, make=_event, place=lambda event: (event.time, event.id)
        )

    def forget(self, *, keep: int) -> int:
        oldest = (
            select(events.c.time, events.c.id)
            .order_by(events.c.time.desc(), events.c.id.desc())
            .offset(keep)
            .limit(1)
        )
        row = self._connection.execute(oldest).first()
        if row is None:
            return 0
        done = self._connection.execute(
            delete(events).where(tuple_(events.c.time, events.c.id) <= (row.time, row.id))
        )
        return done.rowcount


def _event(row: Row[Any]) -> Event:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    del values["team"]
    return Event(**values)
