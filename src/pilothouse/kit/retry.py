"""Backoff: how long to wait before the next attempt, with jitter and a ceiling."""

from random import Random

from msgspec import Struct


class Backoff(Struct, frozen=True):
    """Exponential backoff with full jitter (Brooker, "Exponential Backoff And Jitter", 2015)."""

    first_s: float = 0.5
    factor: float = 2.0
    ceiling_s: float = 60.0

    def delay_s(self, attempt: int, random: Random) -> float:
        """
        Seconds to wait before attempt number `attempt`, counted from 1.

        Between half and all of the exponential step, so that it never is zero.
        """
        step = min(self.ceiling_s, self.first_s * self.factor ** min(attempt - 1, 32))
        return step * (0.5 + random.random() / 2)
