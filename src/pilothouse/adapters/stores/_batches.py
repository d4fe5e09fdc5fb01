"""Repositories of files and batches. Ids sort by time, so that they are cursors too."""

from typing import Any

import msgspec
from sqlalchemy import Connection, Select, delete, func, insert, select

from pilothouse.adapters.stores._dialect import total, upsert
from pilothouse.adapters.stores._tables import batches, files
from pilothouse.domain.batch import ENDED, Batch, StoredFile
from pilothouse.domain.errors import NotFound


class SqlFiles:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, file: StoredFile) -> None:
        self._connection.execute(insert(files).values(**msgspec.structs.asdict(file)))

    def get(self, file_id: str, *, team: str) -> StoredFile:
        found = self._all(select(files).where(files.c.id == file_id, files.c.team == team))
        if not found:
            raise NotFound(f"no file {file_id[:64]!r}")
        return found[0]

    def page(
        self, *, team: str, key_id: str | None = None, after: str | None = None, limit: int
    ) -> list[StoredFile]:
        query = select(files).where(files.c.team == team).order_by(files.c.id.desc()).limit(limit)
        if key_id is not None:
            query = query.where(files.c.key_id == key_id)
        return self._all(query if after is None else query.where(files.c.id < after))

    def used(self, team: str) -> tuple[int, int]:
        query = select(func.count(), total(files.c.size_bytes)).where(files.c.team == team)
        count, size = self._connection.execute(query).one()
        return count, size or 0

    def remove(self, file_id: str) -> None:
        self._connection.execute(delete(files).where(files.c.id == file_id))

    def expired(self, now: float, *, limit: int) -> list[StoredFile]:
        return self._all(select(files).where(files.c.expires_at <= now).order_by(files.c.id).limit(limit))

    def ids(self) -> list[str]:
        return list(self._connection.execute(select(files.c.id)).scalars())

    def _all(self, query: Select[Any]) -> list[StoredFile]:
        rows = self._connection.execute(query)
        return [StoredFile(**row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's public name for it


class SqlBatches:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(self, batch: Batch) -> None:
        statement = upsert(self._connection, batches).values(
            id=batch.id,
            team=batch.team,
            key_id=batch.key_id,
            status=batch.status,
            created_at=batch.created_at,
            document=msgspec.json.encode(batch).decode(),
        )
        changed = {name: statement.excluded[name] for name in ("status", "document")}
        self._connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changed))

    def get(self, batch_id: str, *, team: str) -> Batch:
        query = select(batches.c.document).where(batches.c.id == batch_id, batches.c.team == team)
        document = self._connection.execute(query).scalar()
        if document is None:
            raise NotFound(f"no batch {batch_id[:64]!r}")
        return _batch(document)

    def page(
        self, *, team: str, key_id: str | None = None, after: str | None = None, limit: int
    ) -> list[Batch]:
        query = select(batches.c.document).where(batches.c.team == team).order_by(batches.c.id.desc())
        if key_id is not None:
            query = query.where(batches.c.key_id == key_id)
        if after is not None:
            query = query.where(batches.c.id < after)
        return [_batch(document) for document in self._connection.execute(query.limit(limit)).scalars()]

    def active(self) -> list[Batch]:
        query = select(batches.c.document).where(batches.c.status.not_in(ENDED)).order_by(batches.c.id)
        return [_batch(document) for document in self._connection.execute(query).scalars()]

    def forget(self, before: float, *, limit: int) -> int:
        chosen = (
            select(batches.c.id)
            .where(batches.c.created_at < before, batches.c.status.in_(ENDED))
            .limit(limit)
        )
        return self._connection.execute(delete(batches).where(batches.c.id.in_(chosen))).rowcount


def _batch(document: str) -> Batch:
    return msgspec.json.decode(document, type=Batch)
