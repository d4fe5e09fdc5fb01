"""
Teams and their API keys: make, list, rotate, revoke.

Every change of keys is committed to the store, then followed by the keyring,
then told by `changed`, which gives all workers a new snapshot. Who may ask for
what is decided before (`domain.policy`), not here.
"""

import asyncio
import re
from collections.abc import Callable

from pilothouse.control.adminkey import AdminKeyFile
from pilothouse.control.keyring import CreatedKey, Keyring, NewKey
from pilothouse.control.transact import Transact
from pilothouse.domain.errors import Conflict, InvalidApiKey, InvalidRequest
from pilothouse.domain.limits import Limits
from pilothouse.domain.policy import ROLES
from pilothouse.domain.snapshot import TeamEntry
from pilothouse.domain.tenancy import ApiKeyRow, Team
from pilothouse.kit.clock import Clock
from pilothouse.kit.log import Level, Log
from pilothouse.kit.secret import Secret
from pilothouse.ports.store import Page, UnitOfWork

Changed = Callable[[], None]

ADMIN_TEAM = "default"
ADMIN_KEY_NAME = "admin.key"
"""Name of the one key whose text lies in the keys folder; nobody else's may be called that."""

_TEAM = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class Tenants:
    """
    Args:
        changed: Called after every committed change of keys, before the caller gets its answer.
        admin_file: Where the text of this machine's own admin key lies.
    """

    def __init__(
        self,
        transact: Transact,
        keyring: Keyring,
        *,
        clock: Clock,
        changed: Changed,
        admin_file: AdminKeyFile,
        log: Log,
    ) -> None:
        self._transact = transact
        self._keyring = keyring
        self._clock = clock
        self._changed = changed
        self._admin_file = admin_file
        self._log = log
        self.limited: dict[str, TeamEntry] = {}
        """Teams with limits, as workers know them: for the snapshot."""
        self._commits: set[asyncio.Task[list[ApiKeyRow]]] = set()

    async def load(self) -> None:
        """Fill the keyring from the store. Call it once, before anybody asks."""
        now = self._clock.now()
        self._keyring.replace(await self._transact(lambda unit: unit.keys.active(now)))
        for team in await self.teams():
            self._follow_team(team)

    async def create_team(
        self,
        name: str,
        *,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        per_subject: Limits = Limits(),  # noqa: B008 - frozen
    ) -> Team:
        """Conflict when it is there."""
        if not _TEAM.fullmatch(name):
            raise InvalidRequest(
                "name: a team is 1 to 63 lower-case letters, digits and inner dashes, such as research-eu",
                param="name",
            )
        team = Team(name=name, created_at=self._clock.now(), limits=limits, per_subject=per_subject)
        await self._transact(lambda unit: unit.teams.add(team))
        self._follow_team(team)
        return team

    async def team(self, name: str) -> Team:
        """NotFound when there is none."""
        return await self._transact(lambda unit: unit.teams.get(name))

    async def limit_team(self, name: str, *, limits: Limits, per_subject: Limits) -> Team:
        """Replace a team's limits, everywhere within a second. NotFound."""
        team = await self._transact(
            lambda unit: unit.teams.limit(name, limits=limits, per_subject=per_subject)
        )
        self._follow_team(team)
        return team

    async def limit_key(self, key_id: str, limits: Limits) -> ApiKeyRow:
        """Replace a key's limits, everywhere within a second. NotFound."""
        return (await self._commit(lambda unit: [unit.keys.limit(key_id, limits)]))[0]

    def _follow_team(self, team: Team) -> None:
        before = self.limited.pop(team.name, None)
        if team.limits or team.per_subject:
            self.limited[team.name] = TeamEntry(limits=team.limits, per_subject=team.per_subject)
        if self.limited.get(team.name) != before:
            self._changed()

    async def teams(self) -> list[Team]:
        return await self._transact(lambda unit: unit.teams.all())

    async def keys(self, *, team: str | None, cursor: str | None, limit: int) -> Page[ApiKeyRow]:
        """Newest first, revoked and expired ones too."""
        return await self._transact(lambda unit: unit.keys.page(team=team, cursor=cursor, limit=limit))

    async def key(self, key_id: str) -> ApiKeyRow:
        """NotFound when it never was."""
        return await self._transact(lambda unit: unit.keys.get(key_id))

    async def create_key(self, new: NewKey) -> CreatedKey:
        """
        Raises:
            InvalidRequest: An unknown role or endpoint, or an unusable name.
            NotFound: The team is not there.
        """
        check_new_key(new)
        made = self._keyring.make(new)
        await self._add_key(made.row)
        return made

    async def carry_key(self, new: NewKey, token_sha256: str) -> ApiKeyRow:
        """
        Let a key of another gateway go on working; only its SHA-256 is known here.

        Raises:
            InvalidRequest: As `create_key`, or `token_sha256` is none, or the role is not developer.
            NotFound: The team is not there.
            Conflict: It was carried over before.
        """
        check_new_key(new)
        row = self._keyring.carry(new, token_sha256)
        await self._add_key(row)
        return row

    async def _add_key(self, row: ApiKeyRow) -> None:
        def add(unit: UnitOfWork) -> list[ApiKeyRow]:
            unit.teams.get(row.team)
            _check_endpoints(unit, row.endpoints or frozenset())
            unit.keys.add(row)
            return [row]

        await self._commit(add)

    async def rotate(self, key_id: str, *, overlap_s: float = 0.0) -> CreatedKey:
        """
        Give a new secret under a new id; the old key ends after `overlap_s`, by default at once.

        Raises:
            Conflict: The key already ended.
        """
        now = self._clock.now()
        old = await self.key(key_id)
        made = self._keyring.make(
            NewKey(
                team=old.team,
                role=old.role,
                name=old.name,
                endpoints=old.endpoints,
                expires_at=renewed_expiry(old, now),
                limits=old.limits,
            )
        )

        def replace(unit: UnitOfWork) -> list[ApiKeyRow]:
            # Looked at again inside the transaction: it may have been revoked a moment ago.
            if not unit.keys.get(old.id).is_active(now):
                raise Conflict(f"key {old.id} was revoked or has expired; create a new one")
            unit.keys.add(made.row)
            if overlap_s > 0:
                return [made.row, unit.keys.expire(old.id, at=now + overlap_s)]
            return [made.row, unit.keys.revoke(old.id, at=now)]

        await self._commit(replace)
        if old.name == ADMIN_KEY_NAME:
            await asyncio.to_thread(self._admin_file.write, made.key)
        return made

    async def revoke(self, key_id: str) -> ApiKeyRow:
        """End it now: the workers know within a second. A second call changes nothing. NotFound."""
        now = self._clock.now()
        rows = await self._commit(lambda unit: [unit.keys.revoke(key_id, at=now)], urgent=True)
        return rows[0]

    async def ensure_admin_key(self) -> None:
        """
        See to it that the admin key file opens this server.

        When it does not (the first start, a lost file, another store), a new key
        is made and written there, and those made so before are revoked. Call it
        after `load`, before anybody asks.
        """
        present = await asyncio.to_thread(self._admin_file.read)
        if present is not None and self._is_admin(present):
            return
        made = self._keyring.make(NewKey(team=ADMIN_TEAM, role="admin", name=ADMIN_KEY_NAME))
        now = self._clock.now()

        def replace(unit: UnitOfWork) -> list[ApiKeyRow]:
            if not any(team.name == ADMIN_TEAM for team in unit.teams.all()):
                unit.teams.add(Team(name=ADMIN_TEAM, created_at=now))
            earlier = [row.id for row in unit.keys.active(now) if row.name == ADMIN_KEY_NAME]
            unit.keys.add(made.row)
            return [made.row, *(unit.keys.revoke(key_id, at=now) for key_id in earlier)]

        rows = await self._commit(replace)
        await asyncio.to_thread(self._admin_file.write, made.key)
        revoked = [row.id for row in rows[1:]]
        level: Level = "warning" if revoked else "info"
        self._log.event(
            "admin_key_made", level, key_id=made.row.id, file=str(self._admin_file.path), revoked=revoked
        )

    def _is_admin(self, key: Secret) -> bool:
        try:
            return self._keyring.authenticate(key.reveal()).role == "admin"
        except InvalidApiKey:
            return False

    async def _commit(
        self, work: Callable[[UnitOfWork], list[ApiKeyRow]], *, urgent: bool = False
    ) -> list[ApiKeyRow]:
        """Shielded: a caller that goes away half-way must not leave a revoked key alive in memory."""
        task = asyncio.create_task(self._commit_and_tell(work, urgent=urgent))
        self._commits.add(task)
        task.add_done_callback(self._commits.discard)
        return await asyncio.shield(task)

    async def _commit_and_tell(
        self, work: Callable[[UnitOfWork], list[ApiKeyRow]], *, urgent: bool
    ) -> list[ApiKeyRow]:
        rows = await self._transact(work, urgent=urgent)
        self._keyring.follow(rows)
        self._changed()
        return rows


def renewed_expiry(row: ApiKeyRow, now: float) -> float | None:
    """When a rotated key ends: it lives as long, counted from now, as the old one was to live."""
    return None if row.expires_at is None else now + row.expires_at - row.created_at


def check_new_key(new: NewKey) -> None:
    """
    Raises:
        InvalidRequest: No key can be like that, whoever asks.
    """
    if new.role not in ROLES:
        raise InvalidRequest(f"role: not one of {', '.join(ROLES)}", param="role")
    if new.name == ADMIN_KEY_NAME:
        raise InvalidRequest(
            f"name: {ADMIN_KEY_NAME!r} is this machine's own key; take another", param="name"
        )
    if len(new.name) > 100 or not new.name.isprintable():
        raise InvalidRequest("name: at most 100 printable characters", param="name")
    if new.endpoints is not None and not new.endpoints:
        raise InvalidRequest(
            "endpoints: an empty list opens nothing; leave it out for all", param="endpoints"
        )
    if new.endpoints is not None and new.role != "developer":
        raise InvalidRequest(
            "endpoints: a key limited to endpoints only calls them; its role is developer", param="endpoints"
        )


def _check_endpoints(unit: UnitOfWork, wanted: frozenset[str]) -> None:
    stored = unit.specs.current()
    known = stored.spec.endpoints if stored else {}
    unknown = sorted(wanted - known.keys())
    if unknown:
        raise InvalidRequest(
            f"endpoints: no endpoint {unknown[0][:64]!r}; "
            f"there are: {', '.join(sorted(known)) or 'none yet'}",
            param="endpoints",
        )
