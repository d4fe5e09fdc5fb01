"""
What the store keeps of rollouts and feedback: two more small repositories of its units.
"""

from collections.abc import Iterable
from typing import Protocol

from pilothouse.domain.feedback import Feedback, FeedbackState
from pilothouse.domain.rollout import Rollout


class Rollouts(Protocol):
    def put(self, rollout: Rollout) -> None:
        """Add it, or replace its earlier state."""
        ...

    def active(self) -> list[Rollout]:
        """Those that have not ended, by endpoint."""
        ...

    def newest(self, endpoint: str) -> Rollout | None: ...

    def all(self, *, limit: int = 100) -> list[Rollout]:
        """Newest first."""
        ...


class Feedbacks(Protocol):
    def add(self, feedback: Feedback) -> Feedback:
        """
        Keep it. With an idempotency key that its team used before, nothing is added.

        Returns:
            What is kept: the earlier one then, whatever this one says.
        """
        ...

    def new(self, *, limit: int) -> list[Feedback]:
        """Those that nobody took into account yet, oldest first."""
        ...

    def settle(self, ids: Iterable[str], state: FeedbackState) -> None: ...

    def page(self, *, team: str | None = None, record_id: str | None = None, limit: int) -> list[Feedback]:
        """Newest first."""
        ...

    def forget(self, before: float, *, limit: int) -> int:
        """Delete at most `limit` older ones; return how many."""
        ...
