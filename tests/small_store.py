"""A store of dicts with the repositories that the admin API uses, for tests of it alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from msgspec.structs import replace

from pilothouse.domain.errors import Conflict, NotFound, StoreUnavailable
from pilothouse.domain.record import InferenceRecord
from pilothouse.domain.spec import DEFAULT_SPEC, Spec
from pilothouse.domain.tenancy import ApiKeyRow, Team
from pilothouse.domain.usage import Sums, UsageLine, sums_of
from pilothouse.ports.store import Page, RecordFilter, SealedRecord, StoredSpec

T = TypeVar("T")


class SmallStore:
    """Is its own unit of work. `broken` makes every transaction fail; an error rolls back."""

    def __init__(self, *, spec: Spec | None = DEFAULT_SPEC) -> None:
        self.broken = False
        self.transactions = 0
        self.rows: dict[str, dict[str, Any]] = {"teams": {}, "keys": {}, "records": {}, "specs": {}}
        if spec is not None:
            self.rows["specs"][1] = StoredSpec(revision=1, spec=spec, author="", time=0.0)
        self.teams, self.keys = _Teams(self.rows), _Keys(self.rows)
        self.specs, self.records, self.usage = _Specs(self.rows), _Records(self.rows), _Usage(self.rows)

    @contextmanager
    def unit(self, *, urgent: bool = False) -> Iterator["SmallStore"]:
        if self.broken:
            raise StoreUnavailable("the store is gone")
        self.transactions += 1
        before = {name: dict(table) for name, table in self.rows.items()}
        try:
            yield self
        except BaseException:
            for name, table in before.items():
                self.rows[name].clear()
                self.rows[name].update(table)
            raise

    async def transact(self, work: Callable[[Any], T], /, *, urgent: bool = False) -> T:
        with self.unit(urgent=urgent) as unit:
            return work(unit)


class _Repository:
    def __init__(self, rows: dict[str, dict[str, Any]]) -> None:
        self.rows = rows


class _Teams(_Repository):
    def add(self, team: Team) -> None:
        if team.name in self.rows["teams"]:
            raise Conflict(f"team {team.name!r} exists")
        self.rows["teams"][team.name] = team

    def get(self, name: str) -> Team:
        if name not in self.rows["teams"]:
            raise NotFound(f"no team {name!r}")
        return self.rows["teams"][name]

    def all(self) -> list[Team]:
        return sorted(self.rows["teams"].values(), key=lambda team: team.name)


class _Keys(_Repository):
    def add(self, row: ApiKeyRow) -> None:
        if row.id in self.rows["keys"]:
            raise Conflict("this id is taken")
        self.rows["keys"][row.id] = row

    def get(self, key_id: str) -> ApiKeyRow:
        if key_id not in self.rows["keys"]:
            raise NotFound(f"no key {key_id!r}")
        return self.rows["keys"][key_id]

    def active(self, now: float) -> list[ApiKeyRow]:
        return [row for row in self.rows["keys"].values() if row.is_active(now)]

    def page(
        self, *, team: str | None = None, cursor: str | None = None, limit: int = 100
    ) -> Page[ApiKeyRow]:
        rows = [row for row in reversed(self.rows["keys"].values()) if team in (None, row.team)]
        return _page(rows, cursor, limit)

    def revoke(self, key_id: str, *, at: float) -> ApiKeyRow:
        row = self.get(key_id)
        if row.revoked_at is None:
            row = self.rows["keys"][key_id] = replace(row, revoked_at=at)
        return row

    def expire(self, key_id: str, *, at: float) -> ApiKeyRow:
        row = self.get(key_id)
        ends = at if row.expires_at is None else min(at, row.expires_at)
        self.rows["keys"][key_id] = replace(row, expires_at=ends)
        return self.rows["keys"][key_id]


class _Specs(_Repository):
    def current(self) -> StoredSpec | None:
        return self.rows["specs"].get(max(self.rows["specs"], default=0))

    def put(self, spec: Spec, *, expected_revision: int, author: str, now: float) -> StoredSpec:
        present = max(self.rows["specs"], default=0)
        if present != expected_revision:
            raise Conflict(f"the revision is {present}")
        stored = StoredSpec(revision=present + 1, spec=spec, author=author, time=now)
        self.rows["specs"][stored.revision] = stored
        return stored


class _Records(_Repository):
    def insert(self, record: InferenceRecord, content: bytes | None = None) -> None:
        self.rows["records"][record.id] = SealedRecord(record=record, content=content, sealing_key="k1")

    def get(self, record_id: str) -> InferenceRecord:
        return self.content(record_id).record

    def page(
        self, where: RecordFilter, *, cursor: str | None = None, limit: int = 100
    ) -> Page[InferenceRecord]:
        found = [row.record for row in self.rows["records"].values() if _fits(row.record, where)]
        return _page(sorted(found, key=lambda record: -record.time), cursor, limit)

    def content(self, record_id: str) -> SealedRecord:
        if record_id not in self.rows["records"]:
            raise NotFound(f"no record {record_id!r}")
        return self.rows["records"][record_id]


class _Usage(_Repository):
    def report(self, by: str, *, since: float, until: float, team: str | None = None) -> list[UsageLine]:
        field = {"team": "team", "key": "key_id", "endpoint": "endpoint", "subject": "subject_hash"}[by]
        sums: dict[tuple[str, str], Sums] = {}
        for row in self.rows["records"].values():
            record = row.record
            if since <= record.time < until and team in (None, record.team):
                group = (getattr(record, field), record.team)
                sums[group] = sums.get(group, Sums()) + sums_of(record)
        return [UsageLine(group=group, team=team, sums=total) for (group, team), total in sums.items()]


def _fits(record: InferenceRecord, where: RecordFilter) -> bool:
    return (
        where.team in (None, record.team)
        and where.endpoint in (None, record.endpoint)
        and where.code in (None, record.code)
        and (where.since is None or record.time >= where.since)
    )


def _page(rows: list[T], cursor: str | None, limit: int) -> Page[T]:
    start = int(cursor or 0)
    following = str(start + limit) if start + limit < len(rows) else None
    return Page(rows[start : start + limit], following)
