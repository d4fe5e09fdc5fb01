"""Rollouts and feedback in memory: part of the fake of `ports.store`."""

from collections.abc import Iterable

from msgspec.structs import replace

from pilothouse.domain.feedback import Feedback, FeedbackState
from pilothouse.domain.rollout import Rollout


class MemoryRollouts:
    def __init__(self, rows: dict[str, Rollout]) -> None:
        self._rows = rows

    def put(self, rollout: Rollout) -> None:
        self._rows[rollout.id] = rollout

    def active(self) -> list[Rollout]:
        return sorted((one for one in self._rows.values() if one.is_active), key=lambda one: one.endpoint)

    def newest(self, endpoint: str) -> Rollout | None:
        return next((one for one in self.all() if one.endpoint == endpoint), None)

    def all(self, *, limit: int = 100) -> list[Rollout]:
        return sorted(self._rows.values(), key=lambda one: (one.started_at, one.id), reverse=True)[:limit]


class MemoryFeedbacks:
    def __init__(self, rows: dict[str, Feedback]) -> None:
        self._rows = rows

    def add(self, feedback: Feedback) -> Feedback:
        for one in self._rows.values() if feedback.idempotency_key is not None else ():
            if (one.team, one.idempotency_key) == (feedback.team, feedback.idempotency_key):
                return one
        self._rows[feedback.id] = feedback
        return feedback

    def new(self, *, limit: int) -> list[Feedback]:
        return [one for one in reversed(self._sorted()) if one.state == "new"][:limit]

    def settle(self, ids: Iterable[str], state: FeedbackState) -> None:
        for one in ids:
            self._rows[one] = replace(self._rows[one], state=state)

    def page(self, *, team: str | None = None, record_id: str | None = None, limit: int) -> list[Feedback]:
        return [
            one for one in self._sorted() if team in (None, one.team) and record_id in (None, one.record_id)
        ][:limit]

    def forget(self, before: float, *, limit: int) -> int:
        old = [one.id for one in self._sorted() if one.time < before][:limit]
        for one in old:
            del self._rows[one]
        return len(old)

    def _sorted(self) -> list[Feedback]:
        """Newest first."""
        return sorted(self._rows.values(), key=lambda one: (one.time, one.id), reverse=True)
