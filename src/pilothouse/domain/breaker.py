"""
When a replica is left alone, and when a request may be tried again.

A replica that fails too often is ejected for a while; then one request tries
it, and its outcome decides. As long as only one team's requests fail, only that
team is kept away: a request that breaks an engine is no reason to take the
engine from everybody else. Retries are paid from a budget that requests fill,
so that a failing system is not asked twice as much as a healthy one.

Source: Nygard, "Release It!" (2007), for the breaker; the retry budget is that of
Finagle (twitter.github.io/finagle).
"""

from typing import Final

from msgspec import Struct

from pilothouse.domain.errors import (
    AnswerUnfit,
    DeadlineExceeded,
    EngineUnavailable,
    InvalidRequest,
    NotSupported,
    Overloaded,
    PilothouseError,
    UpstreamError,
)

FAILURES = 5.0
"""Failures in a row that eject. Among successes it takes more, and below a half of all it never happens."""
FORGIVEN = 0.8
"""What a success leaves of earlier failures: a replica that fails every second time is just ejected."""
EJECTED_S = 5.0
"""The first time; each further one doubles it."""
EJECTED_MOST_S = 60.0
PROBE_S = 30.0
"""How long a probe is waited for, before another is sent."""

RETRY_SHARE = 0.2
"""Retries that each request pays for."""
RETRIES_SAVED = 10.0
"""Retries that may be saved up; as many are there at the start."""


class Health(Struct, frozen=True):
    """What is remembered of a replica. Times are of a monotonic clock, in seconds."""

    failures: float = 0.0
    """The last ones; successes since then made it less."""
    team: str = ""
    """The only team whose requests failed; empty when there were several, or none."""
    ejections: int = 0
    """In a row, without a success between."""
    until: float = 0.0
    """Nothing is sent before; then one probe."""

    @property
    def is_ejected(self) -> bool:
        """For one team at least."""
        return self.ejections > 0

    def keeps_out(self, team: str) -> bool:
        """Whether it is ejected for that team: it may only probe."""
        return self.ejections > 0 and (not self.team or self.team == team)

    def admits(self, team: str, now: float) -> bool:
        """Whether a request may be sent: always where nothing is wrong, now and then as a probe."""
        return not self.keeps_out(team) or now >= self.until


HEALTHY: Final = Health()
"""Compare with `is`: nothing needs to be done for a success while a replica has this."""


def after_failure(health: Health, team: str, now: float) -> Health:
    """A request of that team failed by no fault of its caller that could be seen."""
    failures = health.failures + 1
    is_first = health is HEALTHY or not health.failures
    blamed = team if is_first or health.team == team else ""
    if not health.ejections and failures < FAILURES:
        return Health(failures, blamed)
    ejections = health.ejections + 1
    pause_s: float = min(EJECTED_S * 2.0 ** min(ejections - 1, 16), EJECTED_MOST_S)
    return Health(failures, blamed, ejections, now + pause_s)


def after_success(health: Health, team: str) -> Health:
    """A request of that team was answered. Another team's trouble is not ended by that."""
    if health is HEALTHY or (health.team and health.team != team):
        return health
    left = health.failures * FORGIVEN
    return HEALTHY if health.ejections or left < 0.5 else Health(left, health.team)


def probed(health: Health, now: float) -> Health:
    """A probe is under way: nobody else is sent meanwhile."""
    if not health.ejections:
        return health
    return Health(health.failures, health.team, health.ejections, now + PROBE_S)


def is_fault(error: PilothouseError, *, left_s: float) -> bool:
    """
    Whether an error speaks against the replica.

    Args:
        left_s: Of the request's whole time. A wait that ended earlier was for a
            sign of life; one that took all may be a long answer, its caller's wish.
    """
    if isinstance(error, DeadlineExceeded):
        return left_s > 0
    return isinstance(error, EngineUnavailable | UpstreamError) and not isinstance(error, AnswerUnfit)


def is_answer(error: PilothouseError) -> bool:
    """Whether it is the engine's word on the request itself: it is well, and another says the same."""
    return isinstance(error, InvalidRequest | NotSupported | AnswerUnfit)


def may_retry(error: PilothouseError, *, left_s: float) -> bool:
    """Whether the request may be sent elsewhere: nothing of an answer came, and there is time."""
    return (
        not error.has_begun
        and left_s > 0
        and (is_fault(error, left_s=left_s) or isinstance(error, Overloaded))
    )


class RetryBudget:
    """
    Counts retries in advance. One for each team at an endpoint, in each worker.

    Args:
        share: Retries that each request pays for.
    """

    __slots__ = ("_share", "saved")

    def __init__(self, share: float = RETRY_SHARE) -> None:
        self._share = share
        self.saved = RETRIES_SAVED

    @property
    def is_full(self) -> bool:
        return self.saved >= RETRIES_SAVED

    def request(self) -> None:
        """A request came, and pays its share."""
        if self.saved < RETRIES_SAVED:
            self.saved = min(RETRIES_SAVED, self.saved + self._share)

    def take(self) -> bool:
        """Spend a retry; False when there is none."""
        if self.saved < 1:
            return False
        self.saved -= 1
        return True
