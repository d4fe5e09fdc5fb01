"""
Keep what happened: a record in a sealed journal frame, written before the last byte goes out.

"Acknowledged" means that the client saw the end, so the end waits for the
append. It is the only disk touch of the request path. Records of requests that
end in the same turn of the loop are appended together (a group commit), and share
a frame: sealing two costs little more than sealing one.
"""

import hmac
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, Literal, Protocol

from pilothouse.domain.answer_id import AnswerIds
from pilothouse.domain.chat import Aside
from pilothouse.domain.entries import ENOUGH_BYTES, pack
from pilothouse.domain.errors import StoreUnavailable
from pilothouse.domain.record import Content, InferenceRecord, JournalEntry
from pilothouse.gateway.call import Call
from pilothouse.gateway.limit import Limiter
from pilothouse.gateway.meter import Meters
from pilothouse.kit.cohort import Cohort, Pause
from pilothouse.wire.openai import answers

ROOM_FOR_ANSWER_BYTES: Final = 256 * 1024
_ROOM_BYTES: Final = ROOM_FOR_ANSWER_BYTES + ENOUGH_BYTES
"""Beside the body: others may share its frame."""

_MOST_SUBJECTS: Final = 10_000
_LONGEST_NAME: Final = 256
"""Hashes of who asked lately are remembered: so many, and of longer names none."""

_Record: Final = InferenceRecord
_NO_ASIDES: Final[list[Aside]] = []
_Content: Final = Content
_Entry: Final = JournalEntry
_perf_counter_ns: Final = time.perf_counter_ns


class Journal(Protocol):
    """The part of `kit.journal.JournalWriter` that is used here."""

    def append(self, *payloads: bytes | bytearray) -> None: ...

    def has_room(self, size: int) -> bool: ...

    async def durable(self) -> None: ...


class Keeper:
    """Writes the record of each call exactly once."""

    def __init__(
        self,
        journal: Journal,
        journal_full: type[Exception],
        meters: Meters,
        *,
        subject_key: bytes,
        when_full: Literal["refuse", "serve"],
        on_dropped: Callable[[], None],
        waits_for_disk: bool,
        cohort: Cohort,
    ) -> None:
        self._journal = journal
        self._journal_full = journal_full
        self._meters = meters
        self._subject_key = subject_key
        self._ids = AnswerIds(subject_key)
        self._subjects: dict[tuple[str, str | bytes], str] = {}
        self._refuses = when_full == "refuse"
        self._on_dropped = on_dropped
        self._waits_for_disk = waits_for_disk
        self._cohort = cohort
        self.limiter: Limiter | None = None
        """Settles each call before its record is made, which carries the cost."""
        self._group: list[JournalEntry] = []
        """Records of this turn of the loop; who waits until they are written, and what is sent then."""
        self._waiting: list[Pause] = []
        self._answers: list[tuple[Call, bytes, bytes]] = []
        self.dropped = 0

    def check_room(self, body_bytes: int) -> None:
        """
        Refuse now what could not be recorded later.

        Raises:
            StoreUnavailable: No room, and the setting says to refuse.
        """
        if self._refuses and not self._journal.has_room(body_bytes + _ROOM_BYTES):
            raise StoreUnavailable(
                "no record of this request could be kept, for the disk is full; free space on the server",
                retry_after_s=5.0,
            )

    def subject_hash(self, team: str, subject: str | bytes) -> str:
        """
        Keyed per team, so that equal people of two teams cannot be matched.

        A header's bytes are taken as UTF-8, which gives the hash of the same name in
        a body: who asks to be erased must be found however he was named.
        """
        found = self._subjects.get((team, subject))
        if found is None:
            name = subject.strip() if isinstance(subject, bytes) else subject.strip().encode()
            found = hmac.digest(self._subject_key, team.encode() + b"\0" + name, "sha256").hex()[:32]
            if len(subject) <= _LONGEST_NAME:
                if len(self._subjects) >= _MOST_SUBJECTS:
                    self._subjects.clear()
                self._subjects[team, subject] = found
        return found

    def name(self, call: Call, team: str) -> None:
        """Now that it is known who asks: whoever rates the answer shows that it was his team's."""
        call.id = self._ids.make(team, call.created_at)

    async def keep(self, call: Call) -> None:
        """
        Have the record written and count it. Later calls for the same request do nothing.

        Raises:
            StoreUnavailable: It could not be kept, and the setting says to refuse.
        """
        if call.is_kept or call.principal is None:
            return
        written = Pause()
        self._waiting.append(written)
        self.keep_soon(call)
        await written
        if self._waits_for_disk:
            try:
                await self._journal.durable()
            except self._journal_full as exc:
                self._drop(1)
                self._refuse(exc)

    def answer(self, call: Call, headers: bytes, body: bytes) -> Coroutine[Any, Any, None] | None:
        """
        Have the record written, then a whole answer sent, with those of the other calls of this turn.

        A record that could not be kept turns the answer into the error, where the
        setting says to refuse.

        Returns:
            What to wait for, where the disk is waited for.
        """
        if self._waits_for_disk or call.is_kept:
            return self._answer_later(call, headers, body)
        call.responder.promise()
        self._answers.append((call, headers, body))
        self.keep_soon(call)
        return None

    async def _answer_later(self, call: Call, headers: bytes, body: bytes) -> None:
        await self.keep(call)
        call.responder.send(200, headers, body)

    def keep_soon(self, call: Call) -> None:
        """As `keep`, for a request whose caller is gone: nobody waits, nobody is told."""
        if call.is_kept or call.principal is None:
            return
        call.is_kept = True
        if self.limiter is not None and self.limiter.is_on:
            self.limiter.settle(call)
        ended_ns, routes = _perf_counter_ns(), call.routes
        name = routes.name if routes is not None else _asked_for(call)
        self._meters.count(call, endpoint=name, team=call.principal.team, ended_ns=ended_ns)
        content = None
        if routes is not None and routes.is_sealed and not call.is_unstored:
            said = call.answers
            texts = ["".join(said[0])] if len(said) == 1 else ["".join(parts) for parts in said]
            content = _Content(
                call.request.body,
                texts,
                call.dialect.protocol,
                list(call.asides) if call.asides else _NO_ASIDES,
            )
        if not self._group:
            self._cohort.at_close(self.flush)
        self._group.append(_Entry(_record(call, name, ended_ns), content, None, call.life))

    def facts(self, call: Call) -> InferenceRecord:
        """Its record as it stands."""
        name = call.routes.name if call.routes is not None else _asked_for(call)
        return _record(call, name, _perf_counter_ns())

    def has_room(self, size: int) -> bool:
        return self._journal.has_room(size)

    def keep_shadow(self, entry: JournalEntry) -> None:
        """Append it by itself: one that finds no room must not take answers along."""
        try:
            self._journal.append(*pack([entry]))
        except self._journal_full:
            self._drop(1)

    def flush(self) -> None:
        """Append what came together, and let those go on who wait for it."""
        group, self._group = self._group, []
        waiting, self._waiting = self._waiting, []
        ready, self._answers = self._answers, []
        failed: Exception | None = None
        if group:
            try:
                self._journal.append(*pack(group))
            except self._journal_full as exc:
                failed = exc
                self._drop(len(group))
        if failed is not None and self._refuses:
            for written in waiting:
                written.end(_not_kept(failed))
            refusal = _not_kept(failed)
            for call, headers, _ in ready:
                lines = headers + answers.error_headers(refusal)
                call.responder.send(refusal.status, lines, call.dialect.error(refusal))
            return
        for written in waiting:
            written.end()
        for call, headers, body in ready:
            call.responder.send(200, headers, body)

    def _drop(self, count: int) -> None:
        self.dropped += count
        self._on_dropped()

    def _refuse(self, cause: Exception) -> None:
        if self._refuses:
            raise _not_kept(cause) from cause


def _not_kept(cause: Exception) -> StoreUnavailable:
    error = StoreUnavailable(
        "the record of this request could not be kept, for the disk is full or failing", retry_after_s=5.0
    )
    error.__cause__ = cause
    return error


def _record(call: Call, endpoint: str, ended_ns: int) -> InferenceRecord:
    """By position, in the order of the fields: half the cost of names, on every request."""
    received_ns, first_token_ns = call.request.received_ns, call.first_token_ns
    principal, usage, text = call.principal, call.usage, call.text
    return _Record(
        call.id,
        call.created_at,
        principal.team if principal is not None else "",
        principal.key_id if principal is not None else "",
        endpoint,
        call.deployment,
        call.replica,
        call.kind,
        call.code,
        call.subject_hash,
        usage.input,
        usage.output,
        usage.cached,
        (first_token_ns - received_ns) / 1e6 if first_token_ns else None,
        (ended_ns - received_ns) / 1e6,
        call.overhead_us,
        call.cost_micro_usd,
        call.cache,
        call.finish_reason,
        text is not None and text.stream,
    )


def _asked_for(call: Call) -> str:
    """The name of an endpoint that was refused: a caller's text, so it is cut."""
    return call.ask.endpoint[:100] if call.ask is not None else ""
