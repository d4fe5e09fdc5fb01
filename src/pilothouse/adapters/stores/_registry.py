"""Repositories of what people set up: teams, API keys, models and specs."""

from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, func, insert, or_, select, tuple_, update

from pilothouse.adapters.stores._cursor import decode_cursor, fetch_page
from pilothouse.adapters.stores._dialect import insert_new
from pilothouse.adapters.stores._tables import api_keys, models, specs, teams
from pilothouse.domain.errors import Conflict, NotFound
from pilothouse.domain.limits import Limits
from pilothouse.domain.model import ModelVersion
from pilothouse.domain.spec import Spec
from pilothouse.domain.tenancy import ApiKeyRow, Team
from pilothouse.ports.store import Page, StoredSpec


class SqlTeams:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, team: Team) -> None:
        values = {
            "name": team.name,
            "created_at": team.created_at,
            "limits": _limits_text(team.limits),
            "per_subject": _limits_text(team.per_subject),
        }
        if not insert_new(self._connection, teams, values):
            raise Conflict(f"the team {team.name!r} exists already; choose another name")

    def get(self, name: str) -> Team:
        row = self._connection.execute(select(teams).where(teams.c.name == name)).first()
        if row is None:
            raise NotFound(f"no team {name!r}; see: pilothouse team list")
        return _team(row)

    def all(self) -> list[Team]:
        return [_team(row) for row in self._connection.execute(select(teams).order_by(teams.c.name))]

    def limit(self, name: str, *, limits: Limits, per_subject: Limits) -> Team:
        self._connection.execute(
            update(teams)
            .where(teams.c.name == name)
            .values(limits=_limits_text(limits), per_subject=_limits_text(per_subject))
        )
        return self.get(name)


def _team(row: Row[Any]) -> Team:
    return Team(
        name=row.name,
        created_at=row.created_at,
        limits=_limits(row.limits),
        per_subject=_limits(row.per_subject),
    )


def _limits_text(limits: Limits) -> str | None:
    return msgspec.json.encode(limits).decode() if limits else None


def _limits(text: str | None) -> Limits:
    return msgspec.json.decode(text, type=Limits) if text else Limits()


class SqlApiKeys:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, row: ApiKeyRow) -> None:
        values = msgspec.structs.asdict(row)
        values["limits"] = _limits_text(row.limits)
        if row.endpoints is not None:
            values["endpoints"] = msgspec.json.encode(sorted(row.endpoints)).decode()
        if self._connection.execute(select(teams.c.name).where(teams.c.name == row.team)).first() is None:
            raise NotFound(f"no team {row.team!r}; see: pilothouse team list")
        if not insert_new(self._connection, api_keys, values):
            raise Conflict(f"the key {row.id!r} exists already; make another")

    def get(self, key_id: str) -> ApiKeyRow:
        row = self._connection.execute(select(api_keys).where(api_keys.c.id == key_id)).first()
        if row is None:
            raise NotFound(f"no key {key_id!r}; see: pilothouse key list")
        return _key(row)

    def active(self, now: float) -> list[ApiKeyRow]:
        query = (
            select(api_keys)
            .where(api_keys.c.revoked_at.is_(None))
            .where(or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now))
            .order_by(api_keys.c.id)
        )
        return [_key(row) for row in self._connection.execute(query)]

    def page(
        self, *, team: str | None = None, cursor: str | None = None, limit: int = 100
    ) -> Page[ApiKeyRow]:
        place = tuple_(api_keys.c.created_at, api_keys.c.id)
        query = select(api_keys).order_by(api_keys.c.created_at.desc(), api_keys.c.id.desc())
        if team is not None:
            query = query.where(api_keys.c.team == team)
        if cursor is not None:
            query = query.where(place < decode_cursor(cursor, tuple[float, str]))
        return fetch_page(
            self._connection, query, limit=limit, make=_key, place=lambda key: (key.created_at, key.id)
        )

    def limit(self, key_id: str, limits: Limits) -> ApiKeyRow:
        self._connection.execute(
            update(api_keys).where(api_keys.c.id == key_id).values(limits=_limits_text(limits))
        )
        return self.get(key_id)

    def revoke(self, key_id: str, *, at: float) -> ApiKeyRow:
        self._connection.execute(
            update(api_keys)
            .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
            .values(revoked_at=at)
        )
        return self.get(key_id)

    def expire(self, key_id: str, *, at: float) -> ApiKeyRow:
        self._connection.execute(
            update(api_keys)
            .where(api_keys.c.id == key_id)
            .where(or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > at))
            .values(expires_at=at)
        )
        return self.get(key_id)


def _key(row: Row[Any]) -> ApiKeyRow:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    values["limits"] = _limits(row.limits)
    if row.endpoints is not None:
        values["endpoints"] = frozenset(msgspec.json.decode(row.endpoints, type=list[str]))
    return ApiKeyRow(**values)


class SqlModels:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(self, model: ModelVersion) -> None:
        there = self._connection.execute(
            select(models.c.digest).where(models.c.name == model.name, models.c.version == model.version)
        ).scalar()
        if there == model.digest:
            return
        if there is not None:
            raise Conflict(
                f"version {model.version} of {model.name!r} is {there} and cannot become {model.digest}; "
                "register it as another version, or remove the old one first"
            )
        self._connection.execute(
            insert(models).values(
                name=model.name,
                version=model.version,
                digest=model.digest,
                created_at=model.created_at,
                document=msgspec.json.encode(model).decode(),
            )
        )

    def annotate(self, name: str, version: str, *, card: str) -> ModelVersion:
        here = (models.c.name == name) & (models.c.version == version)
        found = self._one(select(models.c.document).where(here), _no_version(name, version))
        changed = msgspec.structs.replace(found, card=card)
        document = msgspec.json.encode(changed).decode()
        self._connection.execute(update(models).where(here).values(document=document))
        return changed

    def newest(self, name: str) -> ModelVersion:
        query = (
            select(models.c.document)
            .where(models.c.name == name)
            .order_by(models.c.created_at.desc(), models.c.version.desc())
        )
        return self._one(query, f"no model {name!r}; see: pilothouse model list")

    def by_digest(self, digest: str) -> ModelVersion:
        query = (
            select(models.c.document).where(models.c.digest == digest).order_by(models.c.created_at.desc())
        )
        return self._one(query, f"no model with the digest {digest}; see: pilothouse model list")

    def all(self) -> list[ModelVersion]:
        query = select(models.c.document).order_by(
            models.c.name, models.c.created_at.desc(), models.c.version.desc()
        )
        return [_model(document) for document in self._connection.execute(query).scalars()]

    def remove(self, name: str, version: str) -> None:
        done = self._connection.execute(
            delete(models).where(models.c.name == name, models.c.version == version)
        )
        if not done.rowcount:
            raise NotFound(_no_version(name, version))

    def _one(self, query: Any, missing: str) -> ModelVersion:
        document = self._connection.execute(query.limit(1)).scalar()
        if document is None:
            raise NotFound(missing)
        return _model(document)


def _no_version(name: str, version: str) -> str:
    return f"no version {version} of a model {name!r}; see: pilothouse model list"


def _model(document: str) -> ModelVersion:
    return msgspec.json.decode(document, type=ModelVersion)


class SqlSpecs:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def current(self) -> StoredSpec | None:
        row = self._connection.execute(select(specs).order_by(specs.c.revision.desc()).limit(1)).first()
        return None if row is None else _spec(row)

    def get(self, revision: int) -> StoredSpec:
        row = self._connection.execute(select(specs).where(specs.c.revision == revision)).first()
        if row is None:
            raise NotFound(f"there is no revision {revision} of the spec; see: pilothouse get revisions")
        return _spec(row)

    def put(self, spec: Spec, *, expected_revision: int, author: str, now: float) -> StoredSpec:
        revision = self._connection.execute(select(func.max(specs.c.revision))).scalar() or 0
        if revision != expected_revision:
            raise Conflict(
                f"the spec is at revision {revision} by now, the change was made from {expected_revision}; "
                "read it again and repeat the change"
            )
        stored = StoredSpec(revision=revision + 1, spec=spec, author=author, time=now)
        self._connection.execute(
            insert(specs).values(
                revision=stored.revision, document=msgspec.json.encode(spec).decode(), author=author, time=now
            )
        )
        return stored

    def history(self, *, cursor: str | None = None, limit: int = 20) -> Page[StoredSpec]:
        query = select(specs).order_by(specs.c.revision.desc())
        if cursor is not None:
            query = query.where(specs.c.revision < decode_cursor(cursor, tuple[int])[0])
        return fetch_page(
            self._connection, query, limit=limit, make=_spec, place=lambda stored: (stored.revision,)
        )


def _spec(row: Row[Any]) -> StoredSpec:
    spec = msgspec.json.decode(row.document, type=Spec)
    return StoredSpec(revision=row.revision, spec=spec, author=row.author, time=row.time)
