"""The treasury in one process: the fake of `ports.treasury.Treasury`, and its rules in Python."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field

from pilothouse.domain.allotment import Allotment, Holding, Statement, TreasuryAnswer
from pilothouse.domain.ledger import MINUTE_S


@dataclass
class _Held:
    units: int
    returned: int
    at: float
    life: str


@dataclass
class _Limit:
    level: float
    at: float
    held: dict[str, _Held] = field(default_factory=dict)


@dataclass
class _House:
    life: str
    number: int
    seen: float
    told: int
    """The epoch in which it has said all that it holds. What it said stays known through its lives."""
    vague: float
    """When it last spoke without knowing all that it holds."""


class MemoryTreasury:
    """
    Several houses may share one; `is_lost` makes it unreachable.

    Args:
        now: Seconds.
    """

    def __init__(self, now: Callable[[], float], *, grace_s: float = 5.0, silent_s: float = 60.0) -> None:
        self.is_lost = False
        self._now = now
        self._grace_s = grace_s
        self._silent_s = silent_s
        self._epochs = 0
        self.empty()

    def empty(self) -> None:
        """As if it were restarted without what it knew."""
        self._saved: dict[str, _Limit] = {}
        self.restart()

    def save(self) -> None:
        """As if it wrote to disk what it knows."""
        self._saved = deepcopy(self._limits)

    def restart(self) -> None:
        """With what it saved last: it cannot know how much came after that."""
        self._limits = deepcopy(self._saved)
        self._epochs += 1
        self._began = self._now()
        self._houses: dict[str, _House] = {}

    async def exchange(self, statement: Statement) -> TreasuryAnswer | None:
        return None if self.is_lost else self.hear(statement)

    async def aclose(self) -> None:
        """Nothing to close."""

    def hear(self, statement: Statement) -> TreasuryAnswer:
        now = self._now()
        if now < self._began:  # its clock went back
            self.save()
            self.restart()
        epoch = str(self._epochs)
        known = self._houses.get(statement.house)
        is_same_life = known is not None and known.life == statement.life
        is_introduction = not is_same_life or statement.epoch != epoch
        if known and (statement.number <= known.number if is_same_life else statement.epoch):
            return TreasuryAnswer(epoch=epoch, houses=self._count(now), is_new=True, is_heard=False)
        told, vague = (known.told, known.vague) if known else (0, float("-inf"))
        if not statement.is_whole:
            vague = now
        elif statement.epoch == epoch:
            told = self._epochs
        self._houses[statement.house] = _House(statement.life, statement.number, now, told, vague)
        is_new = now - self._began < self._grace_s or self._waits(now)
        allotments = [
            self._one(statement, one, now, is_introduction=is_introduction, is_new=is_new)
            for one in statement.holdings
        ]
        return TreasuryAnswer(
            epoch=epoch, houses=self._count(now), is_new=is_new, allotments=tuple(allotments)
        )

    def _count(self, now: float) -> int:
        return sum(now - one.seen < self._silent_s for one in self._houses.values())

    def _waits(self, now: float) -> bool:
        """A house that speaks has not said yet all that it holds."""
        return any(
            one.told != self._epochs and now - one.seen < self._silent_s for one in self._houses.values()
        )

    def _is_silent(self, house: str, held: _Held, now: float) -> bool:
        """It knows all that it holds, and did not say this again for a minute."""
        speaker = self._houses.get(house)
        return now - (max(held.at, speaker.vague) if speaker else held.at) > self._silent_s

    def _one(
        self, statement: Statement, told: Holding, now: float, *, is_introduction: bool, is_new: bool
    ) -> Allotment:
        is_rate = told.kind in ("rpm", "tpm")
        limit = self._limits.setdefault(told.id, _Limit(0.0, self._began))
        if limit.at < self._began:  # nobody knows what was used of it
            limit.level, limit.at = 0.0, self._began
        if told.kind != "budget":
            for name in [name for name, one in limit.held.items() if self._is_silent(name, one, now)]:
                del limit.held[name]
        mine = limit.held.get(statement.house)
        others = sum(one.units for name, one in limit.held.items() if name != statement.house)
        held = told.held
        if is_rate:
            most = told.limit - others - (mine.units if mine else 0)
            if now > limit.at and limit.level < most:
                limit.level = min(most, limit.level + (now - limit.at) * told.limit / MINUTE_S)
            if mine and mine.life == statement.life and not is_introduction:
                limit.level += max(0, told.returned - mine.returned)
            limit.level, limit.at = min(limit.level, max(0, told.limit - others - held)), now
            room = int(limit.level + 1e-9)
        else:
            room = max(0, told.limit - others - held)
        if 0 < told.need <= room and not is_introduction and not is_new:
            houses = self._count(now)
            share = room if houses <= 1 else room // (2 * houses)
            given = min(room, max(told.need, share))
            held, room = held + given, room - given
            if is_rate:
                limit.level -= given
        limit.held[statement.house] = _Held(held, told.returned, now, statement.life)
        return Allotment(told.id, held, room)
