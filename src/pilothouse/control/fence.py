"""
A fence around the store: only who holds the controller's lease gets a transaction.

A controller that was asleep past the end of its lease (a paused machine, a long
silence of the network) does not know yet that another took over. The lease is
looked at within each transaction, so that what it still wants to write is
refused, and the successor sees nothing change under it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from pilothouse.domain.errors import Conflict
from pilothouse.ports.store import Lease, Store, UnitOfWork


class Fence:
    """What `control.leadership` holds; None lets everything pass."""

    lease: Lease | None = None


class FencedStore:
    def __init__(self, store: Store, fence: Fence) -> None:
        self._store = store
        self._fence = fence

    @contextmanager
    def unit(self, *, urgent: bool = False) -> Iterator[UnitOfWork]:
        """
        Raises:
            Conflict: Another controller took the lease; nothing was written.
        """
        lease = self._fence.lease
        with self._store.unit(urgent=urgent) as unit:
            if lease is not None and not unit.leases.is_held(lease):
                raise Conflict(
                    "another controller took over this store, so this one writes nothing more and ends"
                )
            yield unit

    def scrub(self) -> None:
        self._store.scrub()

    def close(self) -> None:
        self._store.close()
