"""Repositories of what happened: records, usage by the minute, and resources."""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Row,
    Select,
    Table,
    bindparam,
    delete,
    exists,
    func,
    select,
    tuple_,
)

from pilothouse.adapters.stores._cursor import decode_cursor, fetch_page
from pilothouse.adapters.stores._dialect import insert_rows, total, upsert
from pilothouse.adapters.stores._tables import contents, records, resource_minutes, usage_minutes
from pilothouse.domain.errors import NotFound
from pilothouse.domain.limits import BudgetScope
from pilothouse.domain.record import InferenceRecord
from pilothouse.domain.usage import Sums, UsageBy, UsageLine, minute_of, roll_up
from pilothouse.ports.store import Page, RecordFilter, ResourceSample, SealedRecord

_SUMS = tuple(Sums.__struct_fields__)
_COLUMN = {"team": "team", "key": "key_id", "endpoint": "endpoint", "subject": "subject_hash"}
_THERE = select(records.c.id).where(records.c.id.in_(bindparam("ids", expanding=True)))


class SqlRecords:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert_many(self, rows: Sequence[SealedRecord]) -> int:
        by_id: dict[str, SealedRecord] = {}
        for row in rows:
            by_id.setdefault(row.record.id, row)
        there = self._connection.execute(_THERE, {"ids": list(by_id)}).scalars()
        for record_id in list(there):
            del by_id[record_id]
        new = list(by_id.values())
        if not new:
            return 0
        insert_rows(self._connection, records, [msgspec.structs.astuple(row.record) for row in new])
        sealed = [_content_values(row) for row in new if row.content is not None]
        if sealed:
            insert_rows(self._connection, contents, sealed)
        self._count(row.record for row in new)
        return len(new)

    def _count(self, new: Iterable[InferenceRecord]) -> None:
        values = [
            {**msgspec.structs.asdict(key), **msgspec.structs.asdict(sums)}
            for key, sums in roll_up(new).items()
        ]
        if not values:
            return
        statement = upsert(self._connection, usage_minutes)
        self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=list(usage_minutes.primary_key.columns),
                set_={name: usage_minutes.c[name] + statement.excluded[name] for name in _SUMS},
            ),
            values,
        )

    def get(self, record_id: str) -> InferenceRecord:
        row = self._connection.execute(select(records).where(records.c.id == record_id)).first()
        if row is None:
            raise NotFound(f"no record {record_id!r}; it may not be drained yet, or be past its retention")
        return _record(row)

    def page(
        self, where: RecordFilter, *, cursor: str | None = None, limit: int = 100
    ) -> Page[InferenceRecord]:
        query = _filtered(select(records), where).order_by(records.c.time.desc(), records.c.id.desc())
        if cursor is not None:
            place = decode_cursor(cursor, tuple[float, str])
            query = query.where(tuple_(records.c.time, records.c.id) < place)
        return fetch_page(
            self._connection, query, limit=limit, make=_record, place=lambda record: (record.time, record.id)
        )

    def content(self, record_id: str) -> SealedRecord:
        record = self.get(record_id)
        row = self._connection.execute(select(contents).where(contents.c.record_id == record_id)).first()
        if row is None:
            return SealedRecord(record=record)
        return SealedRecord(record=record, content=row.sealed, sealing_key=row.sealing_key)

    def forget_content(self, cutoffs: Mapping[str, float], *, otherwise: float, limit: int) -> int:
        rules: list[ColumnElement[bool]] = [
            (contents.c.endpoint == endpoint) & (contents.c.time < cutoff)
            for endpoint, cutoff in cutoffs.items()
        ]
        rules.append(contents.c.endpoint.not_in(list(cutoffs)) & (contents.c.time < otherwise))
        erased = 0
        for rule in rules:
            if erased < limit:
                chosen = select(contents.c.record_id).where(rule).limit(limit - erased)
                done = self._connection.execute(delete(contents).where(contents.c.record_id.in_(chosen)))
                erased += done.rowcount
        return erased

    def forget_content_of(self, record_id: str) -> bool:
        return (
            self._connection.execute(delete(contents).where(contents.c.record_id == record_id)).rowcount > 0
        )

    def forget(self, before: float, *, limit: int) -> int:
        has_content = exists().where(contents.c.record_id == records.c.id)
        chosen = select(records.c.id).where(records.c.time < before, ~has_content).limit(limit)
        return self._connection.execute(delete(records).where(records.c.id.in_(chosen))).rowcount


def _content_values(row: SealedRecord) -> tuple[Any, ...]:
    record = row.record
    return record.id, record.team, record.endpoint, record.time, row.sealing_key, row.content


def _within(scope: BudgetScope, query: Select[Any], source: Table) -> Select[Any]:
    at = source.c.time if source is records else source.c.minute
    for name in ("key_id", "team", "endpoint", "subject_hash"):
        if (value := getattr(scope, name)) is not None:
            query = query.where(source.c[name] == value)
    return query.where(at >= scope.since, at < scope.until)


def _filtered(query: Select[Any], where: RecordFilter) -> Select[Any]:
    for name in ("team", "endpoint", "deployment", "key_id", "subject_hash", "code"):
        if (value := getattr(where, name)) is not None:
            query = query.where(records.c[name] == value)
    if where.since is not None:
        query = query.where(records.c.time >= where.since)
    if where.until is not None:
        query = query.where(records.c.time < where.until)
    return query


def _record(row: Row[Any]) -> InferenceRecord:
    return InferenceRecord(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it


class SqlUsage:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def spent(self, scope: BudgetScope) -> int:
        source = usage_minutes if scope.subject_hash is None else records
        query = _within(scope, select(total(source.c.cost_micro_usd)), source)
        return self._connection.execute(query).scalar() or 0

    def spent_by(self, by: UsageBy, scope: BudgetScope) -> dict[str, int]:
        source = records if by == "subject" else usage_minutes
        group, cost = source.c[_COLUMN[by]], total(source.c.cost_micro_usd)
        query = _within(scope, select(group, cost), source).where(group != "").group_by(group)
        rows = self._connection.execute(query.having(cost > 0))
        return {name: int(spent) for name, spent in rows}

    def report(self, by: UsageBy, *, since: float, until: float, team: str | None = None) -> list[UsageLine]:
        if by == "subject":
            source: Table = records
            group: ColumnElement[str] = records.c.subject_hash
            sums = _sums_of_records()
            period = (records.c.time >= minute_of(since)) & (records.c.time < minute_of(until))
            period &= (records.c.subject_hash != "") & (records.c.shadow_of == "")
        else:
            source = usage_minutes
            group = usage_minutes.c[_COLUMN[by]]
            sums = [total(usage_minutes.c[name]).label(name) for name in _SUMS]
            period = (usage_minutes.c.minute >= minute_of(since)) & (
                usage_minutes.c.minute < minute_of(until)
            )
        # An endpoint may serve several teams: unless one is asked for, its line adds them up.
        groups = [group] if by == "endpoint" else [group, source.c.team]
        query = select(group.label("usage_group"), func.min(source.c.team).label("team"), *sums).where(period)
        if team is not None:
            query = query.where(source.c.team == team)
        rows = self._connection.execute(query.group_by(*groups))
        lines = [_line(row, shows_team=by != "endpoint" or team is not None) for row in rows]
        return sorted(lines, key=lambda x: (-x.sums.cost_micro_usd, -x.sums.requests, x.group, x.team))

    def forget(self, before: float, *, limit: int) -> int:
        return _forget_minutes(self._connection, usage_minutes, before, limit)


def _sums_of_records() -> list[ColumnElement[Any]]:
    errors = total((records.c.code != "ok").cast(Integer))
    others = [name for name in _SUMS if name not in ("requests", "errors")]
    return [
        func.count().label("requests"),
        errors.label("errors"),
        *(total(records.c[name]).label(name) for name in others),
    ]


def _line(row: Row[Any], *, shows_team: bool) -> UsageLine:
    sums = Sums(**{name: getattr(row, name) for name in _SUMS})
    return UsageLine(group=row.usage_group, team=row.team if shows_team else "", sums=sums)


class SqlResources:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put_many(self, samples: Iterable[ResourceSample]) -> None:
        values = [msgspec.structs.asdict(sample) for sample in samples]
        if not values:
            return
        statement = upsert(self._connection, resource_minutes)
        keys = list(resource_minutes.primary_key.columns)
        others = [column.name for column in resource_minutes.columns if not column.primary_key]
        self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=keys, set_={name: statement.excluded[name] for name in others}
            ),
            values,
        )

    def page(
        self,
        *,
        since: float,
        until: float,
        name: str | None = None,
        cursor: str | None = None,
        limit: int = 1000,
    ) -> Page[ResourceSample]:
        columns = resource_minutes.c
        query = (
            select(resource_minutes)
            .where(columns.minute >= ceil(since), columns.minute < ceil(until))
            .order_by(columns.minute, columns.role, columns.name)
        )
        if name is not None:
            query = query.where(columns.name == name)
        if cursor is not None:
            place = decode_cursor(cursor, tuple[int, str, str])
            query = query.where(tuple_(columns.minute, columns.role, columns.name) > place)
        return fetch_page(
            self._connection,
            query,
            limit=limit,
            make=lambda row: ResourceSample(**row._mapping),  # noqa: SLF001 - its public name
            place=lambda sample: (sample.minute, sample.role, sample.name),
        )

    def forget(self, before: float, *, limit: int) -> int:
        return _forget_minutes(self._connection, resource_minutes, before, limit)


def _forget_minutes(connection: Connection, table: Table, before: float, limit: int) -> int:
    """These tables have no row ids; their primary key starts with the minute."""
    place = tuple_(*table.primary_key.columns)
    chosen = select(*table.primary_key.columns).where(table.c.minute < ceil(before)).limit(limit)
    return connection.execute(delete(table).where(place.in_(chosen))).rowcount
