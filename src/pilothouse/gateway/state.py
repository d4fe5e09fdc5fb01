"""
What a worker knows: the newest snapshot, and what is kept up for it.

Applying a snapshot swaps values; nothing waits, and requests in flight keep
what they hold.
"""

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from pilothouse.domain.errors import PilothouseError
from pilothouse.domain.snapshot import DeploymentEntry, EndpointEntry, ReplicaEntry, Snapshot
from pilothouse.gateway.authenticate import Authenticator
from pilothouse.gateway.permit import Places
from pilothouse.gateway.place import ReplicaPlaces
from pilothouse.gateway.route import EndpointRoutes
from pilothouse.ports.engine import Engine

Connect = Callable[[ReplicaEntry], Engine]


class Retire(Protocol):
    def __call__(self, engine: Engine) -> None:
        """Close an engine that no new request will use."""
        ...


class GatewayState:
    """Mutable on purpose: the one place where a new snapshot takes effect."""

    def __init__(
        self,
        authenticator: Authenticator,
        connect: Connect,
        retire: Retire,
        on_refused: Callable[[str, PilothouseError], None],
    ) -> None:
        self.authenticator = authenticator
        self.snapshot = Snapshot()
        self.has_snapshot = False
        self.applied_at = 0.0
        self.places: dict[str, Places] = {}
        self.endpoints: dict[str, EndpointEntry] = {}
        """By name and by every alias."""
        self.routes: dict[str, EndpointRoutes] = {}
        """As `endpoints`."""
        self.on_held: Callable[[], None] = lambda: None
        """Told when a request begins to wait for a deployment that sleeps: the controller must hear of it."""
        self.on_ejected: Callable[[str, str], None] = lambda _deployment, _replica: None
        """Told of a replica that failed too often and is left alone from now on."""
        self.low_priority = 0
        self.followers: list[Callable[[Snapshot], None]] = []
        """Told of each snapshot that takes effect."""
        self._connect = connect
        self._retire = retire
        self._on_refused = on_refused
        """Told of a replica that cannot be spoken to; the others are served."""

    def apply(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.has_snapshot = True
        self.applied_at = time.time()
        self.authenticator.use(snapshot)
        names = snapshot.deployments.keys() | snapshot.replicas.keys()
        for name in names:
            places = self.places.get(name)
            if places is None:
                places = self.places[name] = self._made(name)
            entry = snapshot.deployments.get(name) or DeploymentEntry(name=name, phase="pending")
            places.change(entry, self._replicas(places, snapshot.replicas.get(name, ())))
        for name in self.places.keys() - names:
            gone = self.places.pop(name)
            entry = DeploymentEntry(name=name, phase="failed", reason="it was removed")
            gone.change(entry, self._replicas(gone, ()))
        former = {routes.name: routes for routes in self.routes.values()}
        known = {
            name: EndpointRoutes(endpoint, self.places, former.get(name))
            for name, endpoint in snapshot.endpoints.items()
        }
        self.routes = {alias: routes for routes in known.values() for alias in routes.entry.aliases} | known
        self.endpoints = {name: routes.entry for name, routes in self.routes.items()}
        for follow in self.followers:
            follow(snapshot)

    def _made(self, deployment: str) -> Places:
        return Places(
            deployment,
            on_held=lambda: self.on_held(),  # noqa: PLW0108 - it is set later
            on_ejected=lambda replica: self.on_ejected(deployment, replica),
        )

    def _replicas(self, places: Places, entries: tuple[ReplicaEntry, ...]) -> dict[str, ReplicaPlaces]:
        known: Mapping[str, ReplicaPlaces] = places.replicas
        kept: dict[str, ReplicaPlaces] = {}
        for entry in entries:
            replica = known.get(entry.name)
            if replica is not None and _is_same(replica.entry, entry):
                replica.change(entry)
                kept[entry.name] = replica
                continue
            try:
                kept[entry.name] = ReplicaPlaces(entry, self._connect(entry))
            except PilothouseError as exc:
                self._on_refused(entry.name, exc)
        for name, replica in known.items():
            if kept.get(name) is not replica:
                self._retire(replica.engine)
        return kept

    @property
    def demand(self) -> dict[str, int]:
        """Requests so far by endpoint, whatever became of them."""
        return {routes.name: routes.demand for routes in self.routes.values()}

    @property
    def inflight(self) -> int:
        return sum(places.inflight for places in self.places.values())

    @property
    def inflight_by_replica(self) -> dict[str, int]:
        return {
            name: replica.inflight
            for places in self.places.values()
            for name, replica in places.replicas.items()
            if replica.inflight
        }

    @property
    def queued_by_deployment(self) -> dict[str, int]:
        return {name: places.queued for name, places in self.places.items() if places.queued}

    @property
    def queued(self) -> int:
        return sum(places.queued for places in self.places.values())

    def give_up_slots(self) -> None:
        """Before an end: let a successor have the slots that nothing here needs."""
        for places in self.places.values():
            places.give_up_free()

    def held_slots(self) -> dict[str, tuple[int, ...]]:
        """The slot leases this worker holds, by replica: for a controller that starts anew."""
        return {
            name: replica.entry.slots
            for places in self.places.values()
            for name, replica in places.replicas.items()
            if replica.entry.slots
        }


def _is_same(a: ReplicaEntry, b: ReplicaEntry) -> bool:
    return all(getattr(a, name) == getattr(b, name) for name in _CONNECTION)


_CONNECTION = (
    *("address", "engine", "model", "context_tokens"),
    *("token_file", "secret", "sealed", "allow_private"),
)
"""Fields that say how an engine is spoken to: when one changes, it is connected to anew."""
