"""Repositories of the control plane's own: sealing keys, journal positions, leases, purges, secrets."""

from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, bindparam, delete, select, update

from pilothouse.adapters.stores._dialect import insert_new, upsert
from pilothouse.adapters.stores._tables import cache_purges, journal_positions, leases, sealing_keys, secrets
from pilothouse.domain.errors import Conflict, NotFound
from pilothouse.domain.provider_secret import SealedSecret
from pilothouse.ports.store import CachePurge, JournalPosition, Lease, SealingKey

# Built once: the drain asks for the key of each person in a batch, and each transaction for its lease.
_FIND_KEY = select(sealing_keys).where(
    sealing_keys.c.team == bindparam("team"), sealing_keys.c.subject_hash == bindparam("subject")
)
_HELD = (
    select(leases.c.token)
    .where(*(leases.c[name] == bindparam(name) for name in ("name", "holder", "token")))
    .with_for_update(read=True)
)


class SqlSealingKeys:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, key: SealingKey) -> None:
        if not insert_new(self._connection, sealing_keys, msgspec.structs.asdict(key)):
            raise Conflict(f"team {key.team!r} has a sealing key for that subject; use it")

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
        statement = upsert(self._connection, journal_positions)
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

    def get(self, name: str) -> Lease | None:
        row = self._connection.execute(select(leases).where(leases.c.name == name)).first()
        return None if row is None else Lease(**row._mapping)  # noqa: SLF001 - its public name

    def acquire(self, name: str, holder: str, *, ttl_s: float, now: float) -> Lease | None:
        row = self._locked(name)
        if row is None:
            lease = Lease(name=name, holder=holder, token=1, expires_at=now + ttl_s)
            return lease if insert_new(self._connection, leases, msgspec.structs.asdict(lease)) else None
        is_ours = row.holder == holder
        if not is_ours and row.expires_at > now:
            return None
        token = row.token if is_ours and row.expires_at > now else row.token + 1
        lease = Lease(name=name, holder=holder, token=token, expires_at=now + ttl_s)
        self._save(lease)
        return lease

    def renew(self, lease: Lease, *, ttl_s: float, now: float) -> Lease | None:
        row = self._locked(lease.name)
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

    def is_held(self, lease: Lease) -> bool:
        # The shared lock keeps a successor waiting until this transaction has ended.
        return self._connection.execute(_HELD, msgspec.structs.asdict(lease)).first() is not None

    def _locked(self, name: str) -> Row[Any] | None:
        """The row, which nobody else changes before the end of this transaction."""
        query = select(leases).where(leases.c.name == name).with_for_update()
        return self._connection.execute(query).first()

    def _save(self, lease: Lease) -> None:
        self._connection.execute(
            update(leases)
            .where(leases.c.name == lease.name)
            .values(holder=lease.holder, token=lease.token, expires_at=lease.expires_at)
        )


class SqlCachePurges:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, team: str, endpoint: str) -> None:
        once = upsert(self._connection, cache_purges).values(team=team, endpoint=endpoint, count=1)
        self._connection.execute(
            once.on_conflict_do_update(
                index_elements=["team", "endpoint"], set_={"count": cache_purges.c.count + 1}
            )
        )

    def all(self) -> list[CachePurge]:
        query = select(cache_purges).order_by(cache_purges.c.team, cache_purges.c.endpoint)
        return [CachePurge(*row) for row in self._connection.execute(query)]


class SqlSecrets:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(self, secret: SealedSecret) -> None:
        values = msgspec.structs.asdict(secret)
        once = upsert(self._connection, secrets).values(**values)
        self._connection.execute(once.on_conflict_do_update(index_elements=["name"], set_=values))

    def all(self) -> list[SealedSecret]:
        query = select(secrets).order_by(secrets.c.name)
        return [SealedSecret(**row) for row in self._connection.execute(query).mappings()]

    def remove(self, name: str) -> None:
        if not self._connection.execute(delete(secrets).where(secrets.c.name == name)).rowcount:
            raise NotFound(f"no secret {name!r}; see: pilothouse secret list")
