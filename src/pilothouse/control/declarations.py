"""
The declared spec: checked, stored with its author, and handed to the control loop.

The newest revision is held in memory too, so that reading it needs no store.
The controller is the only writer, so both agree.
"""

from collections.abc import Callable, Collection

from pilothouse.control.transact import Transact
from pilothouse.domain.errors import Conflict
from pilothouse.domain.spec import Spec
from pilothouse.domain.speccheck import check_spec
from pilothouse.kit.clock import Clock
from pilothouse.ports.store import StoredSpec

NOTHING = StoredSpec(revision=0, spec=Spec(), author="", time=0.0)


class Declarations:
    """
    Args:
        engines: Engines that deployments may name.
        targets: Places where they may run.
        declared: Told of each new revision, after it was stored.
    """

    def __init__(
        self,
        transact: Transact,
        clock: Clock,
        *,
        engines: Collection[str],
        targets: Collection[str],
        declared: Callable[[StoredSpec], None],
    ) -> None:
        self._transact = transact
        self._clock = clock
        self._engines = engines
        self._targets = targets
        self._declared = declared
        self._current = NOTHING

    async def load(self) -> StoredSpec:
        """Read what the store holds; revision 0 when nothing was declared yet. Call it once, first."""
        stored: StoredSpec | None = await self._transact(lambda unit: unit.specs.current())
        self._current = stored or NOTHING
        return self._current

    async def current(self) -> StoredSpec:
        return self._current

    async def declare(
        self, spec: Spec, *, expected_revision: int | None, author: str, dry_run: bool = False
    ) -> StoredSpec:
        """
        Check and store the next revision, and tell the control loop. The same spec again changes nothing.

        Args:
            expected_revision: The revision it was made from; None is whatever is there.
            author: Id of the key that declares it.
            dry_run: Only check; returns what is there.

        Raises:
            InvalidRequest: It cannot be run as declared.
            Conflict: Somebody declared another since.
        """
        check_spec(spec, engines=self._engines, targets=self._targets)
        present = self._current
        if expected_revision not in (None, present.revision):
            raise Conflict(
                f"the spec is at revision {present.revision}, and this change was made from "
                f"{expected_revision}; read it again, then make the change anew"
            )
        if dry_run or (spec == present.spec and present.revision):
            return present
        now = self._clock.now()
        try:
            stored = await self._transact(
                lambda unit: unit.specs.put(spec, expected_revision=present.revision, author=author, now=now)
            )
        except Conflict:
            # Another was stored whose answer never came (the store was too slow): catch up with it.
            self._take_over(await self.load())
            raise
        self._take_over(stored)
        return stored

    def _take_over(self, stored: StoredSpec) -> None:
        if stored.revision >= self._current.revision:
            self._current = stored
            self._declared(stored)
