"""Who asks: the result of authentication, and all that later stages know of the caller."""

from msgspec import Struct


class Principal(Struct, frozen=True):
    key_id: str
    team: str
    role: str
    endpoints: frozenset[str] | None
    expires_at: float | None
