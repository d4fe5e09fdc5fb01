"""
The control plane put together: which concrete class stands behind each port.

Nothing runs here; `app.controller` says when. What takes long to import (the
admin API) is not named here.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import psutil
from msgspec.structs import replace

from pilothouse import __version__
from pilothouse.adapters.feeds.unix_publisher import UnixPublisher
from pilothouse.adapters.keys.file import FileKeys
from pilothouse.adapters.targets.local import LocalTarget
from pilothouse.app.batching import Batching, build_batching
from pilothouse.app.credentials import Credentials
from pilothouse.app.engines import engine_drivers, option_types
from pilothouse.app.home import server_url
from pilothouse.app.ledger_parts import build_ledger
from pilothouse.app.model_tools import build_models
from pilothouse.app.prices import prices_of
from pilothouse.app.releases import Releases, build_releases
from pilothouse.app.stores import holder_of, open_store, place_of
from pilothouse.config import Settings
from pilothouse.control.adminkey import AdminKeyFile
from pilothouse.control.declarations import Declarations
from pilothouse.control.drain import Drain
from pilothouse.control.fence import Fence, FencedStore
from pilothouse.control.fitting import Fitting
from pilothouse.control.fleet import Fleet
from pilothouse.control.happenings import Happenings
from pilothouse.control.keyring import Keyring
from pilothouse.control.leadership import Leadership
from pilothouse.control.lease import SlotLeases
from pilothouse.control.ledger import LedgerDesk
from pilothouse.control.overview import Overview
from pilothouse.control.processes import private_bytes
from pilothouse.control.publish import Publishing
from pilothouse.control.purges import Purges
from pilothouse.control.recent_errors import RecentErrors
from pilothouse.control.reconcile import Reconciler
from pilothouse.control.registry import Registry
from pilothouse.control.seals import Seals
from pilothouse.control.secrets import Secrets
from pilothouse.control.status import StoreFigures
from pilothouse.control.store_thread import StoreThread
from pilothouse.control.tenants import Tenants
from pilothouse.control.totals import WorkerTotals
from pilothouse.control.vitals import VitalSigns
from pilothouse.control.world import World
from pilothouse.domain.errors import StoreUnavailable
from pilothouse.domain.model import ModelVersion
from pilothouse.domain.provider_secret import users_of
from pilothouse.domain.snapshot import TeamEntry
from pilothouse.govern.retain import Retention
from pilothouse.kit.clock import Clock, SystemClock
from pilothouse.kit.ids import new_id
from pilothouse.kit.journal.reader import JournalReader
from pilothouse.kit.log import Log
from pilothouse.ports.engine import EngineDriver, Machine
from pilothouse.ports.feed import Publisher
from pilothouse.ports.keys import Keys
from pilothouse.ports.target import Target

STORE_LOST = "the store is out of reach: requests are served, and their records wait in the journal"
"""Readiness is open to everyone, so it does not say where the store is."""


@dataclass(kw_only=True)
class Backlog:
    """Of the journal."""

    records: int = 0
    """What the last pass of the drain left behind."""
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    """Somebody waits for what it holds: the next pass comes soon."""


@dataclass(frozen=True, kw_only=True)
class Loop:
    """The control loop and what it speaks to."""

    targets: dict[str, Target]
    drivers: Mapping[str, EngineDriver]
    totals: WorkerTotals
    fleet: Fleet
    publisher: Publisher
    publishing: Publishing
    registry: Registry
    happenings: Happenings
    reconciler: Reconciler
    secrets: Secrets


@dataclass(frozen=True, kw_only=True)
class Parts:
    """All that the controller's process works with."""

    settings: Settings
    clock: Clock
    log: Log
    store: StoreThread
    leadership: Leadership
    loop: Loop
    declarations: Declarations
    keyring: Keyring
    tenants: Tenants
    purges: Purges
    vitals: VitalSigns
    overview: Overview
    seals: Seals
    releases: Releases
    drain: Drain
    ledger: LedgerDesk
    batching: Batching
    retention: Retention
    backlog: Backlog


class NotingLog(Log):
    """Failures are remembered too, for `pilothouse status`."""

    def __init__(self, errors: RecentErrors) -> None:
        super().__init__("controller")
        self._errors = errors

    def failure(self, name: str, error: BaseException, /, **fields: object) -> None:
        self._errors.note(name, error)
        super().failure(name, error, **fields)


def build_parts(settings: Settings) -> Parts:
    """
    Everything but the admin API, unopened: nothing runs and the store is not read yet.

    Raises:
        OperationFailed: A folder or a key cannot be used; the message says the fix.
    """
    clock = SystemClock()
    errors = RecentErrors(clock)
    log = NotingLog(errors)
    keys = FileKeys(settings.keys_path)
    fence = Fence()
    store = StoreThread(
        lambda: FencedStore(open_store(settings), fence),
        changed=lambda problem: tell_store(problem, log, loop.publishing),
    )
    keyring = Keyring(keys.pepper(), clock=clock)
    loop = build_loop(
        settings, store, keys, keyring=keyring, clock=clock, log=log, teams=lambda: dict(tenants.limited)
    )
    tenants = build_tenants(settings, store, keyring, clock, loop.publishing.keys_changed, log)
    backlog = Backlog()
    vitals = build_vitals(settings, clock, errors, backlog, store)
    seals = Seals(keys)
    declarations = build_declarations(store, loop, clock, workers=settings.workers)
    releases = build_releases(
        store,
        loop.reconciler,
        declarations,
        seals,
        loop.totals,
        subject_key=keys.subject_key(),
        happened=loop.happenings.note,
        log=log,
    )
    loop.publishing.release_by(releases.rollouts.shares, releases.rollouts.shadow)
    return Parts(
        settings=settings,
        clock=clock,
        log=log,
        store=store,
        leadership=Leadership(store, fence, holder=holder_of(settings), clock=clock),
        loop=loop,
        declarations=declarations,
        keyring=keyring,
        tenants=tenants,
        purges=Purges(store, changed=loop.publishing.purged),
        vitals=vitals,
        overview=build_overview(loop, vitals, releases),
        seals=seals,
        releases=releases,
        drain=Drain(open_journal(settings, keys), seals, watch=releases.evidence.take),
        ledger=build_ledger(settings, store, clock, loop.publishing, log),
        batching=build_batching(
            settings, store, seals, loop.publishing, keys=keys, fleet=loop.fleet, log=log
        ),
        retention=Retention(),
        backlog=backlog,
    )


def build_vitals(
    settings: Settings, clock: Clock, errors: RecentErrors, backlog: Backlog, store: StoreThread
) -> VitalSigns:
    return VitalSigns(
        settings.home_path,
        clock,
        version=__version__,
        url=server_url(settings.state_file),
        errors=errors,
        lag=lambda: backlog.records,
        store=lambda: store_figures(settings, store.problem),
    )


def build_tenants(
    settings: Settings,
    store: StoreThread,
    keyring: Keyring,
    clock: Clock,
    changed: Callable[[], None],
    log: Log,
) -> Tenants:
    return Tenants(
        store,
        keyring,
        clock=clock,
        changed=changed,
        admin_file=AdminKeyFile(settings.admin_key_file),
        log=log,
    )


def build_declarations(store: StoreThread, loop: Loop, clock: Clock, *, workers: int) -> Declarations:
    def versions() -> tuple[ModelVersion, ...]:
        return loop.reconciler.stock.versions

    def machine() -> Machine:
        """With what our replicas hold: who replaces them may have it."""
        held = sum(private_bytes(one.pid) for one in loop.reconciler.status.replicas if one.pid)
        measured = measure_machine(workers)
        return replace(measured, memory_available_bytes=measured.memory_available_bytes + held)

    declarations = Declarations(
        store,
        clock,
        engines=option_types(loop.drivers),
        targets=tuple(loop.targets),
        declared=loop.reconciler.declare,
        versions=versions,
        fit=Fitting(loop.drivers, machine=machine, versions=versions).fit,
        happened=loop.happenings.note,
    )
    declarations.secrets = lambda: loop.secrets.sealed
    return declarations


def build_overview(loop: Loop, vitals: VitalSigns, releases: Releases) -> Overview:
    return Overview(
        loop.publisher,
        loop.totals,
        vitals,
        system=lambda: loop.reconciler.status,
        releases=releases.figures,
    )


def open_journal(settings: Settings, keys: FileKeys) -> JournalReader:
    return JournalReader(
        settings.journal_path, unwrap=lambda wrapped: keys.unwrap(wrapped, context=b"journal")
    )


def tell_store(problem: str, log: Log, publishing: Publishing) -> None:
    """Once when the store is lost, and once when it is back; workers say so in their readiness."""
    if problem:
        log.failure("store_lost", StoreUnavailable(problem))
    else:
        log.event("store_back")
    publishing.warn("store", STORE_LOST if problem else "")


def store_figures(settings: Settings, problem: str) -> StoreFigures:
    kind: Literal["sqlite", "postgresql"] = "sqlite" if settings.is_sqlite else "postgresql"
    return StoreFigures(kind=kind, place=place_of(settings), problem=problem)


def build_loop(
    settings: Settings,
    store: StoreThread,
    keys: Keys,
    *,
    keyring: Keyring,
    clock: Clock,
    log: Log,
    teams: Callable[[], dict[str, TeamEntry]],
) -> Loop:
    """The control loop, with nothing declared yet."""
    drivers = engine_drivers()
    logs = settings.home_path / "logs" / "replicas"
    targets: dict[str, Target] = {"local": LocalTarget(settings.run_path / "replicas", logs)}
    totals = _totals(settings, log)
    fleet = Fleet(totals)
    leases = SlotLeases(settings.workers, clock)
    publisher = UnixPublisher(settings.feed_socket)
    publishing = Publishing(
        publisher,
        leases,
        fleet,
        keys=keyring.entries,
        teams=teams,
        prices=prices_of(settings),
        epoch=new_id(),
        # In milliseconds: no earlier controller published more often than once in each.
        first_revision=int(clock.now() * 1000),
    )
    registry = build_registry(settings, clock, store, lambda: reconciler)
    happenings = Happenings(clock, revision=lambda: reconciler.declared.revision)
    credentials = Credentials(keys)
    world = World(
        targets=targets,
        drivers=drivers,
        shelf=registry,
        machine=lambda: measure_machine(settings.workers),
        clock=clock,
        log=log,
        secret=lambda name, replica: credentials.of(
            name, secrets.sealed.get(name), replica.address, replica.token_file
        ),
        happened=happenings.note,
    )
    reconciler = Reconciler(world, fleet, publishing, leases)
    secrets = build_secrets(store, keys, clock, publishing, reconciler, happenings)
    return Loop(
        targets=targets,
        drivers=drivers,
        totals=totals,
        fleet=fleet,
        publisher=publisher,
        publishing=publishing,
        registry=registry,
        happenings=happenings,
        reconciler=reconciler,
        secrets=secrets,
    )


def build_registry(
    settings: Settings, clock: Clock, store: StoreThread, reconciler: Callable[[], Reconciler]
) -> Registry:
    return Registry(
        build_models(settings, clock),
        store,
        declared=lambda: reconciler().declared.spec,
        arrived=lambda model: reconciler().have_models([model]),
        in_use=lambda: frozenset(replica.model_digest for replica in reconciler().status.replicas),
        gone=lambda models: reconciler().stock.drop(list(models)),
    )


def build_secrets(
    store: StoreThread,
    keys: Keys,
    clock: Clock,
    publishing: Publishing,
    reconciler: Reconciler,
    happenings: Happenings,
) -> Secrets:
    """Of providers; workers and probes are told of each change."""

    def changed(name: str) -> None:
        publishing.secrets_changed()
        reconciler.observer.reconnect(users_of(name, reconciler.declared.spec))

    secrets = Secrets(
        store,
        keys,
        clock=clock,
        declared=lambda: reconciler.declared.spec,
        changed=changed,
        happened=happenings.note,
    )
    publishing.secrets = lambda: secrets.sealed
    return secrets


def _totals(settings: Settings, log: Log) -> WorkerTotals:
    """Counters go on where the last controller of this server left them."""
    totals = WorkerTotals()
    try:
        totals.restore(settings.totals_file.read_bytes())
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as exc:
        log.failure("totals_not_read", exc)
    return totals


def measure_machine(workers: int) -> Machine:
    """What an engine may size itself by, at this moment."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(cpus=cpus, memory_available_bytes=psutil.virtual_memory().available, workers=workers)
