"""
Purges of cached answers: counted in the store, told to all workers at once.

Nothing is looked for and deleted: the count is part of every key, so what was
cached before is never asked for again, in memory and in Redis, also after a
restart. Workers free the memory of what was purged.
"""

from collections.abc import Callable, Iterable

from pilothouse.control.transact import Transact
from pilothouse.domain.caching import purge_scope
from pilothouse.ports.store import CachePurge, UnitOfWork


class Purges:
    """
    Args:
        changed: Told of all counts, by scope, after every committed purge.
    """

    def __init__(self, transact: Transact, *, changed: Callable[[dict[str, int]], None]) -> None:
        self._transact = transact
        self._changed = changed

    async def load(self) -> None:
        """Tell what the store holds. Call it once, before any worker is served."""
        self._changed(_by_scope(await self._transact(lambda unit: unit.purges.all())))

    async def purge(self, *, team: str | None, endpoint: str | None) -> None:
        """End all cached answers of a team, of an endpoint, or of both; None is all of them."""

        def work(unit: UnitOfWork) -> list[CachePurge]:
            unit.purges.add(team or "", endpoint or "")
            return unit.purges.all()

        # Urgent: a full disk must not keep a wrong answer alive.
        self._changed(_by_scope(await self._transact(work, urgent=True)))


def _by_scope(purges: Iterable[CachePurge]) -> dict[str, int]:
    return {purge_scope(purge.team, purge.endpoint): purge.count for purge in purges}
