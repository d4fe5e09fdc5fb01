"""
The Store: the control plane's database, as small repositories in transactions.

    with store.unit() as unit:
        unit.keys.revoke(key_id, at=now)

Leaving the block commits; an exception rolls all of it back. Synchronous: the
controller, its only writer, runs it on one dedicated thread. Values are domain
values, times are Unix seconds, and nobody below this line looks at a clock.

Errors: NotFound, Conflict (it exists, or another editor was faster) and
StoreUnavailable (locked, full or gone: nothing was written, try again).
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

from pilothouse.domain.events import Event
from pilothouse.domain.limits import BudgetScope, Limits
from pilothouse.domain.model import ModelVersion
from pilothouse.domain.provider_secret import SealedSecret
from pilothouse.domain.record import InferenceRecord
from pilothouse.domain.spec import Spec
from pilothouse.domain.tenancy import ApiKeyRow, Team
from pilothouse.domain.usage import UsageBy, UsageLine
from pilothouse.ports.batches import Batches, Files
from pilothouse.ports.releases import Feedbacks, Rollouts

T = TypeVar("T")


class Page(Struct, Generic[T], frozen=True):
    """Part of a list. `next` is an opaque cursor for the rest; None is the end."""

    items: list[T]
    next: str | None = None


class StoredSpec(Struct, frozen=True, kw_only=True):
    """A revision of the declaration. The first has revision 1; 0 means that there is none yet."""

    revision: int
    spec: Spec
    author: str
    time: float


class SealedRecord(Struct, frozen=True, kw_only=True):
    """A record, and its content as ciphertext under the sealing key `sealing_key`."""

    record: InferenceRecord
    content: bytes | None = None
    sealing_key: str = ""


class RecordFilter(Struct, frozen=True, kw_only=True):
    """Which records; None is any. Times are [since, until)."""

    team: str | None = None
    endpoint: str | None = None
    deployment: str | None = None
    key_id: str | None = None
    subject_hash: str | None = None
    code: str | None = None
    since: float | None = None
    until: float | None = None


class SealingKey(Struct, frozen=True, kw_only=True):
    """
    A wrapped key. `subject_hash` "" is the team's own key, wrapped by `ports.keys`;
    any other is a person's, wrapped by the team's. Destroying the row erases
    everything that was sealed under it.
    """

    id: str
    team: str
    subject_hash: str
    wrapped: bytes
    created_at: float


class JournalPosition(Struct, frozen=True):
    """All frames of `segment` before `offset` are in the store."""

    segment: str
    offset: int


class ResourceSample(Struct, frozen=True, kw_only=True):
    """What one process or replica used in one minute. `cpu_seconds` is of that minute alone."""

    minute: int
    role: str
    """`worker`, `controller`, `supervisor` or `replica`."""
    name: str
    deployment: str = ""
    team: str = ""
    """Whose it is alone; "" is shared by all."""
    cpu_seconds: float = 0.0
    rss_bytes: int = 0
    """Largest resident memory seen."""
    gpu_utilization_ratio: float | None = None
    gpu_memory_bytes: int | None = None


class Lease(Struct, frozen=True, kw_only=True):
    """`token` grows with every new holder, so that an old one can be told from the present one."""

    name: str
    holder: str
    token: int
    expires_at: float


class CachePurge(Struct, frozen=True):
    """How often cached answers were purged: of a team, of an endpoint, or of both; "" is all of them."""

    team: str
    endpoint: str
    count: int


class Teams(Protocol):
    def add(self, team: Team) -> None:
        """Conflict when the name is taken."""
        ...

    def get(self, name: str) -> Team: ...

    def all(self) -> list[Team]: ...

    def limit(self, name: str, *, limits: Limits, per_subject: Limits) -> Team:
        """Replace its limits. NotFound."""
        ...


class ApiKeys(Protocol):
    def add(self, row: ApiKeyRow) -> None:
        """Conflict when the id is taken, NotFound when the team is not there."""
        ...

    def get(self, key_id: str) -> ApiKeyRow: ...

    def active(self, now: float) -> list[ApiKeyRow]:
        """All keys that open something at `now`: neither revoked nor expired."""
        ...

    def page(
        self, *, team: str | None = None, cursor: str | None = None, limit: int = 100
    ) -> Page[ApiKeyRow]:
        """Newest first; revoked and expired ones too."""
        ...

    def limit(self, key_id: str, limits: Limits) -> ApiKeyRow:
        """Replace its limits. NotFound."""
        ...

    def revoke(self, key_id: str, *, at: float) -> ApiKeyRow:
        """Idempotent: a second call keeps the first time."""
        ...

    def expire(self, key_id: str, *, at: float) -> ApiKeyRow:
        """Let it end at `at` (rotation: the old key lives on for a while); never later than it would have."""
        ...


class Models(Protocol):
    def put(self, model: ModelVersion) -> None:
        """Add a version. The same again is nothing; another digest under that version is a Conflict."""
        ...

    def annotate(self, name: str, version: str, *, card: str) -> ModelVersion:
        """Replace what people wrote about it: the one thing of a version that may change."""
        ...

    def newest(self, name: str) -> ModelVersion: ...

    def by_digest(self, digest: str) -> ModelVersion: ...

    def all(self) -> list[ModelVersion]:
        """By name, newest first."""
        ...

    def remove(self, name: str, version: str) -> None: ...


class Specs(Protocol):
    def current(self) -> StoredSpec | None: ...

    def get(self, revision: int) -> StoredSpec: ...

    def put(self, spec: Spec, *, expected_revision: int, author: str, now: float) -> StoredSpec:
        """
        Add the next revision.

        Raises:
            Conflict: The current revision is another than `expected_revision` (0: none yet).
        """
        ...

    def history(self, *, cursor: str | None = None, limit: int = 20) -> Page[StoredSpec]:
        """Newest first."""
        ...


class Events(Protocol):
    def put_many(self, batch: Sequence[Event]) -> None:
        """Add them; one whose id is there already takes its new time, count and revision."""
        ...

    def page(
        self,
        *,
        kind: str | None = None,
        name: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page[Event]:
        """Newest first."""
        ...

    def forget(self, *, keep: int) -> int:
        """Delete all but the newest `keep`; return how many went."""
        ...


class Records(Protocol):
    def insert_many(self, rows: Sequence[SealedRecord]) -> int:
        """
        Add those whose ids are new, with their share of the minute rollups.

        Returns how many were new: ids that are there already change nothing.
        """
        ...

    def get(self, record_id: str) -> InferenceRecord: ...

    def page(
        self, where: RecordFilter, *, cursor: str | None = None, limit: int = 100
    ) -> Page[InferenceRecord]:
        """Newest first."""
        ...

    def content(self, record_id: str) -> SealedRecord:
        """The record with its sealed content, which is None where none is kept (any more)."""
        ...

    def forget_content(self, cutoffs: Mapping[str, float], *, otherwise: float, limit: int) -> int:
        """
        Erase the content of at most `limit` records that are older than their endpoint's cutoff.

        Args:
            cutoffs: Unix seconds by endpoint.
            otherwise: Cutoff of all other endpoints, those deleted since included.

        Returns:
            How many were erased; fewer than `limit` means that none is left.
        """
        ...

    def forget_content_of(self, record_id: str) -> bool:
        """Erase the content of one record; whether there was any."""
        ...

    def forget(self, before: float, *, limit: int) -> int:
        """Delete at most `limit` older records whose content is not kept (any more); return how many."""
        ...


class UsageRollups(Protocol):
    def spent(self, scope: BudgetScope) -> int:
        """Cost of a budget's scope in its period. Of a subject from the records that are kept."""
        ...

    def spent_by(self, by: UsageBy, scope: BudgetScope) -> dict[str, int]:
        """`spent` of each key, team, endpoint or subject within the scope, but of those that cost nothing."""
        ...

    def report(self, by: UsageBy, *, since: float, until: float, team: str | None = None) -> list[UsageLine]:
        """
        Totals of [since, until), whole minutes, largest cost first, then most requests.

        By "endpoint" a line adds up all teams, unless one is asked for. By
        "subject" the groups are subject hashes, from records that still are kept.
        """
        ...

    def forget(self, before: float, *, limit: int) -> int: ...


class Resources(Protocol):
    def put_many(self, samples: Iterable[ResourceSample]) -> None:
        """A second sample of the same minute, role and name replaces the first."""
        ...

    def page(
        self,
        *,
        since: float,
        until: float,
        name: str | None = None,
        cursor: str | None = None,
        limit: int = 1000,
    ) -> Page[ResourceSample]:
        """Oldest first."""
        ...

    def forget(self, before: float, *, limit: int) -> int: ...


class SealingKeys(Protocol):
    def add(self, key: SealingKey) -> None:
        """Conflict when the team already has a key for that subject."""
        ...

    def get(self, key_id: str) -> SealingKey:
        """NotFound: it never was, or was destroyed."""
        ...

    def find(self, team: str, subject_hash: str) -> SealingKey | None: ...

    def of_teams(self) -> list[SealingKey]:
        """The teams' own keys: all that a rotation of the wrapping key has to touch."""
        ...

    def rewrap(self, key_id: str, wrapped: bytes) -> None: ...

    def destroy(self, team: str, subject_hash: str) -> bool:
        """Erase it; False when there was none."""
        ...


class Journals(Protocol):
    def positions(self) -> dict[str, int]:
        """Drained offset by segment name."""
        ...

    def advance(self, positions: Iterable[JournalPosition]) -> None: ...

    def forget(self, segments: Iterable[str]) -> None:
        """Drop positions of segments whose files are gone."""
        ...


class Leases(Protocol):
    def get(self, name: str) -> Lease | None:
        """As it stands, ended or not; None when nobody ever held it."""
        ...

    def acquire(self, name: str, holder: str, *, ttl_s: float, now: float) -> Lease | None:
        """Take it when it is free, expired or ours already; None while another holds it."""
        ...

    def renew(self, lease: Lease, *, ttl_s: float, now: float) -> Lease | None:
        """Prolong it; None when somebody else took it since: stop at once."""
        ...

    def is_held(self, lease: Lease) -> bool:
        """Whether nobody took it since, expired or not; True holds until this unit has ended."""
        ...

    def release(self, lease: Lease) -> None:
        """Give it back; nothing when it is no longer ours."""
        ...


class CachePurges(Protocol):
    def add(self, team: str, endpoint: str) -> None:
        """Count one more purge of what the team, the endpoint, or both ("" is all) has in caches."""
        ...

    def all(self) -> list[CachePurge]:
        """By team and endpoint."""
        ...


class ProviderSecrets(Protocol):
    def put(self, secret: SealedSecret) -> None:
        """Add it, or replace the one of that name."""
        ...

    def all(self) -> list[SealedSecret]:
        """By name."""
        ...

    def remove(self, name: str) -> None:
        """NotFound when there is none."""
        ...


class UnitOfWork(Protocol):
    """One transaction. Not to be used after its block, nor by two threads."""

    @property
    def teams(self) -> Teams: ...
    @property
    def keys(self) -> ApiKeys: ...
    @property
    def models(self) -> Models: ...
    @property
    def specs(self) -> Specs: ...
    @property
    def events(self) -> Events: ...
    @property
    def records(self) -> Records: ...
    @property
    def usage(self) -> UsageRollups: ...
    @property
    def resources(self) -> Resources: ...
    @property
    def seals(self) -> SealingKeys: ...
    @property
    def journals(self) -> Journals: ...
    @property
    def leases(self) -> Leases: ...
    @property
    def purges(self) -> CachePurges: ...
    @property
    def secrets(self) -> ProviderSecrets: ...
    @property
    def rollouts(self) -> Rollouts: ...
    @property
    def feedback(self) -> Feedbacks: ...
    @property
    def files(self) -> Files: ...
    @property
    def batches(self) -> Batches: ...


class Store(Protocol):
    def unit(self, *, urgent: bool = False) -> AbstractContextManager[UnitOfWork]:
        """
        Open a transaction.

        Args:
            urgent: It must work on a full disk too (revoking, aborting): reserved
                space is given up for it, and taken again when there is room.

        Raises:
            StoreUnavailable: Also at the end of the block, when the commit fails.
        """
        ...

    def scrub(self) -> None:
        """
        Leave no byte of what was erased in the store's own files. Outside of units.

        Raises:
            StoreUnavailable: Somebody still reads an older state; try again.
        """
        ...

    def close(self) -> None: ...
