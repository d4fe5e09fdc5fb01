"""
The gateway worker: all its parts put together, and their life.

Thin by contract: no SQL, no web framework, no engine library is imported here.
It lives on snapshots; when its supervisor is gone, it drains and exits.
"""

import asyncio
import gc
import os
import signal
import socket
import time
from ipaddress import ip_network
from pathlib import Path

import uvloop

from pilothouse.adapters.caches.memory import MemoryCache
from pilothouse.adapters.caches.redis import RedisCache
from pilothouse.adapters.feeds.unix import UnixFeed
from pilothouse.adapters.keys.file import FileKeys
from pilothouse.adapters.ledgers.local import LocalLedger
from pilothouse.app.credentials import Credentials
from pilothouse.app.engines import engine_drivers
from pilothouse.config import Settings, read_secret
from pilothouse.domain.errors import OperationFailed
from pilothouse.domain.ledger import Book
from pilothouse.domain.snapshot import ReplicaEntry, WorkerHello, WorkerReport
from pilothouse.gateway.authenticate import Authenticator
from pilothouse.gateway.keep import Keeper
from pilothouse.gateway.leases import Leases
from pilothouse.gateway.limit import Limiter
from pilothouse.gateway.meter import Meters
from pilothouse.gateway.pipeline import Pipeline
from pilothouse.gateway.recall import Recall
from pilothouse.gateway.state import GatewayState
from pilothouse.http.answering import refusal
from pilothouse.http.data_plane import DataPlane
from pilothouse.kit.beat import beat_or
from pilothouse.kit.board import Board
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.heartbeat import wait_for_loss
from pilothouse.kit.http1.client import Client
from pilothouse.kit.http1.message import Limits
from pilothouse.kit.http1.peer import Address
from pilothouse.kit.http1.server import Server, server_tls
from pilothouse.kit.http1.sweep import Sweeper
from pilothouse.kit.ids import new_id
from pilothouse.kit.journal.writer import JournalFull, JournalWriter
from pilothouse.kit.log import Log
from pilothouse.kit.pulse import READY, say
from pilothouse.kit.resp import RespClient, parse_address
from pilothouse.kit.tasks import Tasks
from pilothouse.ports.engine import Engine
from pilothouse.ports.feed import Feed

REPORT_S = 0.5
LEAVING_REPORT_S = 0.05
"""While it leaves: each report may free slots that its successor waits for."""
LINGER_S = 5.0
"""How long a replaced worker keeps idle connections, whose clients it tells to come back elsewhere."""
SNAPSHOT_PATIENCE_S = 8.0
"""So long does a new worker wait for its first snapshot before it accepts: it could only refuse.
On a busy machine a controller took five seconds to come back, while callers waited in the socket."""
LEAST_REPORT_S = 0.02
"""Between two reports, however much there is to tell."""
FAR_CACHE_S = 0.1
"""How long the shared cache may take; a fraction of what a model does."""
GC_THRESHOLDS = (50_000, 20, 50)
"""Requests leave little for the cycle collector; at its default it took a quarter of the time."""


class Worker:
    """All parts of one worker, and their life from start to drain."""

    is_compiled = False
    """What the modules of its request path are, for who asks."""

    def __init__(self, settings: Settings, *, name: str, feed_socket: Path, index: int = 0) -> None:
        self.settings = settings
        self.name = name
        self.log = Log("worker", worker=name)
        keys = FileKeys(settings.keys_path)
        self.journal = JournalWriter(
            settings.journal_path,
            writer=name,
            segment_bytes=settings.journal_segment_bytes,
            wrap=lambda key: keys.wrap(key, context=b"journal"),
            sync=settings.journal_sync,
        )
        cohort = Cohort()
        self._drivers = engine_drivers(cohort)
        self._credentials = Credentials(keys)
        self._retired: set[asyncio.Task[None]] = set()
        self.state = GatewayState(
            Authenticator(keys.pepper()),
            self._connect,
            self._retire,
            lambda replica, exc: self.log.failure("replica_refused", exc, replica=replica),
        )
        self._tasks = Tasks(lambda task, exc: self.log.failure("task_failed", exc, task=task))
        self._hurry = asyncio.Event()
        """Something is to be told now: a request waits for somebody to wake its deployment."""
        self.state.on_held = self._hurry.set
        self.state.on_ejected = self._note_ejected
        self.meters = Meters(lambda endpoint: endpoint in self.state.snapshot.endpoints)
        self.keeper = Keeper(
            self.journal,
            JournalFull,
            self.meters,
            subject_key=keys.subject_key(),
            when_full=settings.journal_full,
            on_dropped=lambda: self.log.event("record_dropped", "error"),
            waits_for_disk=settings.journal_sync == "power",
            cohort=cohort,
        )
        self._has_snapshot = asyncio.Event()
        self._is_connecting = False
        self._is_leaving = False
        self.feed: Feed = UnixFeed(feed_socket, self._hello, fresh_report=self._snapshot_report)
        self._board: Board | None = None
        if settings.workers > 1:
            self._board = Board(settings.board_file, places=settings.workers, mine=index)
        self._sweeper = Sweeper()
        controller = Client(Address(path=str(settings.control_socket)), self._sweeper)
        self._far_cache = self._open_far_cache(keys.subject_key())
        recall = Recall(self.state, self.keeper, MemoryCache(settings.cache_bytes), self._far_cache)
        pipeline = Pipeline(self.state, self.keeper, self.meters, self.log, recall, self._limiter())
        self._shadows = pipeline.shadows
        self.plane = DataPlane(self.state, pipeline, self.feed, controller)
        self.server = Server(
            self.plane.handle,
            limits=_limits(settings),
            on_defect=lambda exc: self.log.failure("connection_defect", exc),
            stream_keepalive_s=settings.sse_keepalive_s,
            refusal=refusal,
            cohort=cohort,
        )

    def _limiter(self) -> Limiter:
        book = Book()
        self.leases = Leases(
            LocalLedger(self.feed),
            book,
            worker=self.name,
            workers=self.settings.workers,
            when_lost=self.settings.ledger_lost,
            is_shared=bool(self.settings.ledger_url),
        )
        self.keeper.limiter = limiter = Limiter(book, self.leases)
        self.state.followers.append(limiter.apply)
        return limiter

    async def run(self, listening: socket.socket, heartbeat_fd: int, *, ready_fd: int = -1) -> None:
        """
        Serve until told to end, and drain.

        TERM, INT, a supervisor that is gone: the server ends; a second signal waits
        for no request. HUP: only this worker does, and another one has taken its place.
        """
        self.journal.open()
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, stop)
        loop.add_signal_handler(signal.SIGHUP, self._leave, stop)
        self._sweeper.start()
        self._tasks.keep("feed", self._follow_feed)
        self._tasks.keep("report", self._report)
        self._tasks.keep("leases", self.leases.run)
        self._tasks.start("heartbeat", lambda: self._watch(heartbeat_fd, stop))
        await self._first_snapshot(stop)
        tls = self.settings.tls_certificate
        await self.server.start(
            listening, server_tls(tls, self.settings.tls_key) if tls else None, shares=self._board
        )
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        self.log.event("worker_started", pid=os.getpid(), is_compiled=self.is_compiled)
        say(ready_fd, READY)
        await stop.wait()
        linger_s = min(LINGER_S, self.settings.drain_timeout_s) if self._is_leaving else 0.0
        await self._shadows.aclose()
        await self.server.drain(self.settings.drain_timeout_s, linger_s=linger_s)
        await self.leases.hand_back()
        self.feed.report(self._snapshot_report())
        await self._tasks.aclose(timeout_s=1.0)
        await self.feed.aclose()
        if self._far_cache is not None:
            await self._far_cache.aclose()
        self.keeper.flush()
        self.journal.close()
        self.log.event("worker_stopped")

    def _stop(self, stop: asyncio.Event) -> None:
        if stop.is_set():
            self.server.hurry()
        stop.set()

    def _leave(self, stop: asyncio.Event) -> None:
        self._is_leaving = True
        self._tasks.start("leave", self._leave_slots)
        stop.set()

    async def _leave_slots(self) -> None:
        """Tell the controller again and again which slots are still in use here."""
        while True:
            self.feed.report(self._snapshot_report())
            await asyncio.sleep(LEAVING_REPORT_S)

    async def _first_snapshot(self, stop: asyncio.Event) -> None:
        """Connections wait in the socket meanwhile, or are taken by other workers."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self._has_snapshot, stop)]
        await asyncio.wait(waits, timeout=SNAPSHOT_PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _follow_feed(self) -> None:
        async for snapshot in self.feed.snapshots():
            self.state.apply(snapshot)
            self._has_snapshot.set()
            if self._is_connecting:
                self._is_connecting = False
                self.leases.introduce()

    async def _report(self) -> None:
        while True:
            self.feed.report(self._snapshot_report())
            await beat_or(self._hurry, REPORT_S, least_s=LEAST_REPORT_S)

    async def _watch(self, heartbeat_fd: int, stop: asyncio.Event) -> None:
        loss = await wait_for_loss(heartbeat_fd)
        self.log.event("supervisor_gone", "warning", loss=loss)
        stop.set()

    def _note_ejected(self, deployment: str, replica: str) -> None:
        self.meters.ejections.labels(deployment).inc()
        self.log.event("replica_ejected", "warning", replica=replica)

    def _open_far_cache(self, secret: bytes) -> RedisCache | None:
        if not self.settings.cache_url:
            return None
        reference = self.settings.cache_password
        password = read_secret(reference).reveal() if reference else ""
        client = RespClient(parse_address(self.settings.cache_url), timeout_s=FAR_CACHE_S, password=password)
        return RedisCache(client, secret, on_failure=self.meters.far_cache_failed)

    def _snapshot_report(self) -> WorkerReport:
        self.meters.measure(self.state.places)
        if self._board is not None and not self._is_leaving:
            self._board.write(self.server.connections)
        if self._is_leaving:
            self.state.give_up_slots()
        return WorkerReport(
            worker=self.name,
            pid=os.getpid(),
            time=time.time(),
            revision=self.state.snapshot.revision,
            inflight=self.state.inflight,
            queued=self.state.queued,
            replicas=self.state.inflight_by_replica,
            queues=self.state.queued_by_deployment,
            connections=self.server.connections,
            journal_dropped=self.keeper.dropped,
            demand=dict(self.state.demand),
            low_priority=self.state.low_priority,
            cpu_s=time.process_time(),
            is_leaving=self._is_leaving,
            slots=self.state.held_slots() if self._is_leaving else {},
            metrics=self.meters.dump(),
            is_compiled=self.is_compiled,
        )

    def _hello(self) -> WorkerHello:
        self._is_connecting = True
        return WorkerHello(worker=self.name, pid=os.getpid(), slots=self.state.held_slots())

    def _connect(self, entry: ReplicaEntry) -> Engine:
        try:
            driver = self._drivers[entry.engine]
        except KeyError as exc:
            raise OperationFailed(f"engine {exc}: this worker has no driver for it") from exc
        return driver.connect(
            entry.address,
            model=entry.model,
            context_tokens=entry.context_tokens,
            secret=self._credentials.of(entry.secret, entry.sealed, entry.address, entry.token_file),
            allow_private=entry.allow_private,
            options=entry.options,
        )

    def _retire(self, engine: Engine) -> None:
        task = asyncio.get_running_loop().create_task(engine.aclose())
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)


def _limits(settings: Settings) -> Limits:
    return Limits(
        max_body_bytes=settings.max_body_bytes,
        max_connections=settings.max_connections,
        header_timeout_s=settings.header_timeout_s,
        body_timeout_s=settings.body_timeout_s,
        keepalive_timeout_s=settings.keepalive_timeout_s,
        write_timeout_s=settings.write_timeout_s,
        trusted_proxies=tuple(ip_network(text) for text in settings.trusted_proxies),
        proxy_protocol=settings.proxy_protocol,
    )


def serve(
    settings: Settings, *, index: int, socket_fd: int, heartbeat_fd: int, ready_fd: int, is_compiled: bool
) -> None:
    """Be a worker until its end; `index` is its number, for its name."""
    name = new_id(f"w{index}-")
    worker = Worker(settings, name=name, feed_socket=settings.feed_socket, index=index)
    worker.is_compiled = is_compiled
    listening = socket.socket(fileno=socket_fd)
    uvloop.run(worker.run(listening, heartbeat_fd, ready_fd=ready_fd))
