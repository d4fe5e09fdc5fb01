"""
The secrets of providers: set, list, remove. The value is sealed before it reaches the store.

All are held in memory as they rest, sealed; opening one is for the parts that
speak to the provider. What is told about a change names who made it, never what.
"""

from collections.abc import Callable, Mapping
from functools import partial

from pilothouse.control.transact import Transact
from pilothouse.domain.errors import Conflict, NotFound
from pilothouse.domain.events import Occurrence
from pilothouse.domain.provider_secret import SealedSecret, check_secret, users_of
from pilothouse.domain.secret_opening import WRAP_CONTEXT, place_of
from pilothouse.domain.spec import Spec
from pilothouse.kit.clock import Clock
from pilothouse.kit.seal import enclose
from pilothouse.kit.secret import Secret
from pilothouse.ports.keys import Keys
from pilothouse.ports.store import UnitOfWork


class Secrets:
    """
    Args:
        declared: The spec that runs.
        changed: Called after every committed change, before the caller gets its answer.
    """

    def __init__(
        self,
        transact: Transact,
        keys: Keys,
        *,
        clock: Clock,
        declared: Callable[[], Spec],
        changed: Callable[[str], None],
        happened: Callable[[Occurrence], None] = lambda _: None,
    ) -> None:
        self._transact = transact
        self._keys = keys
        self._clock = clock
        self._declared = declared
        self._changed = changed
        self._happened = happened
        self._sealed: dict[str, SealedSecret] = {}

    @property
    def sealed(self) -> Mapping[str, SealedSecret]:
        """By name, as they are at each moment."""
        return self._sealed

    async def load(self) -> None:
        """Read what the store holds. Call it once, before anybody asks."""
        found = await self._transact(lambda unit: unit.secrets.all())
        self._sealed.update((one.name, one) for one in found)
        for one in found:
            self._changed(one.name)

    async def set(self, name: str, value: Secret, *, host: str, team: str, author: str) -> SealedSecret:
        """
        Keep it, in place of the value that it had.

        Raises:
            InvalidRequest: No secret can be like that.
            Conflict: A deployment uses it at another host or for another team.
            NotFound: The team is not there.
        """
        check_secret(name, host, value.reveal())
        now, before = self._clock.now(), self._sealed.get(name)
        if before is not None and (before.host, before.team) != (host, team):
            self._refuse_used(name, f"it is bound to {before.host} and {_whose(before.team)}")
        wrap = partial(self._keys.wrap, context=WRAP_CONTEXT)
        sealed = SealedSecret(
            name=name,
            team=team,
            host=host,
            sealed=enclose(value.reveal().encode(), place_of(name, team, host), wrap),
            created_at=before.created_at if before else now,
            changed_at=now,
        )

        def put(unit: UnitOfWork) -> None:
            if team:
                unit.teams.get(team)
            unit.secrets.put(sealed)

        await self._transact(put)
        self._sealed[name] = sealed
        self._tell(name, "changed" if before else "set", f"for {host}, {_whose(team)}, by {author}")
        return sealed

    async def remove(self, name: str, *, author: str) -> SealedSecret:
        """
        Raises:
            NotFound: There is none.
            Conflict: A deployment uses it.
        """
        found = self.get(name)
        self._refuse_used(name, "it is used")
        await self._transact(lambda unit: unit.secrets.remove(name), urgent=True)
        self._sealed.pop(name, None)
        self._tell(name, "removed", f"it was for {found.host}; by {author}")
        return found

    def get(self, name: str) -> SealedSecret:
        """NotFound when there is none."""
        if name not in self._sealed:
            raise NotFound(
                f"no secret {name[:64]!r}, or this key may not see it; see: pilothouse secret list"
            )
        return self._sealed[name]

    def _refuse_used(self, name: str, why: str) -> None:
        if users := users_of(name, self._declared()):
            raise Conflict(
                f"the secret {name!r}: {why}, and deployment {users[0]!r} uses it. "
                "fix: set another one, and let the deployment name that"
            )

    def _tell(self, name: str, reason: str, message: str) -> None:
        self._changed(name)
        self._happened(Occurrence(kind="secret", name=name, reason=reason, message=message))


def _whose(team: str) -> str:
    return f"team {team}" if team else "all teams"
