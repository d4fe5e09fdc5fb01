"""
Places of one replica: taken one by one, given back one by one.

Engines with slots are told which to use. A slot's prefix cache may hold the
prompt of whoever used it last, so it is reused only for the same team: that is
how no prefix cache crosses tenants. A slot is held by one worker alone (leases).
"""

from typing import Final

from msgspec.structs import replace

from pilothouse.domain.breaker import HEALTHY, Health
from pilothouse.domain.routing import seed_of
from pilothouse.domain.snapshot import ReplicaEntry
from pilothouse.ports.engine import Engine, Placement

_ANYWHERE: Final = Placement()


class Place:
    """A place that is held. Give it back with `Places.release`."""

    __slots__ = ("engine", "is_used", "placement", "prefix", "replica", "since", "team", "weight")

    def __init__(
        self, replica: "ReplicaPlaces", engine: Engine, placement: Placement, team: str, prefix: int
    ) -> None:
        self.replica = replica
        self.engine = engine
        self.placement = placement
        self.team = team
        self.prefix = prefix
        self.since = 0.0
        """When it was given to one who had waited (monotonic); 0: nobody had to."""
        self.weight = 1.0
        """The share of that one's team."""
        self.is_used = False
        """The engine answered here: before that, the slot may still hold the prompt of another team."""

    def swap(self, other: "Place") -> None:
        """Each stands for the other's place from now on."""
        for name in self.__slots__:
            mine = getattr(self, name)
            setattr(self, name, getattr(other, name))
            setattr(other, name, mine)


class ReplicaPlaces:
    """The free places of one replica, and what is remembered of it. A `domain.routing.Candidate`."""

    __slots__ = (
        "_held",
        "_is_leaving",
        "_owners",
        "_prefixes",
        "engine",
        "entry",
        "free",
        "free_slots",
        "has_slots",
        "health",
        "inflight",
        "load",
        "name",
        "seed",
    )

    def __init__(self, entry: ReplicaEntry, engine: Engine) -> None:
        self.entry = entry
        self.name = entry.name
        self.engine = engine
        self.has_slots = engine.info.slots
        self.seed = seed_of(entry.name)
        self.health: Health = HEALTHY
        self.free_slots = list(entry.slots)
        self.free = len(self.free_slots) if self.has_slots else entry.max_inflight
        self._held: set[int] = set()
        self._owners: dict[int, str] = {}
        """Whose prompt a free slot holds, where that is certain."""
        self._prefixes: dict[int, int] = {}
        """Which prefix of its owner's a slot holds, where requests go by prefix."""
        self.inflight = 0
        self.load = 0
        """What the choice goes by: the requests of this worker, for it knows of no others."""
        self._is_leaving = False

    def take(self, team: str, prefix: int = 0) -> Place:
        """Take a place; there must be a free one. The least recently used slot of another team goes first."""
        self.inflight += 1
        self.load += 1
        self.free -= 1
        if not self.has_slots:
            return Place(self, self.engine, _ANYWHERE, team, prefix)
        owners = self._owners
        slot = self.free_slots.pop(self._best(team, prefix))
        reuse = owners.pop(slot, None) == team
        self._held.add(slot)
        return Place(self, self.engine, Placement(slot, reuse), team, prefix)

    def _best(self, team: str, prefix: int) -> int:
        """Where among the free slots the one is that holds most of this prompt already."""
        owners, prefixes = self._owners, self._prefixes
        for at, slot in enumerate(self.free_slots):
            if owners.get(slot) == team and (not prefix or prefixes.get(slot) == prefix):
                return at
        return 0

    def give_back(self, place: Place) -> None:
        self.inflight -= 1
        self.load -= 1
        slot = place.placement.slot
        if slot is None:
            self.free += 1
            return
        self._held.discard(slot)
        if slot in self.entry.slots:
            self.free += 1
            self.free_slots.append(slot)
            if place.is_used:
                self._owners[slot] = place.team
                self._prefixes[slot] = place.prefix

    def change(self, entry: ReplicaEntry) -> None:
        """Take over new leases; slots in use come back through `give_back`."""
        if self._is_leaving:  # what was given up may be another's by now
            entry = replace(entry, slots=tuple(s for s in entry.slots if s in self.entry.slots))
        self.entry = entry
        # A slot that was leased away may hold anyone's prompt when it returns.
        self._owners = {slot: team for slot, team in self._owners.items() if slot in entry.slots}
        known = [slot for slot in self.free_slots if slot in entry.slots]
        self.free_slots = known + [s for s in entry.slots if s not in known and s not in self._held]
        self.free = len(self.free_slots) if self.has_slots else entry.max_inflight - self.inflight

    def give_up_free(self) -> None:
        """Never use again what is free now: a successor may. From now on leases only become fewer."""
        self._is_leaving = True
        if self.has_slots:
            free = self.free_slots
            self.entry = replace(self.entry, slots=tuple(s for s in self.entry.slots if s not in free))
            self.free_slots = []
            self.free = 0
