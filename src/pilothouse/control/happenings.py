"""
Events on their way into the store: noted by the loop, written in batches beside it.

The loop never waits for a disk, so a note is a line in a bounded list. What
happens again within ten minutes counts up, for a replica that fails each minute
must not push everything else out.
"""

from collections import OrderedDict
from collections.abc import Callable

from msgspec.structs import replace

from pilothouse.control.transact import Transact
from pilothouse.domain.events import MAX_MESSAGE_CHARS, Event, Occurrence
from pilothouse.kit.clock import Clock
from pilothouse.kit.ids import new_id
from pilothouse.ports.store import UnitOfWork

KEPT = 10_000
"""Events in the store; the oldest go first. A few megabytes."""
REMEMBERED = 500
"""Events that the same one is counted into."""
AGAIN_S = 600.0
UNWRITTEN = 2000
"""While the store is away; older ones are dropped then."""


class Happenings:
    """
    Args:
        revision: Of the spec that runs now.
    """

    def __init__(self, clock: Clock, *, revision: Callable[[], int]) -> None:
        self._clock = clock
        self._revision = revision
        self._recent: OrderedDict[tuple[str, str, str, str], Event] = OrderedDict()
        self._unwritten: OrderedDict[str, Event] = OrderedDict()
        self._since_trim = KEPT  # the first batch looks what an earlier life left

    def note(self, occurrence: Occurrence) -> None:
        now, message = self._clock.now(), occurrence.message[:MAX_MESSAGE_CHARS]
        key = (occurrence.kind, occurrence.name, occurrence.reason, message)
        known = self._recent.pop(key, None)
        if known is not None and now - known.time < AGAIN_S:
            event = replace(known, time=now, count=known.count + 1, revision=self._revision())
        else:
            event = Event(
                id=new_id("ev_"),
                kind=occurrence.kind,
                name=occurrence.name,
                reason=occurrence.reason,
                message=message,
                is_warning=occurrence.is_warning,
                first_time=now,
                time=now,
                revision=self._revision(),
            )
        self._recent[key] = self._unwritten[event.id] = event
        if len(self._recent) > REMEMBERED:
            self._recent.popitem(last=False)
        if len(self._unwritten) > UNWRITTEN:
            self._unwritten.popitem(last=False)

    async def flush(self, transact: Transact) -> None:
        """Write what was noted; what could not be written is tried again at the next time."""
        batch = list(self._unwritten.values())
        if not batch:
            return
        trims = self._since_trim + len(batch) > KEPT // 100

        def write(unit: UnitOfWork) -> None:
            unit.events.put_many(batch)
            if trims:
                unit.events.forget(keep=KEPT)

        await transact(write)
        self._since_trim = 0 if trims else self._since_trim + len(batch)
        for event in batch:
            if self._unwritten.get(event.id) is event:
                del self._unwritten[event.id]
