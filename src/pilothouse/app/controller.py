"""
The controller's process: `python -m pilothouse.app.controller`.

It starts in the order of what takes longest: the engine first, and what people
and workers need while that reads its model. How it ends decides what goes on:

    SIGTERM, SIGINT      everything ends: replicas are drained and stopped (`pilothouse down`)
    SIGHUP               it ends alone: replicas run on and are adopted by the next controller
    the supervisor gone  the same

A successor is started while its predecessor still works: it loads everything,
says that it waits, and takes over when the lock is let go. Two never work at once.
"""

import argparse
import asyncio
import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import uvloop

from pilothouse.adapters.stores.glimpse import glimpse
from pilothouse.app.control_parts import Parts, build_parts
from pilothouse.app.duties import Duties
from pilothouse.app.leftovers import processes_of
from pilothouse.app.seed import seed, still_holds
from pilothouse.app.stores import remember, was_used
from pilothouse.config import Settings
from pilothouse.domain.errors import Conflict, PilothouseError, StoreUnavailable
from pilothouse.kit.heartbeat import wait_for_loss
from pilothouse.kit.lockfile import LockFile
from pilothouse.kit.log import Log
from pilothouse.kit.pulse import READY, WAITING, say
from pilothouse.kit.tasks import Tasks

PREDECESSOR_S = 60.0
"""How long a controller that is ending is waited for: it may be stopping engines."""
LOCK_ROUND_S = 0.5
"""How soon a controller that waits for its predecessor notices that it shall end itself."""
STORE_ROUND_S = 2.0
"""How soon a store that is away is tried again."""
HEAD_START_S = 0.5
"""For the engine, before the controller goes on with its own start."""
ROLL_CALL_S = 0.1
"""How often it is looked for workers of an earlier controller that have not come back."""
ADOPTION_S = 5.0
"""How long workers keep the old snapshot while replicas found running are looked at."""
DRAIN_S = 20.0
STOP_ALL_S = 40.0
"""Draining, then TERM and KILL; within what the supervisor waits (45 s)."""
LAST_WORDS_S = 1.5


_ADMIN = "pilothouse.app.admin_server"
_LATE = (_ADMIN, "pilothouse.adapters.stores.sqlite")
"""What a first start loads while the engine reads its model, and a successor before it takes over."""


class Controller:
    def __init__(self, settings: Settings, settings_file: Path, log: Log, *, ready_fd: int = -1) -> None:
        self._ready_fd = ready_fd
        self._settings = settings
        self._settings_file = settings_file
        self._log = log
        self._lock = LockFile(settings.home_path / "controller.lock")
        self._end = asyncio.Event()
        self._ends_replicas = False
        self._tasks = Tasks(lambda name, error: self._log.failure("task_failed", error, task=name))

    async def run(self, heartbeat_fd: int) -> None:
        """
        From start to end.

        Raises:
            PilothouseError: The setup is wrong; the message says the fix.
        """
        self._listen_to_signals()
        self._tasks.start("heartbeat", lambda: self._follow_supervisor(heartbeat_fd))
        if not await self._follow_predecessor():
            return
        try:
            parts = build_parts(self._settings)
            self._log = parts.log  # which remembers failures, for the status
            await self._begin(parts)
            if not await self._open_store(parts):
                return
            try:
                await self._serve(parts)
            finally:
                if not await parts.store.aclose(timeout_s=LAST_WORDS_S):
                    self._log.event("store_not_closed", "error")
        finally:
            await self._tasks.aclose(timeout_s=LAST_WORDS_S)
            self._lock.release()

    async def _follow_predecessor(self) -> bool:
        """Wait for the lock; False when this one is told to end meanwhile."""
        if self._lock.try_acquire():
            say(self._ready_fd, WAITING)
            return True
        for module in _LATE:
            await asyncio.to_thread(importlib.import_module, module)
        say(self._ready_fd, WAITING)
        waited_s = 0.0
        while not await self._lock.acquire(timeout_s=LOCK_ROUND_S):
            waited_s += LOCK_ROUND_S
            if self._end.is_set():
                return False
            if waited_s >= PREDECESSOR_S:
                raise Conflict(
                    f"another controller of {self._settings.home} does not end; see: pilothouse status"
                )
        return True

    async def _open_store(self, parts: Parts) -> bool:
        """
        Open it; one that worked before is waited for. False when this controller is told to end meanwhile.

        Raises:
            PilothouseError: It cannot be opened, and never was: the address may be wrong.
        """
        while True:
            try:
                await parts.store.start()
                return True
            except StoreUnavailable as exc:
                if not was_used(self._settings):
                    raise
                self._log.failure("store_lost", exc)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._end.wait(), STORE_ROUND_S)
                return False

    async def _begin(self, parts: Parts) -> None:
        """Start what was declared before, if that holds: the store itself takes longer to open."""
        if not self._settings.is_sqlite:
            return
        seen = await asyncio.to_thread(glimpse, self._settings.database_file)
        if seen is not None and seen.is_complete and still_holds(seen.spec.spec, self._settings):
            parts.loop.reconciler.have_models(seen.models)
            parts.loop.reconciler.declare(seen.spec)
            await parts.loop.reconciler.round()
            # A small model is checked and its engine started before the imports take the processor.
            await parts.loop.reconciler.acted(timeout_s=HEAD_START_S)
            self._log.event("controller_began", pid=os.getpid(), revision=seen.spec.revision)

    async def _serve(self, parts: Parts) -> None:
        reconciler, duties = parts.loop.reconciler, Duties(parts)
        await parts.leadership.take()
        remember(self._settings)
        await parts.loop.secrets.load()
        await self._declare(parts)
        await reconciler.round()
        self._log.event("controller_started", pid=os.getpid(), revision=reconciler.declared.revision)
        await parts.tenants.load()
        await parts.tenants.ensure_admin_key()
        parts.loop.publishing.keys_changed()
        await parts.purges.load()
        self._tasks.keep("reconcile", reconciler.run)
        await reconciler.settle(timeout_s=ADOPTION_S)
        self._tasks.keep("feed", parts.loop.publishing.serve)
        self._tasks.keep("admin", lambda: _serve_admin(parts))
        duties.begin(self._tasks, lost=self._end.set)
        self._tasks.start("ready", lambda: self._tell_ready(parts))
        await self._end.wait()
        await self._finish(parts, duties)

    async def _tell_ready(self, parts: Parts) -> None:
        """Once workers that come from now on get all they need."""
        while not parts.loop.publishing.call_roll(  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.to_thread(self._workers)
        ):
            await asyncio.sleep(ROLL_CALL_S)
        while not self._settings.control_socket.exists():  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(LOCK_ROUND_S / 10)
        say(self._ready_fd, READY)

    def _workers(self) -> list[int]:
        return [one.pid for one in processes_of(self._settings.run_path) if one.role == "worker"]

    async def _declare(self, parts: Parts) -> None:
        await parts.declarations.load()
        parts.loop.reconciler.have_models(await parts.loop.registry.versions())
        stored = await seed(parts.declarations, self._settings, self._settings_file, self._log)
        parts.loop.reconciler.declare(stored)
        await parts.releases.rollouts.load()

    async def _finish(self, parts: Parts, duties: Duties) -> None:
        self._log.event("controller_stopping", ends_replicas=self._ends_replicas)
        self._tasks.cancel("admin")
        self._tasks.cancel("reconcile")
        if self._ends_replicas:
            await parts.loop.reconciler.stop_all(drain_s=DRAIN_S, timeout_s=STOP_ALL_S)
        await self._tasks.aclose(timeout_s=LAST_WORDS_S)
        await parts.loop.reconciler.aclose()
        await duties.finish(timeout_s=LAST_WORDS_S)
        self._log.event("controller_stopped")

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, True)
        loop.add_signal_handler(signal.SIGHUP, self._stop, False)

    def _stop(self, ends_replicas: bool) -> None:  # noqa: FBT001 - a signal handler's argument
        self._ends_replicas = ends_replicas
        self._end.set()

    async def _follow_supervisor(self, heartbeat_fd: int) -> None:
        loss = await wait_for_loss(heartbeat_fd)
        self._log.event("supervisor_gone", "warning", loss=loss)
        self._end.set()


async def _serve_admin(parts: Parts) -> None:
    # Loaded late and beside the loop: it takes a second, in which the engine reads its model.
    module = await asyncio.to_thread(importlib.import_module, _ADMIN)
    await module.serve(parts).run()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pilothouse.app.controller", description=__doc__)
    parser.add_argument("--settings", required=True, help="file with the settings as JSON")
    parser.add_argument("--heartbeat-fd", type=int, required=True, help="inherited pipe of the supervisor")
    parser.add_argument("--ready-fd", type=int, default=-1, help="inherited pipe: told how far it is")
    options = parser.parse_args(argv)
    log = Log("controller")
    logging.basicConfig(level=logging.WARNING, handlers=[log.handler()])
    settings_file = Path(options.settings)
    # Not asyncio.run: it would wait for threads, and a download that hangs in one has no end.
    loop = uvloop.new_event_loop()
    try:
        settings = Settings.from_json(settings_file.read_text())
        loop.run_until_complete(
            Controller(settings, settings_file, log, ready_fd=options.ready_fd).run(options.heartbeat_fd)
        )
    except PilothouseError as exc:
        log.failure("controller_failed", exc)
        return 1
    return 0


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # past the threads: all that must be closed was closed
