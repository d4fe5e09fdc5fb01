"""
The keys under which contents rest, and sealing and opening with them.

    wrapping key (`ports.keys`) -> team's key -> person's key -> content

A team's and a person's key are made when they are first needed and live wrapped
in the store. Destroying a person's row erases all that was sealed under it, and
rotating the wrapping key touches one small row a team, never the data. Keys are
looked up by row each time, so that a destroyed one is not used from memory.
"""

from collections import OrderedDict
from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from pilothouse.domain.errors import NotFound, OperationFailed
from pilothouse.domain.feedback import Feedback
from pilothouse.domain.record import Content, InferenceRecord, JournalEntry
from pilothouse.kit.ids import new_id
from pilothouse.kit.seal import SealBroken, Sealer, bind, new_key
from pilothouse.ports.keys import Keys
from pilothouse.ports.store import SealedRecord, SealingKey, UnitOfWork

_OPEN_KEYS = 4096
"""Unwrapped keys kept in memory: unwrapping costs 3 us, and a KMS far more."""
_CONTENT_VERSION = 1
_VERSION = bind(_CONTENT_VERSION)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Content).decode


class Seals:
    """Used on the store's thread, within its units."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._open: OrderedDict[str, Sealer] = OrderedDict()

    def seal_all(self, unit: UnitOfWork, entries: Iterable[JournalEntry]) -> list[SealedRecord]:
        """Seal each content for its person, or for its team where no person is named."""
        # Looked up once in this transaction, within which nobody else can destroy a key.
        sealers: dict[tuple[str, str], tuple[Sealer, bytes]] = {}
        rows = []
        for entry in entries:
            record, content = entry.record, entry.content
            if content is None:
                rows.append(SealedRecord(record=record))
                continue
            whose = (record.team, record.subject_hash)
            found = sealers.get(whose)
            if found is None:
                found = sealers[whose] = self._sealer(unit, *whose, now=record.time), _shelf(record)
            sealer, shelf = found
            sealed = sealer.seal(_encode(content), shelf + _spot(record))
            rows.append(SealedRecord(record=record, content=sealed, sealing_key=sealer.key_id))
        return rows

    def open(self, unit: UnitOfWork, sealed: SealedRecord) -> Content:
        """
        Raises:
            NotFound: No content is kept of it (any more), or its key was destroyed.
            OperationFailed: It does not open: altered, or another record's.
        """
        if sealed.content is None:
            raise NotFound(
                f"no content is kept of {sealed.record.id}: by its endpoint's setting, or no longer"
            )
        row = unit.seals.get(sealed.sealing_key)
        try:
            return _decode(self._unwrapped(unit, row).open(sealed.content, _place(sealed.record)))
        except (SealBroken, msgspec.DecodeError) as exc:
            raise OperationFailed(
                f"the content of {sealed.record.id} does not open: {exc}. "
                "fix: the database was altered; restore it from a backup"
            ) from exc

    def seal_feedback(self, unit: UnitOfWork, feedback: Feedback, text: str) -> Feedback:
        """The feedback with its text, sealed for who gave it, or for the team where nobody is named."""
        sealer = self._sealer(unit, feedback.team, feedback.subject_hash, now=feedback.time)
        sealed = sealer.seal(text.encode(errors="replace"), _feedback_place(feedback))
        return replace(feedback, sealing_key=sealer.key_id, sealed=sealed)

    def open_feedback(self, unit: UnitOfWork, feedback: Feedback) -> str:
        """
        Raises:
            NotFound: It has no text, or its key was destroyed.
            OperationFailed: It does not open.
        """
        if feedback.sealed is None:
            raise NotFound(f"the feedback {feedback.id} has no text")
        row = unit.seals.get(feedback.sealing_key)
        try:
            return self._unwrapped(unit, row).open(feedback.sealed, _feedback_place(feedback)).decode()
        except SealBroken as exc:
            raise OperationFailed(
                f"the text of {feedback.id} does not open: {exc}. fix: restore the database from a backup"
            ) from exc

    def seal_file_key(self, unit: UnitOfWork, team: str, key: bytes, *, now: float) -> tuple[str, bytes]:
        """A file's own key under its team's: the id of that, and the sealed key."""
        sealer = self._sealer(unit, team, "", now=now)
        return sealer.key_id, sealer.seal(key, bind(team, "file-key"))

    def open_file_key(self, unit: UnitOfWork, team: str, sealing_key: str, sealed: bytes) -> bytes:
        """
        Raises:
            NotFound: The team's key was destroyed.
            OperationFailed: It does not open.
        """
        row = unit.seals.get(sealing_key)
        try:
            return self._unwrapped(unit, row).open(sealed, bind(team, "file-key"))
        except SealBroken as exc:
            raise OperationFailed(
                f"a file's key does not open: {exc}. fix: restore the database from a backup"
            ) from exc

    def rewrap(self, unit: UnitOfWork) -> int:
        """Wrap all teams' keys anew, after a new wrapping key was made; return how many."""
        rows = unit.seals.of_teams()
        for row in rows:
            context = bind("team-key", row.team, row.id)
            unit.seals.rewrap(
                row.id, self._keys.wrap(self._keys.unwrap(row.wrapped, context=context), context=context)
            )
        return len(rows)

    def _sealer(self, unit: UnitOfWork, team: str, subject_hash: str, *, now: float) -> Sealer:
        row = unit.seals.find(team, subject_hash)
        if row is not None:
            return self._unwrapped(unit, row)
        key, key_id = new_key(), new_id("seal_")
        if subject_hash:
            above = self._sealer(unit, team, "", now=now)
            wrapped = above.seal(key, bind("subject-key", team, subject_hash, key_id))
        else:
            wrapped = self._keys.wrap(key, context=bind("team-key", team, key_id))
        unit.seals.add(
            SealingKey(id=key_id, team=team, subject_hash=subject_hash, wrapped=wrapped, created_at=now)
        )
        return self._remember(Sealer(key_id, key))

    def _unwrapped(self, unit: UnitOfWork, row: SealingKey) -> Sealer:
        if (sealer := self._open.get(row.id)) is not None:
            self._open.move_to_end(row.id)
            return sealer
        if not row.subject_hash:
            key = self._keys.unwrap(row.wrapped, context=bind("team-key", row.team, row.id))
            return self._remember(Sealer(row.id, key))
        above = unit.seals.find(row.team, "")
        if above is None:
            raise NotFound(f"the key of team {row.team!r} was destroyed: what it sealed cannot be read again")
        try:
            key = self._unwrapped(unit, above).open(
                row.wrapped, bind("subject-key", row.team, row.subject_hash, row.id)
            )
        except SealBroken as exc:
            raise OperationFailed(
                f"the sealing key {row.id} does not open: {exc}. fix: restore the database from a backup"
            ) from exc
        return self._remember(Sealer(row.id, key))

    def _remember(self, sealer: Sealer) -> Sealer:
        self._open[sealer.key_id] = sealer
        if len(self._open) > _OPEN_KEYS:
            self._open.popitem(last=False)
        return sealer


def _feedback_place(feedback: Feedback) -> bytes:
    return bind(feedback.team, feedback.subject_hash, "feedback", feedback.id, _CONTENT_VERSION)


def _place(record: InferenceRecord) -> bytes:
    """What a content is bound to: it opens in this row, of this team and person, and nowhere else."""
    return _shelf(record) + _spot(record)


def _shelf(record: InferenceRecord) -> bytes:
    """The part of its place that all contents of a person share."""
    return bind(record.team, record.subject_hash, "contents")


def _spot(record: InferenceRecord) -> bytes:
    return bind(record.id) + _VERSION
