"""
The drain: journal frames become rows, in batches, and finished segments are deleted.

Rows and the place in the journal are one transaction, and rows count by their
id, so that it may be stopped anywhere and started again: nothing is lost, and
nothing is there twice. A segment is deleted only after the commit that ended it.
Synchronous, on the store's thread; a store that fails leaves the journal as it
was, and the next call tries again.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import DecodeError, Struct

from pilothouse.control.seals import Seals
from pilothouse.domain.entries import unpack
from pilothouse.domain.errors import OperationFailed, PilothouseError, StoreUnavailable
from pilothouse.domain.record import InferenceRecord, JournalEntry
from pilothouse.kit.journal.reader import Batch, JournalReader
from pilothouse.ports.store import JournalPosition, Store, UnitOfWork

BATCH_RECORDS = 500
BATCHES = 4
"""Transactions of one pass, after which others get their turn on the store's thread."""


class DrainResult(Struct, frozen=True, kw_only=True):
    """One pass. The three lists hold a segment and a reason each, for the log and for people."""

    records: int = 0
    """New in the store."""
    lag_records: int = 0
    """Left in the journal: frames are counted, and taken to hold as many as those before them did."""
    lag_bytes: int = 0
    torn: tuple[str, ...] = ()
    """The unfinished end of a segment was dropped: nobody was told that it was kept."""
    corrupt: tuple[str, ...] = ()
    """A segment was put aside as damaged; what is whole in it is drained all the same."""
    writers: tuple[str, ...] = ()
    """Who still has segments after this pass: workers that live, or that left something undrained."""
    is_whole: bool = False
    """Every segment was read to its end, but for blocked ones."""
    blocked: tuple[str, ...] = ()
    """A segment cannot be opened, for its key is not here. The others go on."""


class Settled(Struct, frozen=True):
    """A record with a cost that is in the store now, and whose lease pays for it."""

    writer: str
    life: int
    record: InferenceRecord


class _Pass(Struct):
    """What one pass knows so far."""

    positions: dict[str, int]
    has_written: bool = False
    records: int = 0
    gone: list[str] = []
    torn: list[str] = []
    corrupt: list[str] = []
    blocked: dict[str, str] = {}


class Drain:
    """
    Args:
        batch_records: Records in one transaction, about: it ends with a frame.
        batches: Transactions in one pass.
        watch: Told of new records, within the transaction that brings them.
    """

    def __init__(
        self,
        reader: JournalReader,
        seals: Seals,
        *,
        batch_records: int = BATCH_RECORDS,
        batches: int = BATCHES,
        watch: Callable[[UnitOfWork, list[JournalEntry]], None] | None = None,
    ) -> None:
        self._reader = reader
        self._seals = seals
        self._batch_records = batch_records
        self._records_a_frame = 1.0
        """In the frames of late."""
        self._batches = batches
        self._watch = watch
        self._settled: deque[Settled] = deque()
        self._counted: dict[str, tuple[int, int]] = {}
        """By segment: frames counted ahead of the drain, and the offset where the count ended."""
        self._positions: dict[str, int] | None = None
        """As they are in the store, which nobody else writes; None where a pass did not come to its end."""

    def take_settled(self) -> list[Settled]:
        """Records with a cost that were stored since the last call, by passes that failed later too."""
        return [self._settled.popleft() for _ in range(len(self._settled))]

    def drain_once(self, store: Store) -> DrainResult:
        """
        Drain some batches, of all segments in turn.

        Raises:
            StoreUnavailable: The last batch was not written and is still in the journal.
        """
        with _translating():
            segments = self._reader.segments()
            known, self._positions = self._positions, None
            found = _Pass(_positions(store) if known is None else known)
            found.gone = [name for name in found.positions if name not in segments]
            waiting = deque(segments)
            for _ in range(self._batches + len(segments)):
                if not waiting:
                    break
                segment = waiting.popleft()
                if self._drain_batch(store, segment, found):
                    waiting.append(segment)
            if found.gone:
                with store.unit() as unit:
                    unit.journals.forget(found.gone)
                for segment in found.gone:
                    found.positions.pop(segment, None)
            # A store that fails is noticed also while there is nothing to write.
            wrote = found.has_written or found.gone
            self._positions = found.positions if wrote else _positions(store)
            return self._result(found, behind={*waiting, *found.blocked}, is_whole=not waiting)

    def _drain_batch(self, store: Store, segment: str, found: _Pass) -> bool:
        """Whether there may be more of this segment at once."""
        position = found.positions.get(segment, 0)
        frames = max(1, round(self._batch_records / self._records_a_frame))
        try:
            batch = self._reader.read(segment, position, max_frames=frames)
        except FileNotFoundError:  # empty, and cleared away by its writer's next life
            return False
        except OperationFailed as exc:
            found.blocked[segment] = str(exc)
            return False
        entries = self._decoded(segment, batch, found)
        if batch.state == "damaged":
            # Aside first: were it done after the commit, a crash in between would hide the damage.
            self._reader.quarantine(segment)
            found.corrupt.append(f"{segment}: at {batch.offset}: {batch.reason}")
        offset = batch.resume if batch.state == "damaged" else batch.offset
        if entries or offset != position:
            self._store(store, entries, JournalPosition(segment, offset), found)
            found.has_written = True
            writer = segment.rpartition("-")[0]
            self._settled += [
                Settled(writer, one.life, one.record) for one in entries if one.record.cost_micro_usd
            ]
            found.positions[segment] = offset
            self._count_drained(segment, len(batch.frames))
        if batch.state == "done":
            self._finish(segment, batch, found)
        return batch.state in ("more", "damaged")

    def _decoded(self, segment: str, batch: Batch, found: _Pass) -> list[JournalEntry]:
        entries: list[JournalEntry] = []
        for frame in batch.frames:
            try:
                entries += unpack(frame)
            except DecodeError as exc:
                self._reader.quarantine(segment)
                found.corrupt.append(
                    f"{segment}: before {batch.offset}: a frame holds no journal entries: {exc}"
                )
        if entries:
            self._records_a_frame = max(1.0, len(entries) / len(batch.frames))
        return entries

    def _store(
        self, store: Store, entries: list[JournalEntry], position: JournalPosition, found: _Pass
    ) -> None:
        try:
            found.records += self._write(store, entries, [position])
        except PilothouseError:
            raise
        # One record that no store can take (a number of 30 digits, from a hostile engine) would
        # otherwise stop all others for good. Written one by one, it alone is put aside.
        except Exception:  # noqa: BLE001
            for entry in entries:
                try:
                    found.records += self._write(store, [entry], [])
                except PilothouseError:
                    raise
                except Exception as exc:  # noqa: BLE001
                    self._reader.quarantine(position.segment)
                    reason = f"{entry.record.id} cannot be stored: {type(exc).__name__}: {exc}"
                    found.corrupt.append(f"{position.segment}: before {position.offset}: {reason}")
            self._write(store, [], [position])

    def _write(self, store: Store, entries: list[JournalEntry], positions: list[JournalPosition]) -> int:
        with store.unit() as unit:
            new = unit.records.insert_many(self._seals.seal_all(unit, entries))
            unit.journals.advance(positions)
            if self._watch is not None and new == len(entries) > 0:  # else some were there before
                self._watch(unit, entries)
        return new

    def _finish(self, segment: str, batch: Batch, found: _Pass) -> None:
        if batch.reason:
            found.torn.append(f"{segment}: {batch.reason}")
        if segment not in self._reader.damaged():
            self._reader.delete(segment)
            found.gone.append(segment)
        self._counted.pop(segment, None)

    def _count_drained(self, segment: str, frames: int) -> None:
        counted, end = self._counted.get(segment, (0, 0))
        self._counted[segment] = (max(0, counted - frames), end)

    def _result(self, found: _Pass, *, behind: set[str], is_whole: bool) -> DrainResult:
        left = {*self._reader.segments()} - {*self._reader.damaged(), *found.blocked}
        lag_records = lag_bytes = 0
        for segment in behind:
            position = found.positions.get(segment, 0)
            counted, end = self._counted.get(segment, (0, 0))
            # Counted on from where the last count ended: a long backlog is not walked at every pass.
            start = max(position, end)
            more_records, more_bytes = self._reader.pending(segment, start)
            end = start + more_bytes
            self._counted[segment] = (counted + more_records, end)
            lag_records += round((counted + more_records) * self._records_a_frame)
            lag_bytes += end - position
        return DrainResult(
            records=found.records,
            lag_records=lag_records,
            lag_bytes=lag_bytes,
            torn=tuple(found.torn),
            corrupt=tuple(found.corrupt),
            writers=tuple(sorted({name.rpartition("-")[0] for name in left})),
            is_whole=is_whole,
            blocked=tuple(f"{segment}: {reason}" for segment, reason in found.blocked.items()),
        )


def _positions(store: Store) -> dict[str, int]:
    with store.unit() as unit:
        return unit.journals.positions()


@contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StoreUnavailable(
            f"the journal cannot be read: {exc.strerror or exc}. fix: see that its disk works",
            retry_after_s=5.0,
        ) from exc
