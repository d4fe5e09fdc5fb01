"""
The data plane in this process: the real handler, pipeline and server on a loopback port.

The controller is left out: a snapshot is applied by hand, and the journal is a
list that also notes when each record came, so that a test can say what was
kept, and before which byte.
"""

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import chain

import msgspec
import uvloop

from http1_rig import Answer, Raw, connected, listening
from pilothouse.adapters.caches.memory import MemoryCache
from pilothouse.domain import apikey
from pilothouse.domain.entries import unpack
from pilothouse.domain.ledger import Account, Book
from pilothouse.domain.record import Content, InferenceRecord, JournalEntry
from pilothouse.domain.snapshot import DeploymentEntry, EndpointEntry, KeyEntry, ReplicaEntry, Route, Snapshot
from pilothouse.gateway.authenticate import Authenticator
from pilothouse.gateway.keep import Keeper
from pilothouse.gateway.leases import Leases
from pilothouse.gateway.limit import Limiter
from pilothouse.gateway.meter import Meters
from pilothouse.gateway.pipeline import Pipeline
from pilothouse.gateway.recall import Recall
from pilothouse.gateway.shadow import Shadows
from pilothouse.gateway.state import GatewayState
from pilothouse.http.answering import refusal
from pilothouse.http.data_plane import DataPlane
from pilothouse.kit.clock import SystemClock
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.http1.client import Client
from pilothouse.kit.http1.message import Limits
from pilothouse.kit.http1.peer import Address
from pilothouse.kit.http1.server import Server
from pilothouse.kit.http1.sweep import Sweeper
from pilothouse.kit.log import Log
from pilothouse.ports.cache import Cache, NearCache
from pilothouse.ports.engine import Engine
from pilothouse.testing.memory_ledger import MemoryLedger
from watched_engine import WatchedEngine

PEPPER = b"pepper-of-the-tests"
SECRET = "S" * 32
CHAT = b'{"model":"%s","messages":[{"role":"user","content":"Hi"}]%s}'


def key(key_id: str) -> str:
    return apikey.make(key_id, SECRET)


def key_entry(
    key_id: str,
    *,
    team: str = "a",
    role: str = "developer",
    endpoints: frozenset[str] | None = None,
    expires_at: float | None = None,
) -> KeyEntry:
    return KeyEntry(
        id=key_id,
        team=team,
        role=role,
        mac=apikey.mac(PEPPER, key_id, SECRET),
        endpoints=endpoints,
        expires_at=expires_at,
    )


DEVELOPER, OTHER_TEAM, ADMIN, AUDITOR, SCOPED, EXPIRED, UNKNOWN = (
    "developer0",
    "otherteam0",
    "admin00000",
    "auditor000",
    "scoped0000",
    "expired000",
    "unknown000",
)
KEYS = {
    entry.id: entry
    for entry in (
        key_entry(DEVELOPER),
        key_entry(OTHER_TEAM, team="b"),
        key_entry(ADMIN, role="admin"),
        key_entry(AUDITOR, role="auditor"),
        key_entry(SCOPED, endpoints=frozenset({"elsewhere"})),
        key_entry(EXPIRED, expires_at=1.0),
    )
}
"""The keys of every rig's snapshot, by id; `UNKNOWN` is the id of a well-made key that is not there."""


def replica_entry(name: str = "chat-0", deployment: str = "chat", **more: object) -> ReplicaEntry:
    given = {"engine": "scripted", "address": f"scripted:{name}", "max_inflight": 8, **more}
    return msgspec.convert({"name": name, "deployment": deployment, **given}, ReplicaEntry)


def endpoint_entry(name: str = "chat", **more: object) -> EndpointEntry:
    given = {"revision": 1, "routes": (Route(name),), "created_at": 1_700_000_000, **more}
    return msgspec.structs.replace(EndpointEntry(name=name, revision=1, routes=()), **given)


def snapshot(
    *replicas: ReplicaEntry,
    endpoints: tuple[EndpointEntry, ...] = (),
    keys: Mapping[str, KeyEntry] = KEYS,
    deployments: tuple[DeploymentEntry, ...] = (),
) -> Snapshot:
    """A snapshot with these replicas, and an endpoint for each deployment unless given."""
    names = dict.fromkeys(replica.deployment for replica in replicas)
    shown = endpoints or tuple(endpoint_entry(name) for name in names)
    known = deployments or tuple(DeploymentEntry(name=name, phase="ready") for name in names)
    return Snapshot(
        epoch="e",
        revision=1,
        keys=dict(keys),
        endpoints={endpoint.name: endpoint for endpoint in shown},
        deployments={entry.name: entry for entry in known},
        replicas={name: tuple(r for r in replicas if r.deployment == name) for name in names},
    )


class Full(Exception):
    """The journal's own error."""


class ListJournal:
    """Keeps entries in a list, or nothing at all."""

    def __init__(self) -> None:
        self.entries: list[JournalEntry] = []
        self.is_full = False
        self.has_no_room = False
        self.on_append: Callable[[JournalEntry], None] = lambda _: None
        self.waits = 0

    def append(self, *payloads: bytes | bytearray) -> None:
        if self.is_full:
            raise Full("no room")
        for entry in chain.from_iterable(unpack(bytes(payload)) for payload in payloads):
            self.entries.append(entry)
            self.on_append(entry)

    def has_room(self, size_bytes: int) -> bool:
        return not (self.is_full or self.has_no_room)

    async def durable(self) -> None:
        self.waits += 1
        await asyncio.sleep(0)


class QuietFeed:
    """The part of `ports.feed.Feed` that the data plane reads."""

    disconnected_since: float | None = None


@dataclass
class House:
    """A data plane that runs, and all that a test looks at."""

    port: int
    server: Server
    state: GatewayState
    keeper: Keeper
    meters: Meters
    journal: ListJournal
    feed: QuietFeed
    log_stream: io.StringIO
    recall: Recall
    shadows: Shadows
    ledger: MemoryLedger
    leases: Leases
    book: Book
    engines: dict[str, Engine] = field(default_factory=dict)
    retired: list[Engine] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def log(self) -> str:
        return self.log_stream.getvalue()

    @property
    def accounts(self) -> dict[str, Account]:
        """What this worker holds of limits, by name."""
        return self.leases.accounts

    @property
    def records(self) -> list[InferenceRecord]:
        return [entry.record for entry in self.journal.entries]

    @property
    def contents(self) -> list[Content | None]:
        return [entry.content for entry in self.journal.entries]

    @property
    def codes(self) -> list[str]:
        return [record.code for record in self.records]

    async def ask(
        self,
        path: str = "/v1/chat/completions",
        body: bytes | None = None,
        *,
        more: bytes = b"",
        as_key: str | None = DEVELOPER,
        headers: bytes = b"",
        method: str = "POST",
    ) -> Answer:
        """One request on a connection of its own; `more` goes into a chat body, as `,"n":2`."""
        async with connected(self.port) as raw:
            await raw.send(self.request(path, body, more=more, as_key=as_key, headers=headers, method=method))
            return await raw.answer(timeout_s=10.0)

    @asynccontextmanager
    async def asking(self, *, more: bytes = b"", as_key: str | None = DEVELOPER) -> AsyncIterator[Raw]:
        """A chat request that was sent; the connection is the test's."""
        async with connected(self.port) as raw:
            await raw.send(self.request(more=more, as_key=as_key))
            yield raw

    def request(
        self,
        path: str = "/v1/chat/completions",
        body: bytes | None = None,
        *,
        more: bytes = b"",
        as_key: str | None = DEVELOPER,
        headers: bytes = b"",
        method: str = "POST",
    ) -> bytes:
        if body is None:
            body = CHAT % (b"chat", more) if method == "POST" else b""
        known = f"authorization: Bearer {key(as_key)}\r\n".encode() if as_key else b""
        return b"%s %s HTTP/1.1\r\nHost: a\r\n%s%sContent-Length: %d\r\n\r\n%s" % (
            method.encode(), path.encode(), known, headers, len(body), body,
        )  # fmt: skip

    async def until(self, is_so: Callable[[], bool], *, timeout_s: float = 3.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not is_so():
                await asyncio.sleep(0.005)

    @property
    def is_quiet(self) -> bool:
        """No place is held and nobody waits for one."""
        return self.state.inflight == 0 and self.state.queued == 0


Connect = Callable[[ReplicaEntry], Engine]


@asynccontextmanager
async def house(
    connect: Connect | Engine | None = None,
    served: Snapshot | None = None,
    *,
    limits: Limits | None = None,
    when_full: str = "refuse",
    waits_for_disk: bool = False,
    stream_keepalive_s: float = 0.0,
    controller: str = "/nowhere/control.sock",
    near: NearCache | None = None,
    far: Cache | None = None,
) -> AsyncIterator[House]:
    """
    A data plane for the block.

    Args:
        connect: How replicas are spoken to, or the one engine for all.
        served: The snapshot; by default one endpoint `chat` on one replica. An empty one is not applied.
        controller: Path of the controller's socket.
    """
    if connect is None:
        connect = WatchedEngine()
    make: Connect = connect if callable(connect) else lambda _: connect
    stream, journal, feed = io.StringIO(), ListJournal(), QuietFeed()
    log = Log("worker", stream=stream, least="debug")
    made: list[House] = []

    def remembered(entry: ReplicaEntry) -> Engine:
        engine = make(entry)
        made[0].engines[entry.name] = engine
        return engine

    state = GatewayState(
        Authenticator(PEPPER),
        remembered,
        lambda engine: made[0].retired.append(engine),  # noqa: PLW0108 - `made` is filled later
        lambda name, _: made[0].refused.append(name),
    )
    meters = Meters(lambda name: name in state.snapshot.endpoints)
    keeper = Keeper(
        journal, Full, meters, subject_key=b"subjects", when_full=when_full,
        on_dropped=lambda: log.event("record_dropped", "error"), waits_for_disk=waits_for_disk,
        cohort=Cohort(),
    )  # fmt: skip
    book = Book()
    ledger = MemoryLedger(SystemClock())
    leases = Leases(ledger, book, worker="w0", workers=1, when_lost="closed", is_shared=False)
    keeper.limiter = Limiter(book, leases)
    state.followers.append(keeper.limiter.apply)
    leasing = asyncio.create_task(leases.run())
    sweeper = Sweeper()
    sweeper.start()
    control = Client(Address(path=controller), sweeper)
    recall = Recall(state, keeper, near or MemoryCache(1 << 20), far)
    pipeline = Pipeline(state, keeper, meters, log, recall, keeper.limiter)
    plane = DataPlane(state, pipeline, feed, control)
    server = Server(
        plane.handle, limits=limits or Limits(), on_defect=lambda exc: log.failure("connection_defect", exc),
        stream_keepalive_s=stream_keepalive_s, refusal=refusal,
    )  # fmt: skip
    door = listening()
    running = House(
        door.getsockname()[1],
        server,
        state,
        keeper,
        meters,
        journal,
        feed,
        stream,
        recall,
        pipeline.shadows,
        ledger,
        leases,
        book,
    )
    made.append(running)
    if served is None:
        served = snapshot(replica_entry())
    if served.endpoints or served.keys:
        state.apply(served)
    await server.start(door)
    try:
        yield running
    finally:
        await pipeline.shadows.aclose()
        await server.drain(0.0)
        leasing.cancel()
        await asyncio.wait([leasing])
        control.close()
        for engine in (*running.engines.values(), *running.retired):
            await engine.aclose()
        await asyncio.sleep(0.01)
        sweeper.stop()


@contextmanager
def house_in_thread(
    connect: Connect | Engine | None = None, served: Snapshot | None = None
) -> Iterator[House]:
    """The same, in a thread with a loop of its own: for clients that block, and for any loop."""
    ready: list[House] = []
    began, ends = threading.Event(), asyncio.Event()
    loop = uvloop.new_event_loop()

    async def run() -> None:
        async with house(connect, served) as running:
            ready.append(running)
            began.set()
            await ends.wait()

    def serve() -> None:
        try:
            loop.run_until_complete(run())
        finally:
            began.set()
            loop.close()

    thread = threading.Thread(target=serve, name="data-plane")
    thread.start()
    try:
        began.wait(10)
        if not ready:
            raise RuntimeError("the data plane did not start")
        yield ready[0]
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(ends.set)
        thread.join(10)
