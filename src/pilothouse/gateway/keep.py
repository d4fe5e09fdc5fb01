"""
Keep what happened: one sealed journal frame, written before the last byte goes out.

"Acknowledged" means that the client saw the end, so the end waits for the
append. It is the only disk touch of the request path.
"""

import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Literal, Protocol

import msgspec

from pilothouse.domain.chat import EmbedRequest, GenerateRequest
from pilothouse.domain.errors import StoreUnavailable
from pilothouse.domain.record import Content, InferenceRecord, JournalEntry
from pilothouse.gateway.call import Call
from pilothouse.gateway.meter import Meters

ROOM_FOR_ANSWER_BYTES = 256 * 1024

_encode = msgspec.msgpack.Encoder().encode


class Journal(Protocol):
    """The part of `kit.journal.JournalWriter` that is used here."""

    def append(self, payload: bytes) -> None: ...

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
    ) -> None:
        self._journal = journal
        self._journal_full = journal_full
        self._meters = meters
        self._subject_key = subject_key
        self._refuses = when_full == "refuse"
        self._on_dropped = on_dropped
        self.waits_for_disk = waits_for_disk
        self.dropped = 0

    def check_room(self, body_bytes: int) -> None:
        """
        Refuse now what could not be recorded later.

        Raises:
            StoreUnavailable: No room, and the setting says to refuse.
        """
        if self._refuses and not self._journal.has_room(body_bytes + ROOM_FOR_ANSWER_BYTES):
            raise StoreUnavailable(
                "no record of this request could be kept, for the disk is full; free space on the server",
                retry_after_s=5.0,
            )

    def hash_subject(self, call: Call, subject: str | bytes) -> None:
        """
        Keyed per team, so that equal people of two teams cannot be matched.

        A header's bytes are taken as UTF-8, which gives the hash of the same name in
        a body: who asks to be erased must be found however he was named.
        """
        team = call.principal.team if call.principal else ""
        name = subject.strip() if isinstance(subject, bytes) else subject.strip().encode()
        message = team.encode() + b"\0" + name
        call.subject_hash = hmac.new(self._subject_key, message, hashlib.sha256).hexdigest()[:32]

    def keep(self, call: Call) -> None:
        """
        Append the record and count it. Later calls for the same request do nothing.

        Raises:
            StoreUnavailable: It could not be kept, and the setting says to refuse.
        """
        if call.is_kept or call.principal is None:
            return
        call.is_kept = True
        record = _record(call)
        self._meters.count(record)
        content = None
        if call.endpoint is not None and call.endpoint.records == "sealed":
            content = Content(call.request.body, ["".join(parts) for parts in call.answers])
        try:
            self._journal.append(_encode(JournalEntry(record, content)))
        except self._journal_full as exc:
            self._drop(exc)

    async def durable(self) -> None:
        """
        Wait until the disk has every record so far: where `waits_for_disk`, before the last byte.

        Raises:
            StoreUnavailable: It may not have them, and the setting says to refuse.
        """
        try:
            await self._journal.durable()
        except self._journal_full as exc:
            self._drop(exc)

    def _drop(self, cause: Exception) -> None:
        self.dropped += 1
        self._on_dropped()
        if self._refuses:
            raise StoreUnavailable(
                "the record of this request could not be kept, for the disk is full or failing",
                retry_after_s=5.0,
            ) from cause


def _record(call: Call) -> InferenceRecord:
    """By position, in the order of the fields: half the cost of names, on every request."""
    now_ns = time.perf_counter_ns()
    received_ns = call.request.received_ns
    principal, usage, ask = call.principal, call.usage, call.ask
    return InferenceRecord(
        call.id,
        call.created_at,
        principal.team if principal else "",
        principal.key_id if principal else "",
        call.endpoint.name if call.endpoint else _asked_for(call),
        call.deployment,
        call.replica,
        call.kind,
        call.code,
        call.subject_hash,
        usage.input,
        usage.output,
        usage.cached,
        (call.first_token_ns - received_ns) / 1e6 if call.first_token_ns else None,
        (now_ns - received_ns) / 1e6,
        call.overhead_us,
        0,
        "bypass",
        call.finish_reason,
        isinstance(ask, GenerateRequest) and ask.stream,
    )


def _asked_for(call: Call) -> str:
    """The name of an endpoint that was refused: a caller's text, so it is cut."""
    if isinstance(call.ask, GenerateRequest | EmbedRequest):
        return call.ask.endpoint[:100]
    return ""
