"""
Who uses the system: teams and their API keys, as they are kept.

A key row holds a MAC and never the secret. Authentication is the gateway's; the
shape that a worker knows is `domain.snapshot.KeyEntry`.
"""

from msgspec import Struct

from pilothouse.domain.limits import Limits


class Team(Struct, frozen=True, kw_only=True):
    """The tenant: every row, key and record belongs to one."""

    name: str
    created_at: float
    limits: Limits = Limits()
    per_subject: Limits = Limits()
    """For each person whom its requests are about."""


class ApiKeyRow(Struct, frozen=True, kw_only=True):
    """An API key at rest. Times are Unix seconds."""

    id: str
    team: str
    role: str
    mac: bytes
    created_at: float
    endpoints: frozenset[str] | None = None
    """Endpoints it may call; None is all of them."""
    expires_at: float | None = None
    revoked_at: float | None = None
    name: str = ""
    """What people call it."""
    limits: Limits = Limits()

    def is_active(self, now: float) -> bool:
        """Whether it opens anything at `now`."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)
