"""
The admin API of the controller: its routes, served on the private socket.

A module of its own because its imports (Litestar, uvicorn) take about a second:
the controller loads it while the engine reads its model, not before.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from pilothouse.app.control_parts import Parts
from pilothouse.app.engine_views import list_engines
from pilothouse.domain.feedback import Feedback
from pilothouse.domain.record import Content
from pilothouse.http.control_app import build_app
from pilothouse.http.plane import Plane
from pilothouse.kit.local_socket import listen_privately
from pilothouse.ports.store import SealedRecord

_RENEWS_DATE = 0
"""A tick of uvicorn's at whose number it renews the date that it sends."""
STOP_S = 2
"""How long answers in flight may take when the controller ends."""


class AdminServer:
    def __init__(self, plane: Plane, path: Path) -> None:
        self._plane = plane
        self._path = path

    async def run(self) -> None:
        """Serve until cancelled."""
        # uvicorn takes over the mode of the file that it finds, and would else let everybody in.
        listen_privately(self._path).close()
        server = _Quiet(
            uvicorn.Config(
                build_app(self._plane),
                uds=str(self._path),
                access_log=False,
                log_config=None,
                lifespan="on",
                server_header=False,
                timeout_graceful_shutdown=STOP_S,
                timeout_keep_alive=60,
            )
        )
        serving = asyncio.ensure_future(server.serve())
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            server.end()
            await asyncio.wait([serving], timeout=STOP_S + 1)
            raise
        finally:
            self._path.unlink(missing_ok=True)


class _Quiet(uvicorn.Server):
    """Signals are the controller's. It ticks once a second, not ten times: a tenth of its idle cost."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._woken = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def end(self) -> None:
        self.should_exit = True
        self._woken.set()

    async def main_loop(self) -> None:
        while not await self.on_tick(_RENEWS_DATE):
            try:
                await asyncio.wait_for(self._woken.wait(), 1.0)
            except TimeoutError:
                pass


def build_plane(parts: Parts) -> Plane:
    """What the routes stand on."""

    async def logs(replica: str, *, lines: int) -> list[str]:
        return await parts.loop.targets[parts.loop.reconciler.observer.target_of(replica)].logs(
            replica, lines=lines
        )

    async def open_content(sealed: SealedRecord) -> Content:
        return await parts.store(lambda unit: parts.seals.open(unit, sealed))

    async def open_feedback(feedback: Feedback) -> str:
        return await parts.store(lambda unit: parts.seals.open_feedback(unit, feedback))

    return Plane(
        settings=parts.settings,
        clock=parts.clock,
        log=parts.log,
        keyring=parts.keyring,
        tenants=parts.tenants,
        purges=parts.purges,
        secrets=parts.loop.secrets,
        transact=parts.store,
        specs=parts.declarations,
        models=parts.loop.registry,
        system=lambda: parts.loop.reconciler.status,
        status=parts.overview.status,
        metrics=parts.overview.metrics,
        processes=parts.overview.processes,
        logs=logs,
        open_content=open_content,
        rollouts=parts.releases.rollouts,
        feedback=parts.releases.inbox,
        batches=parts.batching.batches,
        open_feedback=open_feedback,
        hurry_records=parts.backlog.wanted.set,
        engines=lambda: list_engines(parts.loop.drivers),
    )


def serve(parts: Parts) -> AdminServer:
    return AdminServer(build_plane(parts), parts.settings.control_socket)
