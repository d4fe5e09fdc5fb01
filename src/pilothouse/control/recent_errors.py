"""
The last errors of the control plane, for `status`: a short memory, not a log.

What comes again counts up, so that one start which is refused again and again leaves
room for the others.
"""

from pilothouse.control.status import ErrorSeen
from pilothouse.domain.errors import PilothouseError
from pilothouse.kit.clock import Clock

_LONGEST = 300


class RecentErrors:
    def __init__(self, clock: Clock, *, limit: int = 20) -> None:
        self._clock = clock
        self._limit = limit
        self._seen: dict[tuple[str, str, str], ErrorSeen] = {}
        """By event, code and message; the newest last."""

    def note(self, event: str, error: BaseException) -> None:
        """Remember it. Of an error that is not ours only the class: its text may hold anything."""
        ours = isinstance(error, PilothouseError)
        code = error.code if isinstance(error, PilothouseError) else "internal"
        message = str(error)[:_LONGEST] if ours else type(error).__name__
        known = self._seen.pop(key := (event, code, message), None)
        self._seen[key] = ErrorSeen(
            time=self._clock.now(),
            event=event,
            code=code,
            message=message,
            count=known.count + 1 if known else 1,
        )
        if len(self._seen) > self._limit:
            del self._seen[next(iter(self._seen))]

    def newest_first(self) -> tuple[ErrorSeen, ...]:
        return tuple(reversed(self._seen.values()))
