"""How the control plane reaches its store: one function per transaction, off the event loop."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from pilothouse.ports.store import UnitOfWork

T = TypeVar("T")


class Transact(Protocol):
    """
    Run `work` in one transaction on the store's own thread.

    `work` returns values, never the unit. When it raises, nothing is written.

    Args:
        urgent: See `ports.store.Store.unit`.
    """

    async def __call__(self, work: Callable[[UnitOfWork], T], /, *, urgent: bool = False) -> T: ...
