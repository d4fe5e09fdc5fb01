"""
What one house holds of limits that several houses share.

A house is one controller with its store and its workers. It says, as a whole and
not as a difference, what it has spent or may spend of each limit, and gets more.
So a statement that is lost, or whose answer is, costs nothing: the next one is
what counts. `AllottedPool` is a pool whose room is such an allotment.
"""

from collections.abc import Iterator

from msgspec import Struct

from pilothouse.domain.leasing import Kind
from pilothouse.domain.ledger import MINUTE_S
from pilothouse.domain.pools import Pool, Pools

BUDGET_SHARE = 20
"""While the treasury is lost, all houses together may spend a twentieth of a budget, by setting."""
IDLE_LOOKS = 2
"""So many looks without a grant, and what a house holds unused is given back."""
RESTATED_S = 20.0
"""What is held is said again so often: rates and slots of a house that is silent for a minute are others'."""


class Holding(Struct, frozen=True):
    """What a house says of one limit."""

    id: str
    kind: Kind
    limit: int
    held: int
    """Of a budget: spent in this period, or in the hands of its workers, or unused here. Of the others: in
    the hands of its workers, or unused."""
    returned: int
    """Of a rate: units that it gave back unused, since `life` began."""
    need: int = 0


class Statement(Struct, frozen=True, kw_only=True):
    """A house's word. With another `epoch` than the treasury's nothing is granted: it introduces itself."""

    house: str
    life: str
    """Of the controller that speaks; `number` grows within it, and what is overtaken does not count."""
    number: int
    epoch: str
    """The treasury's, as this life heard it. One that heard nothing yet takes the place of an earlier life;
    what an earlier one says after that does not count."""
    is_whole: bool = True
    """With this the house has said all that it holds or spent, to the treasury of this epoch."""
    holdings: tuple[Holding, ...] = ()


class Allotment(Struct, frozen=True):
    id: str
    held: int
    """What the house holds from now on."""
    left: int


class TreasuryAnswer(Struct, frozen=True, kw_only=True):
    epoch: str
    houses: int = 1
    """How many spoke in the last minute."""
    is_new: bool = False
    """It does not know yet what all houses hold, and waits until they have said it."""
    is_heard: bool = True
    """Otherwise another life of this house spoke meanwhile, or a later word of this one."""
    allotments: tuple[Allotment, ...] = ()


class AllottedPool(Pool):
    """
    One limit of one scope, as far as this house may use it.

    Of a rate `level` is what is allotted and in nobody's hands. Nothing comes back here by time: it comes
    back where all houses can take it.
    """

    def __init__(self, kind: Kind, limit: int, *, level: float, now: float) -> None:
        super().__init__(kind, limit, level=0.0 if kind in ("rpm", "tpm") else level, now=now)
        self.allotted = 0
        """Of a budget or of slots."""
        self.returned = 0
        self.wanted = 0
        self.low = 0
        """With less room than this more is asked for, before it is needed."""
        self.looks = 0
        self.said: int | None = None
        """What the treasury believes that this house holds."""
        self.said_at = 0.0
        self.treasury_left = 0
        self.alone_rate = 0.0
        """Units that come back here each second, while the treasury is lost."""
        self.alone_most = 0
        self.is_alone = False

    def refill(self, now: float) -> None:
        elapsed, self.at = now - self.at, now
        most = self.alone_most - self.outstanding
        if self.alone_rate and elapsed > 0 and self.level < most:
            self.level = min(most, self.level + elapsed * self.alone_rate)

    def room(self) -> int:
        if self.is_rate:
            return max(0, int(self.level + 1e-9))
        return max(0, self.allotted - self.settled - self.outstanding)

    @property
    def is_untouched(self) -> bool:
        """Nothing is here that the treasury would have to hear of."""
        spent = 0 if self.is_rate else self.settled
        return not self.held and not self.room() and not self.wanted and (self.said or 0) == spent

    def left(self) -> int:
        return self.room() + self.treasury_left

    def used(self) -> None:
        """Something was asked of it."""
        self.looks = 0
        if self.room() < self.low:
            self.wanted = max(self.wanted, 1)

    def holding(self, name: str) -> Holding:
        if self.is_rate:
            held = max(0, int(self.level)) + self.outstanding
        else:
            # More may be gone than was allotted: what was spent before there was a limit, or while alone.
            held = self.allotted = max(self.allotted, self.settled + self.outstanding)
        return Holding(name, self.kind, self.limit, held, self.returned, self.wanted)

    def take_in(self, told: Holding, answer: Allotment, now: float) -> None:
        """The answer to what was told. What happened since then stays as it is."""
        more = answer.held - told.held
        if self.is_rate:
            self.level += more
        else:
            self.allotted += more
        self.low = more // 2
        self.treasury_left = answer.left
        self.said, self.said_at = answer.held, now
        if self.wanted <= told.need:
            self.wanted = 0

    def give_back(self) -> None:
        unused = self.room()
        if self.is_rate:
            self.level -= unused
            self.returned += unused
        else:
            self.allotted -= unused
        self.low = 0

    def stand_alone(self, houses: int, now: float) -> None:
        """The treasury is lost: from now on this house's part of the limit is its own. Once for each loss."""
        if self.is_alone:
            return
        self.is_alone = True
        self.treasury_left = 0
        share = self.limit // houses
        if self.is_rate:
            self.refill(now)
            self.alone_rate, self.alone_most = share / MINUTE_S, share
        elif self.kind == "parallel":
            self.allotted = max(self.allotted, share)
        else:
            self.allotted += max(0, share // BUDGET_SHARE - self.room())

    def stand_together(self) -> None:
        self.alone_rate, self.alone_most, self.is_alone = 0.0, 0, False


class AllottedPools(Pools):
    """The pools of one house among several."""

    shape = AllottedPool

    @property
    def are_claimed(self) -> bool:
        """Whatever an earlier controller gave to workers, they have claimed, or it is in the store."""
        return self.is_complete and self.is_settled

    def allotted(self) -> Iterator[tuple[str, AllottedPool]]:
        """Those whose use so far is known, so that it can be told."""
        for name, pool in self.every():
            if self._may_grant(pool):
                yield name, pool

    def every(self) -> Iterator[tuple[str, AllottedPool]]:
        for name, pool in self.pools.items():
            if isinstance(pool, AllottedPool):
                yield name, pool
