"""
Who is next: a queue that divides service between tenants.

Each tenant with requests waiting is served in turn, in proportion to its weight,
however many it has waiting. What a request took beyond the usual is charged to
its tenant afterwards, so that long requests get no more service than short ones.
Within a tenant, urgent requests go first. Requests of low priority wait until
nobody else does. Its owner bounds it: when it is full, the tenant with the most
waiting gives one up for a tenant that has fewer.

Source: stride scheduling, Waldspurger and Weihl (1995); charging what was really
served, Sheng et al., "Fairness in Serving Large Language Models" (2024).
"""

from collections import deque
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

Priority = Literal["high", "normal", "low"]
PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")

_Item = TypeVar("_Item")


class _Line(Generic[_Item]):
    """What one tenant has waiting, and how far its service has come."""

    __slots__ = ("at", "high", "normal", "weight")

    def __init__(self, at: float) -> None:
        self.at = at
        self.weight = 1.0
        self.high: deque[_Item] = deque()
        self.normal: deque[_Item] = deque()

    def __len__(self) -> int:
        return len(self.high) + len(self.normal)


class FairQueue(Generic[_Item]):
    """Items wait here, by tenant and priority."""

    def __init__(self) -> None:
        self._live: dict[str, _Line[_Item]] = {}
        self._low: dict[str, _Line[_Item]] = {}
        self._now = 0.0
        """Virtual time: how far the tenant that was served last had come."""
        self._left_at: dict[str, float] = {}
        """How far those had come who have nothing waiting now: coming back at once gains nothing."""
        self.size = 0
        """How many wait, of all."""

    def __len__(self) -> int:
        return self.size

    def tenants(self) -> list[str]:
        """Who has any waiting."""
        return list(dict.fromkeys([*self._live, *self._low]))

    def waiting(self, tenant: str) -> int:
        """How many a tenant has waiting, of any priority."""
        return sum(len(lines[tenant]) for lines in (self._live, self._low) if tenant in lines)

    def push(self, tenant: str, item: _Item, *, priority: Priority = "normal", weight: float = 1.0) -> None:
        """
        Args:
            weight: The tenant's share of the service from now on, relative to the others'; over 0.
        """
        lines = self._low if priority == "low" else self._live
        line = lines.get(tenant)
        if line is None:
            # Turns that were not used are not saved up either.
            line = lines[tenant] = _Line(max(self._now, self._left_at.pop(tenant, 0.0)))
        line.weight = weight
        (line.high if priority == "high" else line.normal).append(item)
        self.size += 1

    def pop(self, may_be: Callable[[str], bool] | None = None) -> _Item | None:
        """
        Take the next one out; None when nobody waits.

        Args:
            may_be: Which tenants may be next; None is all.
        """
        for lines in (self._live, self._low):
            tenants = lines if may_be is None else [name for name in lines if may_be(name)]
            if tenants:
                return self._first(lines, min(tenants, key=lambda name: lines[name].at))
        return None

    def _first(self, lines: dict[str, _Line[_Item]], tenant: str) -> _Item:
        line = lines[tenant]
        item = line.high.popleft() if line.high else line.normal.popleft()
        self._now = max(self._now, line.at)
        line.at += 1.0 / line.weight
        self._taken(lines, tenant)
        return item

    def charge(self, tenant: str, more: float, *, weight: float = 1.0) -> None:
        """
        A tenant's request took `more` times the usual beyond what `pop` charged; below 0 it took less.

        Only while somebody waits: alone, nobody is charged.
        """
        more /= weight
        line = self._live.get(tenant) or self._low.get(tenant)
        if line is not None:
            line.at += more
        elif tenant in self._left_at:
            self._left_at[tenant] += more

    def remove(self, tenant: str, item: _Item) -> bool:
        """Take out one that gave up; False when it is not here."""
        for lines in (self._live, self._low):
            line = lines.get(tenant)
            for queue in (line.high, line.normal) if line is not None else ():
                if item in queue:
                    queue.remove(item)
                    self._taken(lines, tenant)
                    return True
        return False

    def yield_to(self, tenant: str, priority: Priority, *, weight: float = 1.0) -> _Item | None:
        """
        Take out the one that has to go so that `tenant` can wait in a full queue; None: it has no right to.

        Those of low priority go first, for others; then the newest of the tenant
        that would still have as many waiting as the newcomer, each by its weight.
        """
        if priority != "low" and self._low:
            return self._newest(self._low, _greediest(self._low))
        lines = self._low if priority == "low" else self._live
        if not lines:
            return None
        greedy = _greediest(lines)
        mine = len(lines[tenant]) if tenant in lines else 0
        theirs = len(lines[greedy]) / lines[greedy].weight
        return self._newest(lines, greedy) if theirs > (mine + 1) / weight else None

    def drain(self, tenant: str | None = None) -> list[_Item]:
        """Take out all of one tenant, or all there are."""
        items: list[_Item] = []
        for lines in (self._live, self._low):
            for name in [tenant] if tenant is not None else list(lines):
                if name in lines:
                    line = lines[name]
                    found = [*line.high, *line.normal]
                    line.high.clear()
                    line.normal.clear()
                    items += found
                    self._taken(lines, name, len(found))
        return items

    def _newest(self, lines: dict[str, _Line[_Item]], tenant: str) -> _Item:
        line = lines[tenant]
        item = line.normal.pop() if line.normal else line.high.pop()
        self._taken(lines, tenant)
        return item

    def _taken(self, lines: dict[str, _Line[_Item]], tenant: str, count: int = 1) -> None:
        self.size -= count
        if not lines[tenant]:
            self._left_at[tenant] = lines.pop(tenant).at
        if not self.size:
            self._left_at.clear()
            self._now = 0.0


def _greediest(lines: dict[str, _Line[_Item]]) -> str:
    return max(lines, key=lambda name: len(lines[name]) / lines[name].weight)
