"""Repositories of the control plane's own matters: sealing keys, journal positions, leases."""

from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import IntegrityError

from pilothouse.adapters.stores._tables import journal_positions, leases, sealing_keys
from pilothouse.domain.errors import Conflict, NotFound
from pilothouse.ports.store import JournalPosition, Lease, SealingKey

# Built once: the drain asks for the key of each person in a batch.
_FIND_KEY = select(sealing_keys).where(
    sealing_keys.c.team == bindparam("team"), sealing_keys.c.subject_hash == bindparam("subject")
)


class SqlSealingKeys:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, key: SealingKey) -> None:
        try:
            self._connection.execute(insert(sealing_keys).values(**msgspec.structs.asdict(key)))
        except IntegrityError as exc:
            raise Conflict(f"team {key.team!r} has a sealing key for that subject; use it") from exc

    def get(self, key_id: str) -> SealingKey:
        row = self._connection.execute(select(sealing_keys).where(sealing_keys.c.id == key_id)).first()
        if row is None:
            raise NotFound(f"no sealing key {key_id!r}: what it sealed was erased and cannot be read again")
        return _sealing_key(row)

    def find(self, team: str, subject_hash: str) -> SealingKey | None:
        row = self._connection.execute(_FIND_KEY, {"team": team, "subject": subject_hash}).first()
        return None if row is None else _sealing_key(row)

    def of_teams(self) -> list[SealingKey]:
        query = select(sealing_keys).where(sealing_keys.c.subject_hash == "").order_by(sealing_keys.c.team)
        return [_sealing_key(row) for row in self._connection.execute(query)]

    def rewrap(self, key_id: str, wrapped: bytes) -> None:
        done = self._connection.execute(
            update(sealing_keys).where(sealing_keys.c.id == key_id).values(wrapped=wrapped)
        )
        if not done.rowcount:
            raise NotFound(f"no sealing key {key_id!r}: it was destroyed meanwhile")

    def destroy(self, team: str, subject_hash: str) -> bool:
        done = self._connection.execute(
            delete(sealing_keys).where(
                sealing_keys.c.team == team, sealing_keys.c.subject_hash == subject_hash
            )
        )
        return bool(done.rowcount)


def _sealing_key(row: Row[Any]) -> SealingKey:
    return SealingKey(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it


class SqlJournals:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def positions(self) -> dict[str, int]:
        return {row.segment: row.offset for row in self._connection.execute(select(journal_positions))}

    def advance(self, positions: Iterable[JournalPosition]) -> None:
        values = [{"segment": position.segment, "offset": position.offset} for position in positions]
        if not values:
            return
        statement = upsert(journal_positions)
        self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=["segment"], set_={"offset": statement.excluded.offset}
            ),
            values,
        )

    def forget(self, segments: Iterable[str]) -> None:
        for segment in segments:
            self._connection.execute(delete(journal_positions).where(journal_positions.c.segment == segment))


class SqlLeases:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def acquire(self, name: str, holder: str, *, ttl_s: float, now: float) -> Lease | None:
        row = self._connection.execute(select(leases).where(leases.c.name == name)).first()
        if row is None:
            lease = Lease(name=name, holder=holder, token=1, expires_at=now + ttl_s)
            self._connection.execute(insert(leases).values(**msgspec.structs.asdict(lease)))
            return lease
        is_ours = row.holder == holder
        if not is_ours and row.expires_at > now:
            return None
        token = row.token if is_ours and row.expires_at > now else row.token + 1
        lease = Lease(name=name, holder=holder, token=token, expires_at=now + ttl_s)
        self._save(lease)
        return lease

    def renew(self, lease: Lease, *, ttl_s: float, now: float) -> Lease | None:
        row = self._connection.execute(select(leases).where(leases.c.name == lease.name)).first()
        if row is None or (row.holder, row.token) != (lease.holder, lease.token):
            return None
        renewed = msgspec.structs.replace(lease, expires_at=now + ttl_s)
        self._save(renewed)
        return renewed

    def release(self, lease: Lease) -> None:
        """The row stays, so that the next holder gets a larger token."""
        self._connection.execute(
            update(leases)
            .where(
                leases.c.name == lease.name, leases.c.holder == lease.holder, leases.c.token == lease.token
            )
            .values(holder="", expires_at=0.0)
        )

    def _save(self, lease: Lease) -> None:
        self._connection.execute(
            update(leases)
            .where(leases.c.name == lease.name)
            .values(holder=lease.holder, token=lease.token, expires_at=lease.expires_at)
        )
