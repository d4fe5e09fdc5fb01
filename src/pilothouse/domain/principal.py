"""Who asks: the result of authentication, and all that later stages know of the caller."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Principal:
    key_id: str
    team: str
    role: str
    endpoints: frozenset[str] | None
    expires_at: float | None
    name: str = ""
    """What people call the key; workers do not know it."""

    @property
    def author(self) -> str:
        """As what he declares stands in its history, where the key's id alone would say nothing to people."""
        return f"{self.name} ({self.key_id})" if self.name else f"{self.team} ({self.key_id})"
