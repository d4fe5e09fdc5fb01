"""
What the admin API stands on: one frozen value, put together by `app.controller`.

Routes reach everything through it and build nothing themselves. What another
package does is named here by its shape alone.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

from litestar.connection import ASGIConnection
from msgspec import Struct

from pilothouse.config import Settings
from pilothouse.control.batches import Batches
from pilothouse.control.feedback import FeedbackInbox
from pilothouse.control.keyring import Keyring
from pilothouse.control.purges import Purges
from pilothouse.control.registry import Verified
from pilothouse.control.rollouts import Rollouts
from pilothouse.control.secrets import Secrets
from pilothouse.control.status import ProcessFigures, StatusReport
from pilothouse.control.tenants import Tenants
from pilothouse.control.transact import Transact
from pilothouse.domain.feedback import Feedback
from pilothouse.domain.model import ModelVersion
from pilothouse.domain.policy import Policy, decide
from pilothouse.domain.record import Content
from pilothouse.domain.spec import Spec
from pilothouse.domain.status import Progress, SystemStatus
from pilothouse.kit.clock import Clock
from pilothouse.kit.log import Log
from pilothouse.ports.store import Page, SealedRecord, StoredSpec


class EngineView(Struct, frozen=True, kw_only=True):
    """An engine that deployments may name, and what is missing where it cannot run here."""

    name: str
    installed: bool
    version: str = ""
    capabilities: tuple[str, ...] = ()
    missing: str = ""
    install_command: str = ""
    note: str = ""
    """What to know before it is chosen."""


class Specs(Protocol):
    """The declaration, and the way to change it."""

    async def current(self) -> StoredSpec:
        """Revision 0 and an empty spec when nothing was declared yet."""
        ...

    async def declare(
        self, spec: Spec, *, expected_revision: int | None, author: str, dry_run: bool = False
    ) -> StoredSpec:
        """
        Check and store the next revision, and wake the control loop.

        Args:
            expected_revision: The revision it was made from; None is whatever is there.
            dry_run: Only check; returns what is there.

        Raises:
            InvalidRequest: It cannot be run as declared.
            Conflict: Somebody declared another since.
        """
        ...

    def warnings(self, spec: Spec) -> list[str]:
        """What a declaration of it would not be refused for, but may go wrong."""
        ...

    async def edit(
        self, change: Callable[[Spec], Spec], *, expected_revision: int | None, author: str
    ) -> StoredSpec:
        """Declare what `change` makes of the present spec. Errors are those of both."""
        ...

    async def revision(self, number: int) -> StoredSpec:
        """NotFound when it never was."""
        ...

    async def revisions(self, *, cursor: str | None, limit: int) -> Page[StoredSpec]:
        """Newest first."""
        ...


class Models(Protocol):
    """The registry of model versions."""

    async def versions(self) -> list[ModelVersion]: ...

    async def pull(
        self,
        source: str,
        *,
        name: str | None,
        licence: str,
        progress: Callable[[Progress], None],
        version: str = "",
        card: str = "",
    ) -> ModelVersion:
        """Fetch, check and register. `progress` may be called from another thread."""
        ...

    async def annotate(self, name: str, version: str, *, card: str) -> ModelVersion: ...

    async def export(self, name: str, version: str) -> Iterator[bytes]:
        """As the tar of an OCI image layout; NotFound."""
        ...

    async def verify(self, name: str) -> list[Verified]:
        """Read the files again; NotFound."""
        ...

    async def remove(self, name: str) -> list[ModelVersion]:
        """
        Remove all versions of that name, or that of `name@version`.

        Raises:
            Conflict: One is used; the message says by whom.
            NotFound: There is none.
        """
        ...


class Logs(Protocol):
    async def __call__(self, replica: str, *, lines: int) -> list[str]:
        """The newest lines, oldest first; NotFound."""
        ...


@dataclass(frozen=True, kw_only=True)
class Plane:
    settings: Settings
    clock: Clock
    log: Log
    keyring: Keyring
    tenants: Tenants
    purges: Purges
    secrets: Secrets
    transact: Transact
    specs: Specs
    models: Models
    system: Callable[[], SystemStatus]
    """What the control loop last saw."""
    status: Callable[[], Awaitable[StatusReport]]
    metrics: Callable[[], Awaitable[str]]
    """Prometheus text of workers and controller together."""
    processes: Callable[[], Sequence[ProcessFigures]] = field(default=tuple)
    """What each process uses now."""
    logs: Logs
    open_content: Callable[[SealedRecord], Awaitable[Content]]
    rollouts: Rollouts
    feedback: FeedbackInbox
    batches: Batches
    open_feedback: Callable[[Feedback], Awaitable[str]]
    hurry_records: Callable[[], None] = lambda: None
    """Somebody waits for one that is on its way from the journal to the store."""
    engines: Callable[[], Sequence[EngineView]] = field(default=tuple)
    policy: Policy = decide


def plane_of(connection: ASGIConnection) -> Plane:  # type: ignore[type-arg]
    """The plane of the app that a request came to."""
    return cast("Plane", connection.app.state["plane"])
