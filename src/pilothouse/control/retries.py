"""Failures in a row, and when the next attempt is due: so that what is broken is not tried all the time."""

from random import Random

from pilothouse.domain.plan import Retry
from pilothouse.kit.retry import Backoff

FORGET_AFTER_S = 600.0
"""An entry that long overdue belongs to something nobody wants any more."""


class Retries:
    def __init__(self, random: Random, *, backoff: Backoff | None = None) -> None:
        self._random = random
        self._backoff = backoff or Backoff()
        self._entries: dict[str, Retry] = {}

    def all(self) -> dict[str, Retry]:
        return dict(self._entries)

    def failed(self, subject: str, now: float, reason: str, *, at_least_s: float = 0.0) -> Retry:
        """Note one more failure."""
        known = self._entries.get(subject)
        failures = known.failures + 1 if known else 1
        delay_s = max(at_least_s, self._backoff.delay_s(failures, self._random))
        self._entries[subject] = entry = Retry(failures, now + delay_s, reason)
        return entry

    def succeeded(self, subject: str) -> None:
        self._entries.pop(subject, None)

    def forget_old(self, now: float) -> None:
        self._entries = {
            name: entry for name, entry in self._entries.items() if now - entry.next_at < FORGET_AFTER_S
        }
