"""
Batches put together, and how their requests reach the gateway.

They go in by the server's own door, as any client's: every policy, limit, cache
and record holds, and the kernel shares them among the workers.
"""

import asyncio
import ssl
import time
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from pilothouse.adapters.keys.file import FileKeys
from pilothouse.app.home import server_url
from pilothouse.config import Settings
from pilothouse.control.batch_run import Answer, Gate, Works
from pilothouse.control.batches import SWEEP_S, Batches
from pilothouse.control.files import Files, Room
from pilothouse.control.fleet import Fleet
from pilothouse.control.pace import Pace
from pilothouse.control.publish import Publishing
from pilothouse.control.seals import Seals
from pilothouse.control.store_thread import StoreThread
from pilothouse.domain import apikey
from pilothouse.kit.clock import SystemClock
from pilothouse.kit.http1.client import Client, HttpFailure, request_bytes
from pilothouse.kit.http1.peer import Address, Timeouts
from pilothouse.kit.http1.sweep import Sweeper
from pilothouse.kit.log import Log
from pilothouse.kit.tasks import Tasks

_TIMEOUTS = Timeouts(connect_s=5.0, first_byte_s=3600.0, idle_s=600.0)
_TOTAL_S = 3600.0
_DELEGATION_S = 600
"""How long a token for one key is good; each is used for half of that."""
_STOP_S = 1.0


class _ErrorCode(Struct):
    code: str | None = None


class _ErrorBody(Struct):
    error: _ErrorCode


class Door:
    """Asks the gateway in the name of a key. This is `control.batch_run.Ask`."""

    def __init__(self, settings: Settings, pepper: bytes) -> None:
        self._settings = settings
        self._pepper = pepper
        self.sweeper = Sweeper()
        self._client: Client | None = None
        self._at = ""

    async def __call__(self, key_id: str, path: str, body: bytes) -> Answer | None:
        client = self._reach()
        if client is None:
            return None
        lines = (
            f"authorization: Bearer {self._token(key_id)}\r\ncontent-type: application/json\r\n"
            "x-pilothouse-priority: low\r\n"
        )
        data = request_bytes("POST", path, client.address.host_header, lines.encode(), body)
        try:
            exchange = await client.request(data, _TIMEOUTS, total_s=_TOTAL_S)
            try:
                content = await exchange.read_all(client.max_whole_bytes)
            finally:
                exchange.release()
        except HttpFailure:
            return None
        return Answer(
            status=exchange.status,
            request_id=exchange.headers.get(b"x-request-id", b"").decode("latin-1"),
            body=content,
            code=_code_of(content) if exchange.status != 200 else "",
            retry_after_s=_seconds(exchange.headers.get(b"retry-after", b"")),
        )

    def _token(self, key_id: str) -> str:
        half = _DELEGATION_S // 2
        return apikey.delegate(self._pepper, key_id, until=(int(time.time()) // half + 2) * half)

    def _reach(self) -> Client | None:
        url = server_url(self._settings.state_file)
        if not url:
            return None
        if self._client is None or url != self._at:
            if self._client is not None:
                self._client.close()
            parts = urlsplit(url)
            is_tls = parts.scheme == "https"
            address = Address(host=parts.hostname or "", port=parts.port or 0, tls=is_tls)
            tls = _pinned(self._settings.tls_certificate) if is_tls else None
            self._client, self._at = Client(address, self.sweeper, tls=tls), url
            if self._settings.proxy_protocol:
                self._client.greeting = b"PROXY UNKNOWN\r\n"
        return self._client


def _pinned(certificate: str) -> ssl.SSLContext:
    """Who holds the key of the server's own certificate is that server, whatever name stands in it."""
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _code_of(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_ErrorBody).error.code or ""
    except msgspec.DecodeError:
        return ""


def _seconds(text: bytes) -> float:
    return float(text) if text.isdigit() else 0.0


class Batching:
    def __init__(self, batches: Batches, tasks: Tasks, door: Door) -> None:
        self.batches = batches
        self._tasks = tasks
        self._door = door
        self._is_loaded = False

    async def run(self) -> None:
        """Take up what is left, and look after it until cancelled."""
        self._door.sweeper.start()
        try:
            if not self._is_loaded:
                await self.batches.load()
                self._is_loaded = True
            while True:
                await self.batches.sweep()
                await asyncio.sleep(SWEEP_S)
        except asyncio.CancelledError:
            await self._tasks.aclose(timeout_s=_STOP_S)
            raise


def build_batching(
    settings: Settings,
    store: StoreThread,
    seals: Seals,
    publishing: Publishing,
    *,
    keys: FileKeys,
    fleet: Fleet,
    log: Log,
) -> Batching:
    clock = SystemClock()
    room = Room(
        file_bytes=settings.file_bytes, team_bytes=settings.team_file_bytes, team_files=settings.team_files
    )
    door = Door(settings, keys.pepper())

    def places(model: str) -> int:
        """Half of what there is, so that what is live finds a free place; one wakes who sleeps."""
        return max(1, min(settings.batch_inflight, publishing.base.places(model) // 2))

    works = Works(
        transact=store,
        files=Files(settings.files_path, store, seals, clock=clock, room=room),
        ask=door,
        gate=Gate(places),
        pace=Pace(fleet, clock),
        clock=clock,
    )
    tasks = Tasks(lambda name, error: log.failure("batch_interrupted", error, batch=name), limit=4096)
    return Batching(Batches(works, tasks), tasks, door)
