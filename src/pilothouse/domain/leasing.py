"""
What a worker and the pools say to each other: how much was granted, spent and given back.

Both sides of a lease are elsewhere: the worker's in `domain.ledger`, the pools in `domain.pools`.
"""

from typing import Literal

from msgspec import Struct

Kind = Literal["rpm", "tpm", "parallel", "budget"]


class AccountState(Struct, frozen=True):
    """What a worker says of an account. The sums only grow, so that a message may be lost or repeated."""

    id: str
    kind: Kind
    limit: int
    granted: int
    """Units that it was given, as far as it knows."""
    spent: int
    returned: int
    need: int = 0
    """Units that it could not do without now."""
    is_last: bool = False
    """It holds nothing, and would forget the account: nobody asked for it for long."""
    unused: int = 0
    """Units that it holds and that no request has reserved."""


class Grant(Struct, frozen=True):
    """What the pools say: `granted` in all to this worker, and what is left there for anybody."""

    id: str
    granted: int
    left: int
    elsewhere: int = 0
    """Of a rate: what other workers hold unused. A caller may get it, though not from this worker now."""
    is_forgotten: bool = False
    """The pools know nothing of this worker's account any more, and it may forget it too."""


class LedgerAsk(Struct, frozen=True, kw_only=True):
    """A worker's word. With another `epoch` than the pools' it changes nothing: the worker claims first."""

    worker: str
    epoch: str
    life: int
    """Counts the claims of this worker; records carry it, so that each is settled against the right lease."""
    is_claim: bool = False
    """`states` are all that it holds from before, as if it had been given that just now."""
    stood_alone: bool = False
    """Before a claim: it spent more than it was given while the pools were lost."""
    states: tuple[AccountState, ...] = ()


class LedgerAnswer(Struct, frozen=True, kw_only=True):
    epoch: str
    grants: tuple[Grant, ...] = ()
    is_closed: bool = False
    """What grants to these pools is out of reach: a refusal is nobody's fault but its."""
