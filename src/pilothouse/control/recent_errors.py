"""The last errors of the control plane, for `status`: a short memory, not a log."""

from collections import deque

from pilothouse.control.status import ErrorSeen
from pilothouse.domain.errors import PilothouseError
from pilothouse.kit.clock import Clock

_LONGEST = 300


class RecentErrors:
    def __init__(self, clock: Clock, *, limit: int = 20) -> None:
        self._clock = clock
        self._seen: deque[ErrorSeen] = deque(maxlen=limit)

    def note(self, event: str, error: BaseException) -> None:
        """Remember it. Of an error that is not ours only the class: its text may hold anything."""
        ours = isinstance(error, PilothouseError)
        self._seen.append(
            ErrorSeen(
                time=self._clock.now(),
                event=event,
                code=error.code if isinstance(error, PilothouseError) else "internal",
                message=str(error)[:_LONGEST] if ours else type(error).__name__,
            )
        )

    def newest_first(self) -> tuple[ErrorSeen, ...]:
        return tuple(reversed(self._seen))
