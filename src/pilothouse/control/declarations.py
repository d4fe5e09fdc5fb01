"""
The declared spec: checked, stored with its author, and handed to the control loop.

The newest revision is held in memory too, so that reading it needs no store.
The controller is the only writer, so both agree.
"""

from collections.abc import Callable, Collection, Mapping

from pilothouse.control.fitting import Fit
from pilothouse.control.transact import Transact
from pilothouse.domain.errors import Conflict
from pilothouse.domain.events import Occurrence
from pilothouse.domain.model import ModelVersion
from pilothouse.domain.provider_secret import SealedSecret, secret_faults, unset_secrets
from pilothouse.domain.spec import Spec
from pilothouse.domain.speccheck import Engines, check_spec, refuse
from pilothouse.domain.specdiff import changes
from pilothouse.kit.clock import Clock
from pilothouse.ports.store import Page, StoredSpec

NOTHING = StoredSpec(revision=0, spec=Spec(), author="", time=0.0)
TOLD_CHANGES = 6
EDIT_ATTEMPTS = 3
"""How often a small change is made anew on what another one left."""


class Declarations:
    """
    Args:
        engines: What each engine takes that deployments may name.
        targets: Places where they may run.
        declared: Told of each new revision, after it was stored.
        versions: The model versions that are here, newest first.
        fit: What a spec asks for beyond the present one, against this machine's memory.
    """

    def __init__(
        self,
        transact: Transact,
        clock: Clock,
        *,
        engines: Engines,
        targets: Collection[str],
        declared: Callable[[StoredSpec], None],
        versions: Callable[[], Collection[ModelVersion]] = tuple,
        fit: Callable[[Spec, Spec], Fit] = lambda _, __: Fit(),
        happened: Callable[[Occurrence], None] = lambda _: None,
    ) -> None:
        self._transact = transact
        self._clock = clock
        self._engines = engines
        self._targets = targets
        self._declared = declared
        self._versions = versions
        self.secrets: Callable[[], Mapping[str, SealedSecret]] = dict
        """Those of providers that are set, by name."""
        self._fit = fit
        self._happened = happened
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
            author: Who declares it, as people know him.
            dry_run: Only check; returns what is there.

        Raises:
            InvalidRequest: It cannot be run as declared.
            Conflict: Somebody declared another since.
        """
        check_spec(spec, engines=self._engines, targets=self._targets, versions=self._versions())
        present = self._current
        if expected_revision not in (None, present.revision):
            raise Conflict(
                f"revision {present.revision} runs, and this change was made from revision "
                f"{expected_revision}: it would undo what was changed since. Read the spec again, then make "
                "the change anew"
            )
        refuse([*secret_faults(spec, self.secrets()), *self._fit(spec, present.spec).faults])
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
        self._tell(present, stored)
        return stored

    def warnings(self, spec: Spec) -> list[str]:
        """
        What may not have the memory that it asks for, or the secret; nothing is refused for it.

        Raises:
            InvalidRequest: It cannot be run as declared, so nobody knows what it would take.
        """
        check_spec(spec, engines=self._engines, targets=self._targets, versions=self._versions())
        return [*unset_secrets(spec, self.secrets()), *self._fit(spec, self._current.spec).warnings]

    async def edit(
        self, change: Callable[[Spec], Spec], *, expected_revision: int | None, author: str
    ) -> StoredSpec:
        """
        Declare what `change` makes of the present spec; see `declare`.

        Raises:
            PilothouseError: What `change` raises, and what `declare` does.
        """
        for _ in range(EDIT_ATTEMPTS - 1):
            present = self._current
            try:
                return await self.declare(
                    change(present.spec), expected_revision=expected_revision, author=author
                )
            except Conflict:
                if expected_revision is not None or self._current is present:
                    raise
        return await self.declare(
            change(self._current.spec), expected_revision=expected_revision, author=author
        )

    async def revision(self, number: int) -> StoredSpec:
        """
        One revision.

        Raises:
            NotFound: It never was.
        """
        if number == self._current.revision:
            return self._current
        return await self._transact(lambda unit: unit.specs.get(number))

    async def revisions(self, *, cursor: str | None, limit: int) -> Page[StoredSpec]:
        """Newest first."""
        return await self._transact(lambda unit: unit.specs.history(cursor=cursor, limit=limit))

    def _tell(self, before: StoredSpec, stored: StoredSpec) -> None:
        """Moved stages are told one by one, for people look for them under the model's name."""
        found = changes(before.spec, stored.spec)
        paths = ", ".join(change.path for change in found[:TOLD_CHANGES])
        more = f" and {len(found) - TOLD_CHANGES} more" if len(found) > TOLD_CHANGES else ""
        message = f"revision {stored.revision} by {stored.author or 'nobody known'}: {paths}{more}"
        self._happened(Occurrence(kind="spec", name="spec", reason="declared", message=message))
        for name, model in stored.spec.models.items():
            earlier = before.spec.models.get(name)
            for stage, version in model.stages.items():
                was = earlier.stages.get(stage, "nothing") if earlier else "nothing"
                if was != version:
                    words = f"{stage}: {was} -> {version}, by {stored.author or 'nobody known'}"
                    self._happened(Occurrence(kind="model", name=name, reason="stage_moved", message=words))

    def _take_over(self, stored: StoredSpec) -> None:
        if stored.revision >= self._current.revision:
            self._current = stored
            self._declared(stored)
