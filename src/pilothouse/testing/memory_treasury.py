"""The treasury in one process: the fake of `ports.treasury.Treasury`, and its rules in Python."""

from collections.abc import Callable
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
        self._epochs += 1
        self._began = self._now()
        self._limits: dict[str, _Limit] = {}
        self._houses: dict[str, _House] = {}

    async def exchange(self, statement: Statement) -> TreasuryAnswer | None:
        return None if self.is_lost else self.hear(statement)

    async def aclose(self) -> None:
        """Nothing to close."""

    def hear(self, statement: Statement) -> TreasuryAnswer:
        now, epoch = self._now(), str(self._epochs)
        known = self._houses.get(statement.house)
        is_same_life = known is not None and known.life == statement.life
        is_overtaken = known is not None and is_same_life and statement.number <= known.number
        is_introduction = statement.epoch != epoch or not is_same_life
        allotments: list[Allotment] = []
        if not is_overtaken:
            self._houses[statement.house] = _House(statement.life, statement.number, now)
        houses = sum(now - one.seen < self._silent_s for one in self._houses.values())
        if not is_overtaken:
            allotments = [
                self._one(statement, one, now, houses, is_introduction=is_introduction)
                for one in statement.holdings
            ]
        return TreasuryAnswer(
            epoch=epoch,
            houses=houses,
            is_new=now - self._began < self._grace_s,
            allotments=tuple(allotments),
        )

    def _one(
        self, statement: Statement, told: Holding, now: float, houses: int, *, is_introduction: bool
    ) -> Allotment:
        is_rate = told.kind in ("rpm", "tpm")
        age = now - self._began
        limit = self._limits.get(told.id)
        if limit is None:
            level = min(told.limit, max(0.0, age) * told.limit / MINUTE_S)
            limit = self._limits[told.id] = _Limit(level, now)
        if told.kind != "budget":
            silent = [name for name, one in limit.held.items() if now - one.at > self._silent_s]
            for name in silent:
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
        may_grant = not is_introduction and (is_rate or age >= self._grace_s)
        if 0 < told.need <= room and may_grant:
            share = room if houses <= 1 else room // (2 * houses)
            given = min(room, max(told.need, share))
            held, room = held + given, room - given
            if is_rate:
                limit.level -= given
        limit.held[statement.house] = _Held(held, told.returned, now, statement.life)
        return Allotment(told.id, held, room)
