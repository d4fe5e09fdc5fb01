"""
Batches and the files they read and write: what they are, and which way a batch may go.

    validating -> in_progress -> finalizing -> completed
        |             |    \\-> expired
        v             v
      failed     cancelling -> cancelled

Whatever has not ended fails when a file of it is lost.
Pure: who runs the requests and keeps the bytes is `control.batches`.
"""

from typing import Literal

from msgspec import Struct, field
from msgspec.structs import replace

from pilothouse.domain.errors import Conflict

BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]
FilePurpose = Literal["batch", "batch_output"]

NEXT: dict[BatchStatus, frozenset[BatchStatus]] = {
    "validating": frozenset({"failed", "in_progress", "cancelling"}),
    "in_progress": frozenset({"finalizing", "expired", "cancelling", "failed"}),
    "finalizing": frozenset({"completed", "failed"}),
    "cancelling": frozenset({"cancelled", "failed"}),
    "failed": frozenset(),
    "completed": frozenset(),
    "expired": frozenset(),
    "cancelled": frozenset(),
}
ENDED: frozenset[BatchStatus] = frozenset(status for status, after in NEXT.items() if not after)


class StoredFile(Struct, frozen=True, kw_only=True):
    """A file of a team. Its bytes rest sealed on disk under a key of its own, `sealed_key`."""

    id: str
    team: str
    key_id: str
    filename: str
    purpose: FilePurpose
    size_bytes: int
    created_at: float
    expires_at: float
    sealing_key: str
    sealed_key: bytes


class BatchFault(Struct, frozen=True, kw_only=True):
    """Why a batch was not begun. `line` counts from 1."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class Batch(Struct, frozen=True, kw_only=True):
    """One batch as it is kept. Times are Unix seconds."""

    id: str
    team: str
    key_id: str
    """Its requests are this key's: its rights, limits, budget and records."""
    endpoint: str
    """The path that every line asks."""
    input_file: str
    completion_window: str
    created_at: float
    expires_at: float
    status: BatchStatus = "validating"
    metadata: dict[str, str] | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    faults: tuple[BatchFault, ...] = ()
    sealing_key: str = ""
    sealed_key: bytes = b""
    """Of what it answers, as a file has it."""
    output_expires_s: float = 0.0
    output_file: str = ""
    error_file: str = ""
    times: dict[BatchStatus, float] = field(default_factory=dict)
    """When it came to each status."""

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED


def move(batch: Batch, status: BatchStatus, now: float) -> Batch:
    """
    The batch in its next status.

    Raises:
        Conflict: There is no such way.
    """
    if status not in NEXT[batch.status]:
        raise Conflict(f"batch {batch.id} is {batch.status} and cannot become {status}")
    return replace(batch, status=status, times={**batch.times, status: now})


def cancel(batch: Batch, now: float) -> Batch:
    """
    Ask it to end. A second time is nothing.

    Raises:
        Conflict: It has ended, or is about to.
    """
    return batch if batch.status in ("cancelling", "cancelled") else move(batch, "cancelling", now)


def close(batch: Batch, now: float) -> Batch:
    """The status in which it ends, once every line has its answer or its error."""
    if batch.status == "cancelling":
        return move(batch, "cancelled", now)
    if batch.status == "finalizing":
        return move(batch, "completed", now)
    return move(batch, "expired", now)


def why_unasked(batch: Batch, now: float) -> str:
    """The code of the lines that are not asked any more; "" while they are."""
    if batch.status == "cancelling":
        return "batch_cancelled"
    return "batch_expired" if now >= batch.expires_at else ""


class Line(Struct, frozen=True, kw_only=True):
    """One request of a batch, as its file has it."""

    number: int
    custom_id: str
    model: str
    body: bytes
    """JSON."""
