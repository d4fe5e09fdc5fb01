"""
A store in memory: the fake of `ports.store`, dicts of frozen values.

A unit works on copies of the dicts, which take the place of the old ones when it
ends well. It forgets everything with the process, and has no disk to fill.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from msgspec import Struct, field
from msgspec.structs import asdict, replace

from pilothouse.domain.batch import Batch, StoredFile
from pilothouse.domain.errors import Conflict, InvalidRequest, NotFound
from pilothouse.domain.events import Event
from pilothouse.domain.feedback import Feedback
from pilothouse.domain.limits import BudgetScope, Limits
from pilothouse.domain.model import ModelVersion
from pilothouse.domain.provider_secret import SealedSecret
from pilothouse.domain.record import InferenceRecord
from pilothouse.domain.rollout import Rollout
from pilothouse.domain.spec import Spec
from pilothouse.domain.tenancy import ApiKeyRow, Team
from pilothouse.domain.usage import RollupKey, Sums, UsageBy, UsageLine, minute_of, roll_up, sums_of
from pilothouse.ports.store import (
    CachePurge,
    JournalPosition,
    Lease,
    Page,
    RecordFilter,
    ResourceSample,
    SealedRecord,
    SealingKey,
    StoredSpec,
)
from pilothouse.testing.memory_batches import MemoryBatches, MemoryFiles
from pilothouse.testing.memory_releases import MemoryFeedbacks, MemoryRollouts

T = TypeVar("T")


class _State(Struct):
    """Everything that is kept, by its key."""

    teams: dict[str, Team] = field(default_factory=dict)
    keys: dict[str, ApiKeyRow] = field(default_factory=dict)
    models: dict[tuple[str, str], ModelVersion] = field(default_factory=dict)
    specs: dict[int, StoredSpec] = field(default_factory=dict)
    events: dict[str, Event] = field(default_factory=dict)
    purges: dict[tuple[str, str], int] = field(default_factory=dict)
    records: dict[str, SealedRecord] = field(default_factory=dict)
    minutes: dict[RollupKey, Sums] = field(default_factory=dict)
    secrets: dict[str, SealedSecret] = field(default_factory=dict)
    resources: dict[tuple[int, str, str], ResourceSample] = field(default_factory=dict)
    seals: dict[str, SealingKey] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)
    rollouts: dict[str, Rollout] = field(default_factory=dict)
    feedback: dict[str, Feedback] = field(default_factory=dict)
    files: dict[str, StoredFile] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)

    def copy(self) -> "_State":
        return _State(**{name: dict(getattr(self, name)) for name in self.__struct_fields__})


class MemoryStore:
    def __init__(self) -> None:
        self._state = _State()

    @contextmanager
    def unit(self, *, urgent: bool = False) -> Iterator["MemoryUnit"]:  # noqa: ARG002 - no disk, no reserve
        state = self._state.copy()
        yield MemoryUnit(state)
        self._state = state

    def scrub(self) -> None: ...

    def close(self) -> None: ...


class MemoryUnit:
    def __init__(self, state: _State) -> None:
        self.teams = MemoryTeams(state)
        self.keys = MemoryApiKeys(state)
        self.models = MemoryModels(state)
        self.specs = MemorySpecs(state)
        self.events = MemoryEvents(state)
        self.records = MemoryRecords(state)
        self.usage = MemoryUsage(state)
        self.resources = MemoryResources(state)
        self.seals = MemorySealingKeys(state)
        self.journals = MemoryJournals(state)
        self.leases = MemoryLeases(state)
        self.purges = MemoryCachePurges(state)
        self.secrets = MemorySecrets(state)
        self.rollouts = MemoryRollouts(state.rollouts)
        self.feedback = MemoryFeedbacks(state.feedback)
        self.files = MemoryFiles(state.files)
        self.batches = MemoryBatches(state.batches)


class _Repository:
    def __init__(self, state: _State) -> None:
        self._state = state


def _one(rows: Mapping[Any, T], key: Any, what: str) -> T:
    if key not in rows:
        raise NotFound(f"no {what} {key!r}")
    return rows[key]


def _page(rows: Sequence[T], cursor: str | None, limit: int) -> Page[T]:
    if cursor is not None and not cursor.isdigit():
        raise InvalidRequest("cursor: not one of this list", param="cursor")
    start = int(cursor or 0)
    end = start + limit
    return Page(list(rows[start:end]), str(end) if end < len(rows) else None)


class MemoryTeams(_Repository):
    def add(self, team: Team) -> None:
        if team.name in self._state.teams:
            raise Conflict(f"the team {team.name!r} exists already; choose another name")
        self._state.teams[team.name] = team

    def get(self, name: str) -> Team:
        return _one(self._state.teams, name, "team")

    def all(self) -> list[Team]:
        return sorted(self._state.teams.values(), key=lambda team: team.name)

    def limit(self, name: str, *, limits: Limits, per_subject: Limits) -> Team:
        team = replace(self.get(name), limits=limits, per_subject=per_subject)
        self._state.teams[name] = team
        return team


class MemoryApiKeys(_Repository):
    def add(self, row: ApiKeyRow) -> None:
        _one(self._state.teams, row.team, "team")
        if row.id in self._state.keys:
            raise Conflict(f"the key {row.id!r} exists already; make another")
        self._state.keys[row.id] = row

    def get(self, key_id: str) -> ApiKeyRow:
        return _one(self._state.keys, key_id, "key")

    def active(self, now: float) -> list[ApiKeyRow]:
        return sorted(
            (row for row in self._state.keys.values() if row.is_active(now)), key=lambda row: row.id
        )

    def page(
        self, *, team: str | None = None, cursor: str | None = None, limit: int = 100
    ) -> Page[ApiKeyRow]:
        rows = [row for row in self._state.keys.values() if team in (None, row.team)]
        return _page(sorted(rows, key=lambda row: (row.created_at, row.id), reverse=True), cursor, limit)

    def limit(self, key_id: str, limits: Limits) -> ApiKeyRow:
        row = self._state.keys[key_id] = replace(self.get(key_id), limits=limits)
        return row

    def revoke(self, key_id: str, *, at: float) -> ApiKeyRow:
        row = self.get(key_id)
        if row.revoked_at is None:
            row = self._state.keys[key_id] = replace(row, revoked_at=at)
        return row

    def expire(self, key_id: str, *, at: float) -> ApiKeyRow:
        row = self.get(key_id)
        if row.expires_at is None or row.expires_at > at:
            row = self._state.keys[key_id] = replace(row, expires_at=at)
        return row


class MemoryModels(_Repository):
    def put(self, model: ModelVersion) -> None:
        there = self._state.models.setdefault((model.name, model.version), model)
        if there.digest != model.digest:
            raise Conflict(f"version {model.version} of {model.name!r} is {there.digest}")

    def annotate(self, name: str, version: str, *, card: str) -> ModelVersion:
        found = _one(self._state.models, (name, version), "model")
        changed = self._state.models[name, version] = replace(found, card=card)
        return changed

    def newest(self, name: str) -> ModelVersion:
        return _one({model.name: model for model in reversed(self.all())}, name, "model")

    def by_digest(self, digest: str) -> ModelVersion:
        by_age = sorted(self._state.models.values(), key=lambda model: model.created_at)
        return _one({model.digest: model for model in by_age}, digest, "model with the digest")

    def all(self) -> list[ModelVersion]:
        newest_first = sorted(
            self._state.models.values(), key=lambda m: (m.created_at, m.version), reverse=True
        )
        return sorted(newest_first, key=lambda model: model.name)

    def remove(self, name: str, version: str) -> None:
        _one(self._state.models, (name, version), "model")
        del self._state.models[name, version]


class MemorySpecs(_Repository):
    def current(self) -> StoredSpec | None:
        return self._state.specs.get(len(self._state.specs))

    def get(self, revision: int) -> StoredSpec:
        return _one(self._state.specs, revision, "revision of the spec")

    def put(self, spec: Spec, *, expected_revision: int, author: str, now: float) -> StoredSpec:
        revision = len(self._state.specs)
        if revision != expected_revision:
            raise Conflict(f"the spec is at revision {revision} by now; read it again and repeat the change")
        stored = StoredSpec(revision=revision + 1, spec=spec, author=author, time=now)
        self._state.specs[stored.revision] = stored
        return stored

    def history(self, *, cursor: str | None = None, limit: int = 20) -> Page[StoredSpec]:
        return _page(list(reversed(self._state.specs.values())), cursor, limit)


class MemoryEvents(_Repository):
    def put_many(self, batch: Sequence[Event]) -> None:
        for event in batch:
            there = self._state.events.get(event.id, event)
            self._state.events[event.id] = replace(
                there, time=event.time, count=event.count, revision=event.revision
            )

    def page(
        self,
        *,
        kind: str | None = None,
        name: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page[Event]:
        rows = [e for e in self._sorted() if kind in (None, e.kind) and name in (None, e.name)]
        return _page(rows, cursor, limit)

    def forget(self, *, keep: int) -> int:
        old = self._sorted()[keep:]
        for event in old:
            del self._state.events[event.id]
        return len(old)

    def _sorted(self) -> list[Event]:
        return sorted(self._state.events.values(), key=lambda event: (event.time, event.id), reverse=True)


class MemoryRecords(_Repository):
    def insert_many(self, rows: Sequence[SealedRecord]) -> int:
        new: dict[str, SealedRecord] = {}
        for row in rows:
            if row.record.id not in self._state.records:
                new.setdefault(row.record.id, row)
        self._state.records.update(new)
        for key, sums in roll_up(row.record for row in new.values()).items():
            self._state.minutes[key] = self._state.minutes.get(key, Sums()) + sums
        return len(new)

    def get(self, record_id: str) -> InferenceRecord:
        return self.content(record_id).record

    def page(
        self, where: RecordFilter, *, cursor: str | None = None, limit: int = 100
    ) -> Page[InferenceRecord]:
        rows = [row.record for row in self._state.records.values() if _matches(row.record, where)]
        return _page(sorted(rows, key=lambda record: (record.time, record.id), reverse=True), cursor, limit)

    def content(self, record_id: str) -> SealedRecord:
        return _one(self._state.records, record_id, "record")

    def forget_content(self, cutoffs: Mapping[str, float], *, otherwise: float, limit: int) -> int:
        old = [
            (record_id, row)
            for record_id, row in self._state.records.items()
            if row.content is not None and row.record.time < cutoffs.get(row.record.endpoint, otherwise)
        ][:limit]
        for record_id, row in old:
            self._state.records[record_id] = SealedRecord(record=row.record)
        return len(old)

    def forget_content_of(self, record_id: str) -> bool:
        row = self._state.records.get(record_id)
        if row is None or row.content is None:
            return False
        self._state.records[record_id] = SealedRecord(record=row.record)
        return True

    def forget(self, before: float, *, limit: int) -> int:
        return _forget(
            self._state.records, lambda _, row: row.record.time < before and row.content is None, limit
        )


def _matches(record: InferenceRecord, where: RecordFilter) -> bool:
    since, until = where.since, where.until
    wanted = {name: value for name, value in asdict(where).items() if name not in ("since", "until")}
    return (
        all(value is None or getattr(record, name) == value for name, value in wanted.items())
        and (since is None or record.time >= since)
        and (until is None or record.time < until)
    )


def _forget(rows: dict[Any, Any], is_old: Any, limit: int) -> int:
    old = [key for key, row in rows.items() if is_old(key, row)][:limit]
    for key in old:
        del rows[key]
    return len(old)


class MemoryUsage(_Repository):
    def spent(self, scope: BudgetScope) -> int:
        return sum(record.cost_micro_usd for record in self._within(scope))

    def spent_by(self, by: UsageBy, scope: BudgetScope) -> dict[str, int]:
        column = {"team": "team", "key": "key_id", "endpoint": "endpoint", "subject": "subject_hash"}[by]
        costs: dict[str, int] = {}
        for record in self._within(scope):
            name = getattr(record, column)
            costs[name] = costs.get(name, 0) + record.cost_micro_usd
        return {name: cost for name, cost in costs.items() if name and cost}

    def _within(self, scope: BudgetScope) -> Iterator[InferenceRecord]:
        for row in self._state.records.values():
            if scope.since <= row.record.time < scope.until and all(
                getattr(scope, name) in (None, getattr(row.record, name))
                for name in ("key_id", "team", "endpoint", "subject_hash")
            ):
                yield row.record

    def report(self, by: UsageBy, *, since: float, until: float, team: str | None = None) -> list[UsageLine]:
        since, until = minute_of(since), minute_of(until)
        lines: dict[tuple[str, str], Sums] = {}
        for group, owner, sums in self._parts(by, since, until):
            if team in (None, owner):
                key = (group, "" if by == "endpoint" and team is None else owner)
                lines[key] = lines.get(key, Sums()) + sums
        made = [UsageLine(group=group, team=owner, sums=sums) for (group, owner), sums in lines.items()]
        return sorted(made, key=lambda x: (-x.sums.cost_micro_usd, -x.sums.requests, x.group, x.team))

    def _parts(self, by: UsageBy, since: float, until: float) -> Iterator[tuple[str, str, Sums]]:
        if by == "subject":
            for row in self._state.records.values():
                record = row.record
                if record.subject_hash and not record.shadow_of and since <= record.time < until:
                    yield record.subject_hash, record.team, sums_of(record)
        else:
            for key, sums in self._state.minutes.items():
                if since <= key.minute < until:
                    yield {"team": key.team, "key": key.key_id, "endpoint": key.endpoint}[by], key.team, sums

    def forget(self, before: float, *, limit: int) -> int:
        return _forget(self._state.minutes, lambda key, _: key.minute < before, limit)


class MemoryResources(_Repository):
    def put_many(self, samples: Iterable[ResourceSample]) -> None:
        for sample in samples:
            self._state.resources[sample.minute, sample.role, sample.name] = sample

    def page(
        self,
        *,
        since: float,
        until: float,
        name: str | None = None,
        cursor: str | None = None,
        limit: int = 1000,
    ) -> Page[ResourceSample]:
        rows = [
            row
            for _, row in sorted(self._state.resources.items())
            if since <= row.minute < until and name in (None, row.name)
        ]
        return _page(rows, cursor, limit)

    def forget(self, before: float, *, limit: int) -> int:
        return _forget(self._state.resources, lambda key, _: key[0] < before, limit)


class MemorySealingKeys(_Repository):
    def add(self, key: SealingKey) -> None:
        if self.find(key.team, key.subject_hash) or key.id in self._state.seals:
            raise Conflict(f"team {key.team!r} has a sealing key for that subject; use it")
        self._state.seals[key.id] = key

    def get(self, key_id: str) -> SealingKey:
        return _one(self._state.seals, key_id, "sealing key")

    def find(self, team: str, subject_hash: str) -> SealingKey | None:
        keys = self._state.seals.values()
        return next((k for k in keys if (k.team, k.subject_hash) == (team, subject_hash)), None)

    def of_teams(self) -> list[SealingKey]:
        return sorted((k for k in self._state.seals.values() if not k.subject_hash), key=lambda k: k.team)

    def rewrap(self, key_id: str, wrapped: bytes) -> None:
        self._state.seals[key_id] = replace(self.get(key_id), wrapped=wrapped)

    def destroy(self, team: str, subject_hash: str) -> bool:
        found = self.find(team, subject_hash)
        return found is not None and self._state.seals.pop(found.id) is found


class MemoryJournals(_Repository):
    def positions(self) -> dict[str, int]:
        return dict(self._state.positions)

    def advance(self, positions: Iterable[JournalPosition]) -> None:
        self._state.positions.update({position.segment: position.offset for position in positions})

    def forget(self, segments: Iterable[str]) -> None:
        for segment in segments:
            self._state.positions.pop(segment, None)


class MemoryLeases(_Repository):
    def get(self, name: str) -> Lease | None:
        return self._state.leases.get(name)

    def acquire(self, name: str, holder: str, *, ttl_s: float, now: float) -> Lease | None:
        there = self._state.leases.get(name)
        is_free = there is None or there.expires_at <= now
        if there is not None and not is_free and there.holder != holder:
            return None
        token = (there.token if there else 0) + is_free
        lease = self._state.leases[name] = Lease(
            name=name, holder=holder, token=token, expires_at=now + ttl_s
        )
        return lease

    def renew(self, lease: Lease, *, ttl_s: float, now: float) -> Lease | None:
        if not self.is_held(lease):
            return None
        renewed = self._state.leases[lease.name] = replace(lease, expires_at=now + ttl_s)
        return renewed

    def release(self, lease: Lease) -> None:
        if self.is_held(lease):
            self._state.leases[lease.name] = replace(lease, holder="", expires_at=0.0)

    def is_held(self, lease: Lease) -> bool:
        there = self._state.leases.get(lease.name)
        return there is not None and (there.holder, there.token) == (lease.holder, lease.token)


class MemoryCachePurges(_Repository):
    def add(self, team: str, endpoint: str) -> None:
        self._state.purges[team, endpoint] = self._state.purges.get((team, endpoint), 0) + 1

    def all(self) -> list[CachePurge]:
        return [CachePurge(*scope, count) for scope, count in sorted(self._state.purges.items())]


class MemorySecrets(_Repository):
    def put(self, secret: SealedSecret) -> None:
        self._state.secrets[secret.name] = secret

    def all(self) -> list[SealedSecret]:
        return [secret for _, secret in sorted(self._state.secrets.items())]

    def remove(self, name: str) -> None:
        _one(self._state.secrets, name, "secret")
        del self._state.secrets[name]
