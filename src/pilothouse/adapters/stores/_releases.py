"""Repositories of rollouts and feedback."""

from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, insert, select, update

from pilothouse.adapters.stores._dialect import insert_new, upsert
from pilothouse.adapters.stores._tables import feedback as table
from pilothouse.adapters.stores._tables import rollouts
from pilothouse.domain.feedback import Feedback, FeedbackState
from pilothouse.domain.rollout import ACTIVE, Rollout


class SqlRollouts:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(self, rollout: Rollout) -> None:
        statement = upsert(self._connection, rollouts).values(
            id=rollout.id,
            endpoint=rollout.endpoint,
            phase=rollout.phase,
            started_at=rollout.started_at,
            document=msgspec.json.encode(rollout).decode(),
        )
        changed = {name: statement.excluded[name] for name in ("phase", "document")}
        self._connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changed))

    def active(self) -> list[Rollout]:
        query = select(rollouts.c.document).where(rollouts.c.phase.in_(ACTIVE)).order_by(rollouts.c.endpoint)
        return [_rollout(document) for document in self._connection.execute(query).scalars()]

    def newest(self, endpoint: str) -> Rollout | None:
        query = (
            select(rollouts.c.document)
            .where(rollouts.c.endpoint == endpoint)
            .order_by(rollouts.c.started_at.desc(), rollouts.c.id.desc())
            .limit(1)
        )
        document = self._connection.execute(query).scalar()
        return None if document is None else _rollout(document)

    def all(self, *, limit: int = 100) -> list[Rollout]:
        query = select(rollouts.c.document).order_by(rollouts.c.started_at.desc(), rollouts.c.id.desc())
        return [_rollout(document) for document in self._connection.execute(query.limit(limit)).scalars()]


def _rollout(document: str) -> Rollout:
    return msgspec.json.decode(document, type=Rollout)


class SqlFeedbacks:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, feedback: Feedback) -> Feedback:
        values = msgspec.structs.asdict(feedback)
        if feedback.idempotency_key is None:
            self._connection.execute(insert(table).values(**values))
            return feedback
        if insert_new(self._connection, table, values):
            return feedback
        query = select(table).where(
            table.c.team == feedback.team, table.c.idempotency_key == feedback.idempotency_key
        )
        return _feedback(self._connection.execute(query).one())

    def new(self, *, limit: int) -> list[Feedback]:
        query = select(table).where(table.c.state == "new").order_by(table.c.time, table.c.id).limit(limit)
        return [_feedback(row) for row in self._connection.execute(query)]

    def settle(self, ids: Iterable[str], state: FeedbackState) -> None:
        self._connection.execute(update(table).where(table.c.id.in_(list(ids))).values(state=state))

    def page(self, *, team: str | None = None, record_id: str | None = None, limit: int) -> list[Feedback]:
        query = select(table).order_by(table.c.time.desc(), table.c.id.desc()).limit(limit)
        if team is not None:
            query = query.where(table.c.team == team)
        if record_id is not None:
            query = query.where(table.c.record_id == record_id)
        return [_feedback(row) for row in self._connection.execute(query)]

    def forget(self, before: float, *, limit: int) -> int:
        chosen = select(table.c.id).where(table.c.time < before).limit(limit)
        return self._connection.execute(delete(table).where(table.c.id.in_(chosen))).rowcount


def _feedback(row: Row[Any]) -> Feedback:
    return Feedback(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
