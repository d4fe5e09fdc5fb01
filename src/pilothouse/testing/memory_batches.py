"""Files and batches in memory: part of the fake of `ports.store`."""

from typing import TypeVar

from pilothouse.domain.batch import Batch, StoredFile
from pilothouse.domain.errors import NotFound

_Row = TypeVar("_Row", StoredFile, Batch)


class MemoryFiles:
    def __init__(self, rows: dict[str, StoredFile]) -> None:
        self._rows = rows

    def add(self, file: StoredFile) -> None:
        self._rows[file.id] = file

    def get(self, file_id: str, *, team: str) -> StoredFile:
        return _of_team(self._rows, file_id, team, "file")

    def page(
        self, *, team: str, key_id: str | None = None, after: str | None = None, limit: int
    ) -> list[StoredFile]:
        return _page(self._rows, team, key_id, after)[:limit]

    def used(self, team: str) -> tuple[int, int]:
        sizes = [one.size_bytes for one in self._rows.values() if one.team == team]
        return len(sizes), sum(sizes)

    def remove(self, file_id: str) -> None:
        self._rows.pop(file_id, None)

    def expired(self, now: float, *, limit: int) -> list[StoredFile]:
        return [one for _, one in sorted(self._rows.items()) if one.expires_at <= now][:limit]

    def ids(self) -> list[str]:
        return list(self._rows)


class MemoryBatches:
    def __init__(self, rows: dict[str, Batch]) -> None:
        self._rows = rows

    def put(self, batch: Batch) -> None:
        self._rows[batch.id] = batch

    def get(self, batch_id: str, *, team: str) -> Batch:
        return _of_team(self._rows, batch_id, team, "batch")

    def page(
        self, *, team: str, key_id: str | None = None, after: str | None = None, limit: int
    ) -> list[Batch]:
        return _page(self._rows, team, key_id, after)[:limit]

    def active(self) -> list[Batch]:
        return [one for _, one in sorted(self._rows.items()) if not one.has_ended]

    def forget(self, before: float, *, limit: int) -> int:
        old = [one.id for one in self._rows.values() if one.has_ended and one.created_at < before][:limit]
        for one in old:
            del self._rows[one]
        return len(old)


def _of_team(rows: dict[str, _Row], key: str, team: str, what: str) -> _Row:
    if key not in rows or rows[key].team != team:
        raise NotFound(f"no {what} {key!r}")
    return rows[key]


def _page(rows: dict[str, _Row], team: str, key_id: str | None, after: str | None) -> list[_Row]:
    return [
        one
        for key, one in sorted(rows.items(), reverse=True)
        if one.team == team and key_id in (None, one.key_id) and (after is None or key < after)
    ]
