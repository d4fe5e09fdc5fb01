"""
Sortable ids: 48 bits of milliseconds, then 80 random bits, as 32 hex digits.

The layout is the ULID specification's; hex, because making one costs little and
every request needs one. Unique, not secret: a key or a token is never made here.
"""

import os
import time
from typing import Final

_TIME_BYTES: Final = 6
_DIGITS: Final = 20
_AT_ONCE: Final = 256
_time_ns: Final = time.time_ns


class _Maker:
    """Remembers the digits of this millisecond, and some that were drawn. Of any threads of one process."""

    __slots__ = ("_drawn", "_millisecond", "_time")

    def __init__(self) -> None:
        self._drawn: list[str] = []
        self._millisecond = -1
        self._time = ""

    def make(self, prefix: str) -> str:
        now = _time_ns() // 1_000_000
        if now != self._millisecond:
            self._time = now.to_bytes(_TIME_BYTES, "big").hex()
            self._millisecond = now
        try:
            return f"{prefix}{self._time}{self._drawn.pop()}"
        except IndexError:
            return f"{prefix}{self._time}{self._draw().pop()}"

    def _draw(self) -> list[str]:
        """Some at once: a system call for each would be its greatest part."""
        digits = os.urandom(_DIGITS // 2 * _AT_ONCE).hex()
        drawn = [digits[at : at + _DIGITS] for at in range(0, len(digits), _DIGITS)]
        self._drawn = drawn[1:]
        return drawn[:1]

    def forget(self) -> None:
        """Draw anew, so that no other process makes the same."""
        self._drawn = []


_MAKER: Final = _Maker()
os.register_at_fork(after_in_child=_MAKER.forget)


def new_id(prefix: str = "") -> str:
    """Return `prefix` and 32 characters that sort by the time of their making."""
    return _MAKER.make(prefix)
