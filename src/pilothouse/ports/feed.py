"""
The Feed: how a worker learns what to serve, and tells how it goes.

The same in process, over a local socket, or over HTTP.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Protocol

from pilothouse.domain.leasing import LedgerAnswer, LedgerAsk
from pilothouse.domain.snapshot import Snapshot, WorkerHello, WorkerReport


class Feed(Protocol):
    """The worker's end. Reconnects by itself with backoff; never raises for a controller that is gone."""

    @property
    def disconnected_since(self) -> float | None:
        """Unix seconds since when the controller is out of reach; None while connected."""
        ...

    def snapshots(self) -> AsyncIterator[Snapshot]:
        """Yield the newest snapshot on connect and after every change. One consumer."""
        ...

    def report(self, report: WorkerReport) -> None:
        """Send when connected, else forget: the newest replaces the last. Never blocks."""
        ...

    async def exchange(self, ask: LedgerAsk, *, timeout_s: float) -> LedgerAnswer | None:
        """The controller's answer about leases; None when it is not there in time. One at a time."""
        ...

    async def aclose(self) -> None: ...


AnswerLedger = Callable[[LedgerAsk], Awaitable[LedgerAnswer]]


class Publisher(Protocol):
    """
    The controller's end.

    `view(hello)` makes the snapshot for one worker (each has its own leases).
    """

    async def serve(
        self,
        *,
        view: Callable[[WorkerHello], Snapshot],
        on_report: Callable[[WorkerReport], None],
        on_leave: Callable[[str], None],
        on_ask: AnswerLedger | None = None,
    ) -> None:
        """Serve until cancelled. Without `on_ask`, asks about leases have no answer."""
        ...

    def publish(self) -> None:
        """Give every connected worker a fresh view at once. Never blocks; a slow one gets the newest."""
        ...

    async def collect(self, *, timeout_s: float) -> Mapping[str, WorkerReport]:
        """Ask all workers for a fresh report; return the newest of each, silent ones included."""
        ...
