"""
Who asks. No I/O: a key's shape and checksum, then a dict, then one MAC.

Without a snapshot nobody can be known, and the answer is 503, not 401: a client
must not throw its key away because the control plane is late.
"""

import hmac
import time

from pilothouse.domain import apikey
from pilothouse.domain.errors import EngineUnavailable, InvalidApiKey
from pilothouse.domain.principal import Principal
from pilothouse.domain.snapshot import Snapshot

_UNKNOWN = "the API key is missing or wrong; send it as: Authorization: Bearer ph_..."


class Authenticator:
    def __init__(self, pepper: bytes) -> None:
        self._pepper = pepper
        self._principals: dict[bytes, Principal] = {}
        """Verified headers of this snapshot, so that the MAC is computed once; replaced with it."""
        self._snapshot: Snapshot | None = None
        self.generation = 0
        """Of snapshots: what was found out with an earlier one is to be found out anew."""

    def use(self, snapshot: Snapshot) -> None:
        """From now on only this snapshot's keys are known."""
        self._snapshot = snapshot
        self._principals = {}
        self.generation += 1

    def authenticate(self, headers: dict[bytes, bytes]) -> Principal:
        """
        Raises:
            InvalidApiKey: No key, not a key, an unknown, revoked or expired one.
            EngineUnavailable: No snapshot has come yet.
        """
        if self._snapshot is None:
            raise EngineUnavailable("this worker is starting and knows no keys yet", retry_after_s=1.0)
        presented = headers.get(b"authorization") or headers.get(b"x-api-key")
        if presented is None:
            raise InvalidApiKey(_UNKNOWN)
        principal = self._principals.get(presented)
        if principal is None:
            principal = self._verify(presented, self._snapshot)
            if len(self._principals) >= 100_000:
                self._principals.clear()
            self._principals[presented] = principal
        check_expiry(principal)
        return principal

    def _verify(self, presented: bytes, snapshot: Snapshot) -> Principal:
        if len(presented) > 512:
            raise InvalidApiKey(_UNKNOWN)
        text = presented.decode("latin-1")
        scheme, _, token = text.partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else text
        if token.startswith("pb_"):
            return self._delegated(token, snapshot)
        parsed = apikey.parse(token)
        entry = snapshot.keys.get(parsed.id) if parsed is not None else None
        if parsed is None or entry is None:
            raise InvalidApiKey(_UNKNOWN)
        if not hmac.compare_digest(apikey.mac(self._pepper, parsed.id, parsed.secret), entry.mac):
            raise InvalidApiKey(_UNKNOWN)
        return Principal(entry.id, entry.team, entry.role, entry.endpoints, entry.expires_at)

    def _delegated(self, token: str, snapshot: Snapshot) -> Principal:
        """Who the control plane asks for (`apikey.delegate`), as long as that key is valid itself."""
        found = apikey.delegated(self._pepper, token)
        entry = snapshot.keys.get(found[0]) if found is not None else None
        if found is None or entry is None:
            raise InvalidApiKey(_UNKNOWN)
        until = min(found[1], entry.expires_at or found[1])
        return Principal(entry.id, entry.team, entry.role, entry.endpoints, until)


def check_expiry(principal: Principal) -> None:
    """
    Raises:
        InvalidApiKey: Its time is over.
    """
    if principal.expires_at is not None and time.time() >= principal.expires_at:
        raise InvalidApiKey("the API key has expired; ask for a new one, or rotate it before it ends")
