"""
The keys that open something, in memory: who asks is answered without any I/O.

So a wrong key costs a checksum and a dict, and a lost database never turns into
"wrong key". The store is the truth; `control.tenants` keeps both the same.
"""

import hmac
import os
from collections.abc import Callable, Iterable

from msgspec import Struct

from pilothouse.domain import apikey
from pilothouse.domain.errors import InvalidApiKey, InvalidRequest
from pilothouse.domain.limits import Limits
from pilothouse.domain.principal import Principal
from pilothouse.domain.snapshot import KeyEntry
from pilothouse.domain.tenancy import ApiKeyRow
from pilothouse.kit.clock import Clock
from pilothouse.kit.secret import Secret

_UNKNOWN = "the API key is missing or wrong; send it as: Authorization: Bearer ph_..."


class NewKey(Struct, frozen=True, kw_only=True):
    """What a key shall be. `expires_at` None is never; `endpoints` None is all of them."""

    team: str
    role: str = "developer"
    name: str = ""
    endpoints: frozenset[str] | None = None
    expires_at: float | None = None
    limits: Limits = Limits()


class CreatedKey(Struct, frozen=True, kw_only=True):
    """A new key and its text, which is kept nowhere: it is shown this once."""

    row: ApiKeyRow
    key: Secret


class Keyring:
    """
    Args:
        pepper: Of the MACs; from the keys folder, never from the store.
    """

    def __init__(
        self, pepper: bytes, *, clock: Clock, random_bytes: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._pepper = pepper
        self._clock = clock
        self._random = random_bytes
        self._rows: dict[str, ApiKeyRow] = {}

    def make(self, new: NewKey) -> CreatedKey:
        """A key that nobody knows yet: it opens nothing before `follow`."""
        key_id = apikey.encode(self._random(apikey.ID_BYTES))
        secret = apikey.encode(self._random(apikey.SECRET_BYTES))
        row = self._row(new, apikey.ParsedKey(key_id, secret))
        return CreatedKey(row=row, key=Secret(apikey.make(key_id, secret)))

    def carry(self, new: NewKey, token_sha256: str) -> ApiKeyRow:
        """
        A key that another gateway gave out, and whose owner goes on using it.

        Raises:
            InvalidRequest: Not a SHA-256, or a role beyond developer: its text was made and kept elsewhere.
        """
        parsed = apikey.carried(token_sha256)
        if parsed is None:
            raise InvalidRequest(
                "token_sha256: 64 lower-case hex digits, the SHA-256 of the whole key", param="token_sha256"
            )
        if new.role != "developer":
            raise InvalidRequest(
                "role: a key carried over is a developer's; create others here", param="role"
            )
        return self._row(new, parsed)

    def _row(self, new: NewKey, key: apikey.ParsedKey) -> ApiKeyRow:
        return ApiKeyRow(
            id=key.id,
            team=new.team,
            role=new.role,
            mac=apikey.mac(self._pepper, key.id, key.secret),
            created_at=self._clock.now(),
            endpoints=new.endpoints,
            expires_at=new.expires_at,
            name=new.name,
            limits=new.limits,
        )

    def replace(self, rows: Iterable[ApiKeyRow]) -> None:
        """Know these keys and no others."""
        self._rows = {row.id: row for row in rows}

    def follow(self, rows: Iterable[ApiKeyRow]) -> None:
        """Take over what the store says of these keys."""
        now = self._clock.now()
        for row in rows:
            if row.is_active(now):
                self._rows[row.id] = row
            else:
                self._rows.pop(row.id, None)

    def entries(self) -> dict[str, KeyEntry]:
        """The valid keys as workers know them: for the snapshot."""
        now = self._clock.now()
        return {
            row.id: KeyEntry(
                id=row.id,
                team=row.team,
                role=row.role,
                mac=row.mac,
                endpoints=row.endpoints,
                expires_at=row.expires_at,
                limits=row.limits,
            )
            for row in self._rows.values()
            if row.is_active(now)
        }

    def authenticate(self, token: str) -> Principal:
        """
        Say who presents this key.

        Raises:
            InvalidApiKey: Not a key, or an unknown, revoked or expired one.
        """
        parsed = apikey.parse(token)
        row = self._rows.get(parsed.id) if parsed else None
        if parsed is None or row is None:
            raise InvalidApiKey(_UNKNOWN)
        if not hmac.compare_digest(apikey.mac(self._pepper, parsed.id, parsed.secret), row.mac):
            raise InvalidApiKey(_UNKNOWN)
        if not row.is_active(self._clock.now()):
            raise InvalidApiKey("the API key has expired; ask for a new one, or rotate it before it ends")
        return Principal(row.id, row.team, row.role, row.endpoints, row.expires_at, row.name)
