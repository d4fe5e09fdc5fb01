"""
The supervisor: holds the listening socket, starts the rest, and keeps it running.

No request and no decision about models passes through here. The one idea: it is
so small that it does not fail, and what dies under it is started again while the
socket stays open. Imports are few on purpose: it must be up at once.
"""

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pilothouse import __version__
from pilothouse.app.home import (
    HomeLock,
    Pids,
    ServerState,
    exposure_warning,
    listen,
    prepare_folders,
    remove_if_empty,
    url_of,
    write_private,
)
from pilothouse.app.processes import Child, Death, allow_many_files, trim_log
from pilothouse.app.stop_signals import StopSignals
from pilothouse.config import Settings
from pilothouse.kit.log import Level
from pilothouse.kit.ringlog import tail

TAIL_LINES = 20
"""So much of a child's log is told when its setup is wrong."""


class Programs(Struct, frozen=True, kw_only=True):
    """What Python runs as children: other ones in tests."""

    controller: tuple[str, ...] = ("-m", "pilothouse.app.controller")
    worker: tuple[str, ...] = ("-m", "pilothouse.app.worker")


class Timing(Struct, frozen=True, kw_only=True):
    """Seconds, but for `give_up_deaths`."""

    beat_s: float = 1.0
    """How often children hear that the supervisor lives."""
    stable_s: float = 5.0
    """Whoever lived so long starts a new count of deaths."""
    give_up_deaths: int = 3
    """A child that never was stable and dies so often ends the start: its setup is wrong."""
    after_drain_s: float = 5.0
    """Beyond the workers' own drain time, before they are killed."""
    controller_grace_s: float = 45.0
    """It stops the engines: each has a grace time of its own."""
    port_patience_s: float = 5.0
    """After a killed server: its workers close the port when they notice."""
    hurry_s: float = 5.0
    """What is left to the controller after the second signal."""


class Teller(Protocol):
    """Who hears what happens: a log, a terminal, or both. Must not raise."""

    def event(self, name: str, level: Level = "info", /, **fields: object) -> None: ...


class Supervisor:
    """`prepare`, then `run`. Between the two the process may fork."""

    def __init__(
        self,
        settings: Settings,
        *,
        tell: Teller,
        programs: Programs = Programs(),  # noqa: B008 - frozen
        timing: Timing = Timing(),  # noqa: B008 - frozen
        ignore_hangup: bool = False,
        sweep: Callable[[Path], object] = lambda run_folder: None,  # noqa: ARG005
    ) -> None:
        """`sweep` ends what is left of this home when all children are gone; the lock is still held."""
        self.settings = settings
        self.failure = ""
        """Why it gave up; empty when it was told to end."""
        self.failed_log: Path | None = None
        self.url = ""
        self._tell = tell
        self._programs = programs
        self._timing = timing
        self._sweep = sweep
        self._lock = HomeLock(settings.home_path)
        self._random = Random()  # noqa: S311 - jitter, no secret
        self._signals = StopSignals(ignore_hangup=ignore_hangup)
        self._next_beat = 0.0

    # before the fork

    def prepare(self) -> str:
        """
        Take the home and the socket; return a warning for the operator, or "".

        Raises:
            Conflict: A server of this home runs already.
            OperationFailed: A folder or the address cannot be had.
        """
        prepare_folders(self.settings)
        self._lock.acquire()
        try:
            was_killed = self.settings.state_file.exists()
            patience_s = self._timing.port_patience_s if was_killed else 0.0
            self._listener = listen(self.settings.host, self.settings.port, patience_s=patience_s)
        except BaseException:
            self._lock.release()
            remove_if_empty(self.settings.run_path)
            raise
        self.url = url_of(self.settings, self._listener)
        self.settings = replace(self.settings, port=self._listener.getsockname()[1])
        return exposure_warning(self.settings, self._listener)

    def let_go(self) -> None:
        """Close what `prepare` took: in the parent of a fork, the child keeps it."""
        self._listener.close()
        self._lock.release()

    # the loop

    def run(self) -> int:
        """Serve until told to end; the process's exit status."""
        self._started_at = time.time()
        allow_many_files()
        self._settings_file = self.settings.run_path / "settings"
        write_private(self._settings_file, self.settings.to_json().encode())
        self._controller = self._child("controller", self._programs.controller)
        fd = self._listener.fileno()
        self._workers = [
            self._child(
                f"worker-{i}", self._programs.worker, "--socket-fd", str(fd), "--index", str(i), fds=(fd,)
            )
            for i in range(self.settings.workers)
        ]
        with self._signals.handled():
            try:
                self._watch()
            finally:
                self._stop()
        return 1 if self.failure else 0

    def _watch(self) -> None:
        """Until a signal, or a child whose setup is wrong."""
        self._write_state()
        self._tell.event("supervisor_started", url=self.url, pid=os.getpid(), home=self.settings.home)
        while not self._signals.count and not self.failure:
            now = time.monotonic()
            changed = False
            for child in self._family:
                death = child.reap(now, self._random, stable_s=self._timing.stable_s)
                if death:
                    self._mourn(child, death)
                if not child.pid and now >= child.due_at and not self.failure:
                    changed |= self._start(child, now)
            if changed:
                self._write_state()
            self._beat(now)
            waiting = [child.due_at for child in self._family if not child.pid]
            self._signals.wait(min([self._next_beat, *waiting]) - time.monotonic())

    @property
    def _family(self) -> list[Child]:
        return [self._controller, *self._workers]

    def _child(self, name: str, program: Sequence[str], *flags: str, fds: Sequence[int] = ()) -> Child:
        argv = (*program, "--settings", str(self._settings_file), *flags)
        return Child(name, argv, fds=fds, log=self.settings.home_path / "logs" / f"{name}.log")

    def _start(self, child: Child, now: float) -> bool:
        try:
            child.start(now)
        except OSError as exc:
            self._mourn(child, child.delay_start(now, self._random, status=f"cannot start: {exc.strerror}"))
            return False
        self._tell.event("child_started", child=child.name, pid=child.pid)
        return True

    def _mourn(self, child: Child, death: Death) -> None:
        is_loop = death.deaths >= self._timing.give_up_deaths
        if is_loop and not child.was_stable and not death.from_outside:
            self._give_up(child, death)
            return
        self._tell.event(
            "child_keeps_dying" if is_loop else "child_died",
            "error" if is_loop else "warning",
            child=child.name,
            status=death.status,
            lived_s=round(death.lived_s, 1),
            deaths=death.deaths,
            retry_in_s=round(death.retry_in_s, 1),
        )

    def _give_up(self, child: Child, death: Death) -> None:
        self.failure = f"the {child.name} ended {death.deaths} times right after its start ({death.status})"
        self.failed_log = child.log
        last = tail(child.log, TAIL_LINES)
        self._tell.event("gave_up", "error", reason=self.failure, log=str(child.log), tail=last)

    def _beat(self, now: float) -> None:
        if now < self._next_beat:
            return
        self._next_beat = now + self._timing.beat_s
        for child in self._family:
            child.beat()
            trim_log(child.log)
        trim_log(self.settings.home_path / "logs" / "supervisor.log")

    # the end

    def _stop(self) -> None:
        """Workers first, so that the last requests still find their engines; then the controller."""
        self._tell.event("stopping", failure=self.failure)
        self._write_state(is_stopping=True)
        self._listener.close()
        self._end(self._workers, self.settings.drain_timeout_s + self._timing.after_drain_s, hurry_s=0.0)
        self._end([self._controller], self._timing.controller_grace_s, hurry_s=self._timing.hurry_s)
        self._sweep(self.settings.run_path)
        self.settings.state_file.unlink(missing_ok=True)
        self._settings_file.unlink(missing_ok=True)
        remove_if_empty(self.settings.run_path / "replicas")
        remove_if_empty(self.settings.run_path)
        self._tell.event("stopped")
        self._lock.release()

    def _end(self, children: Sequence[Child], patience_s: float, *, hurry_s: float) -> None:
        """TERM and wait; KILL after `patience_s`, or `hurry_s` after the second signal."""
        for child in children:
            child.signal(signal.SIGTERM)
        kill_at = time.monotonic() + patience_s
        hurried = False
        while not self._have_ended(children):
            now = time.monotonic()
            if self._signals.count > 1 and not hurried:
                hurried, kill_at = True, min(kill_at, now + hurry_s)
                self._tell.event("stopping_at_once", "warning")
            if now >= kill_at:
                for child in children:
                    child.signal(signal.SIGKILL)
            self._beat(now)
            self._signals.wait(0.05 if now >= kill_at else min(self._next_beat, kill_at) - now)

    def _have_ended(self, children: Sequence[Child]) -> bool:
        return all(child.has_ended() for child in children)

    def _write_state(self, *, is_stopping: bool = False) -> None:
        state = ServerState(
            url=self.url,
            version=__version__,
            started_at=self._started_at,
            pids=Pids(
                supervisor=os.getpid(),
                controller=self._controller.pid,
                workers=tuple(worker.pid for worker in self._workers if worker.pid),
            ),
            is_stopping=is_stopping,
            home=self.settings.home,
            admin_key_file=str(self.settings.admin_key_file),
            certificate=self.settings.tls_certificate,
        )
        try:
            write_private(self.settings.state_file, msgspec.json.encode(state))
        except OSError as exc:  # a full disk: clients find the server by the file that is there
            self._tell.event("state_not_written", "warning", message=str(exc))
