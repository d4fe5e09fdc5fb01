"""
The ledger of one worker: reserve an upper bound first, settle by what was used.

An account holds the units of one limit that this worker may spend: a lease from
the pools that all workers share (`domain.pools`). Reserving takes from all
accounts of a request or from none; settling gives back what was not used, exactly
once. Nothing here waits, and the time is an argument: a monotonic one.
"""

from collections.abc import Iterable
from typing import Final

from pilothouse.domain.leasing import AccountState, Grant, Kind

MINUTE_S: Final = 60.0
IDLE_TICKS: Final = 2
"""So many looks without a request, and what an account holds is given back."""
FORGET_TICKS: Final = 120
"""So many, and it is forgotten: a worker meets more people than it has room for."""
ASK_AGAIN_S: dict[Kind, float] = {"rpm": 1.0, "tpm": 1.0, "budget": 1.0, "parallel": 0.02}
"""After that time other workers may have given something back to a pool that had nothing."""


class Account:
    """The units of one limit that this worker may spend. `available` is the rest of it."""

    __slots__ = (
        "answered_at",
        "at",
        "available",
        "elsewhere",
        "forgets",
        "granted",
        "id",
        "idle",
        "is_asked",
        "kind",
        "left",
        "limit",
        "low",
        "most",
        "need",
        "rate",
        "reserved",
        "returned",
        "said",
        "scope",
    )

    def __init__(self, account_id: str, kind: Kind, limit: int, scope: str) -> None:
        self.id, self.kind, self.limit, self.scope = account_id, kind, limit, scope
        self.available = 0.0
        self.reserved = 0
        self.rate = 0.0
        """Units that come back here each second, while the pools are lost; else 0."""
        self.most = 0
        """As many may lie here while they come back here."""
        self.at = 0.0
        self.granted = 0
        self.returned = 0
        self.said = 0
        """Units that the pools know to be gone from here."""
        self.left: int | None = None
        """What the pools said they have; None before they said anything."""
        self.elsewhere = 0
        """What other workers held unused when the pools answered."""
        self.answered_at = 0.0
        self.low = -1.0
        """Below it more is asked for, before it runs dry."""
        self.need = 0
        self.idle = 0
        self.forgets = False
        """Nobody asked for it for long."""
        self.is_asked = False

    @property
    def is_rate(self) -> bool:
        return self.kind in ("rpm", "tpm")

    def stand_alone(self, share: int, now: float) -> None:
        """The pools are lost: from now on so much of the limit is this worker's own."""
        # What came back since the pools were last heard of came back here: nobody else could take it there.
        self.low, self.at = -1.0, self.answered_at or now
        if self.is_rate:
            self.most, self.rate = share, share / MINUTE_S
        else:
            self.available += max(0, share - int(self.available) - self.reserved)

    def refill(self, now: float) -> None:
        """A clock that stands or goes back adds nothing."""
        elapsed, self.at = now - self.at, now
        most = self.most - self.reserved
        if elapsed > 0 and self.available < most:
            self.available = min(most, self.available + elapsed * self.rate)

    def expected_left(self, now: float) -> float:
        """What the pools should have by now, where they refill by time."""
        if self.left is None:
            return self.limit
        if not self.is_rate:
            return self.left
        return min(self.limit, self.left + max(0.0, now - self.answered_at) * self.limit / MINUTE_S)

    def remaining(self, now: float) -> int:
        """What a caller may still expect to get of a rate: here, in the pools, and of other workers."""
        here = self.available
        if not self.rate:
            if self.left is None:
                return self.limit
            here += self.left + self.elsewhere + (now - self.answered_at) * self.limit / MINUTE_S
        return self.limit if here > self.limit else int(here) if here > 0 else 0

    # with the pools

    def state(self) -> AccountState:
        held = int(self.available) + self.reserved
        spent = max(0, self.granted - self.returned - held)
        is_last = self.forgets and self.is_empty
        return AccountState(
            self.id, self.kind, self.limit, self.granted, spent, self.returned, self.need, is_last,
            unused=max(0, int(self.available)),
        )  # fmt: skip

    @property
    def gone(self) -> int:
        """Units that it was given and has no more: spent, or returned."""
        return self.granted - int(self.available) - self.reserved

    @property
    def is_empty(self) -> bool:
        """Nothing is held, owed or asked for: who forgets it loses nothing."""
        return not (int(self.available) or self.reserved or self.need or self.rate)

    def take_in(self, grant: Grant, now: float) -> None:
        """An answer that was repeated gives nothing twice."""
        more = grant.granted - self.granted
        if more > 0:
            self.granted = grant.granted
            self.available += more
            self.low = float(more // 2)
        self.left, self.elsewhere, self.answered_at = grant.left, grant.elsewhere, now
        self.rate = 0.0
        self.need = 0
        self.is_asked = False

    def give_back(self) -> None:
        """Return what lies here unused. The pools hear of it with the next exchange."""
        unused = int(self.available)
        if unused > 0:
            self.available -= unused
            self.returned += unused
            self.low = -1.0

    def rebase(self) -> None:
        """For a controller that knows nothing: what is held becomes the whole lease."""
        held = int(self.available)
        self.available = float(held)
        self.granted = max(0, held + self.reserved)
        self.returned = self.said = 0
        self.rate = 0.0
        self.left = None
        self.elsewhere = 0
        self.is_asked = False


class Plan:
    """The accounts that one caller's requests to one endpoint go through, looked up once."""

    __slots__ = ("begins", "costs", "ends", "requests", "slots", "tokens")

    def __init__(
        self, accounts: Iterable[Account], *, begins: float = 0.0, ends: float = float("inf")
    ) -> None:
        """`begins` and `ends`: the Unix seconds between which it holds, for the sake of budgets' periods."""
        every = tuple(accounts)
        self.requests = tuple([a for a in every if a.kind == "rpm"])
        self.slots = tuple([a for a in every if a.kind == "parallel"])
        self.tokens = tuple([a for a in every if a.kind == "tpm"])
        self.costs = tuple([a for a in every if a.kind == "budget"])
        self.begins, self.ends = begins, ends

    @property
    def accounts(self) -> tuple[Account, ...]:
        return (*self.slots, *self.requests, *self.tokens, *self.costs)


class Reservation:
    """What is held for one request, until it is settled."""

    __slots__ = ("cost", "expires", "plan", "tokens")

    def __init__(self, plan: Plan, tokens: int, cost: int, expires: float) -> None:
        self.plan, self.tokens, self.cost, self.expires = plan, tokens, cost, expires


class Shortage:
    """Why nothing was reserved: this account lacks units."""

    __slots__ = ("account", "need")

    def __init__(self, account: Account, need: int) -> None:
        self.account, self.need = account, need

    def may_wait(self, now: float) -> bool:
        """Whether the pools may have what is missing here."""
        account = self.account
        if account.rate or self.is_hopeless:
            return False
        missing = self.need - max(0, account.available)
        is_old = now - account.answered_at >= ASK_AGAIN_S[account.kind]
        return is_old or account.expected_left(now) >= missing

    @property
    def is_hopeless(self) -> bool:
        """It asks for more than the limit allows at once, ever."""
        return self.need > self.account.limit

    def retry_after_s(self, now: float) -> float:
        """When a rate can have refilled; for the others nobody knows, and a second is a guess."""
        account = self.account
        if not account.is_rate:
            return 1.0
        here = account.available if account.rate else account.available + account.expected_left(now)
        rate = account.rate or account.limit / MINUTE_S
        return max(0.0, (min(self.need, account.limit) - here) / rate)


class Book:
    """All reservations of one worker."""

    def __init__(self) -> None:
        self._open: set[Reservation] = set()
        self.dry: set[Account] = set()
        """Accounts that need more from the pools."""
        self.asks: bool = False
        """Set when an account joined `dry`; whoever exchanges takes it down."""

    @property
    def open(self) -> int:
        return len(self._open)

    def reserve(
        self, plan: Plan, tokens: int, cost: int, *, now: float, expires: float
    ) -> Reservation | Shortage:
        """All or nothing: one request, its tokens and its cost, at all scopes at once."""
        for account in plan.slots:
            if account.available < 1:
                return Shortage(account, 1)
        for account in plan.requests:
            if account.rate:
                account.refill(now)
            if account.available < 1:
                return Shortage(account, 1)
        for account in plan.tokens:
            if account.rate:
                account.refill(now)
            if account.available < tokens:
                return Shortage(account, tokens)
        if cost:
            for account in plan.costs:
                if account.available < cost:
                    return Shortage(account, cost)
        for account in plan.slots:
            account.available -= 1
            account.reserved += 1
            account.idle = 0
            if account.available < account.low:
                self._ask(account)
        for account in plan.requests:
            account.available -= 1
            account.idle = 0
            if account.available < account.low:
                self._ask(account)
        for account in plan.tokens:
            account.available -= tokens
            account.reserved += tokens
            account.idle = 0
            if account.available < account.low:
                self._ask(account)
        for account in plan.costs:
            account.available -= cost
            account.reserved += cost
            account.idle = 0
            if account.available < account.low:
                self._ask(account)
        made = Reservation(plan, tokens, cost, expires)
        self._open.add(made)
        return made

    def settle(self, reservation: Reservation, tokens: int, cost: int) -> bool:
        """Put what was used in the place of what was reserved. A second call does nothing and says False."""
        if reservation not in self._open:
            return False
        self._open.remove(reservation)
        plan = reservation.plan
        for account in plan.slots:
            account.available += 1
            account.reserved -= 1
        bound = reservation.tokens
        for account in plan.tokens:
            account.available += bound - tokens
            account.reserved -= bound
        bound = reservation.cost
        for account in plan.costs:
            account.available += bound - cost
            account.reserved -= bound
        return True

    def expire(self, now: float) -> int:
        """Settle in full what nobody settled long after its deadline; how many there were."""
        late = [r for r in self._open if r.expires < now]
        for reservation in late:
            self.settle(reservation, reservation.tokens, reservation.cost)
        return len(late)

    def want(self, shortage: Shortage) -> None:
        """Ask the pools for what was missing."""
        account = shortage.account
        account.idle = 0
        account.need = max(account.need, shortage.need - int(account.available))
        self.dry.add(account)
        self.asks = True

    def _ask(self, account: Account) -> None:
        account.need = account.need or 1
        if not account.is_asked:
            account.is_asked = True
            self.dry.add(account)
            self.asks = True
