"""
What a request's head says of its caller, read once while a connection repeats the head.

A new snapshot, in which a key may be gone, has it read anew; a key's end is looked at each time.
"""

from pilothouse.domain.principal import Principal
from pilothouse.gateway.authenticate import Authenticator, check_expiry
from pilothouse.gateway.keep import Keeper
from pilothouse.kit.http1.message import Request


class Caller:
    """Who asks, for whom, and how urgently. True for one generation of the authenticator."""

    __slots__ = ("generation", "principal", "priority", "subject_hash")

    def __init__(
        self, principal: Principal, generation: int, subject_hash: str, priority: bytes | None
    ) -> None:
        self.principal, self.generation = principal, generation
        self.subject_hash = subject_hash
        """Empty where the head names nobody."""
        self.priority = priority
        """As it was asked for; nobody checked it."""


def caller_of(request: Request, authenticator: Authenticator, keeper: Keeper) -> Caller:
    """
    Raises:
        PilothouseError: As `Authenticator.authenticate`.
    """
    notes, generation = request.notes, authenticator.generation
    known = notes.caller
    if isinstance(known, Caller) and known.generation == generation:
        check_expiry(known.principal)
        return known
    headers = request.headers
    principal = authenticator.authenticate(headers)
    subject = headers.get(b"x-pilothouse-subject")
    hashed = keeper.subject_hash(principal.team, subject) if subject else ""
    caller = Caller(principal, generation, hashed, headers.get(b"x-pilothouse-priority"))
    notes.caller = caller
    return caller
