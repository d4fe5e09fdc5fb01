"""
The supervisor: holds the listening socket, starts the rest, and keeps it running.

No request and no decision about models passes through here. The one idea: it is
so small that it does not fail, and what dies under it is started again while the
socket stays open. Told to restart, it becomes its own successor (`app.handover`),
which replaces all others one by one (`app.roll`). Imports are few on purpose: it
must be up at once.
"""

import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pilothouse import __version__
from pilothouse.app.handover import HandOver, Programs, become, check
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
from pilothouse.app.roll import Roll
from pilothouse.app.stop_signals import StopSignals, hold_signals
from pilothouse.config import Settings
from pilothouse.domain.errors import OperationFailed
from pilothouse.kit.log import Level
from pilothouse.kit.ringlog import tail

TAIL_LINES = 20
"""So much of a child's log is told when its setup is wrong."""


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
    """What is left to whoever ends after the second signal."""
    roll_s: float = 0.05
    """How often a replacement under way is looked at."""


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
        is_json: bool = False,
        sweep: Callable[[Path], object] = lambda run_folder: None,  # noqa: ARG005
    ) -> None:
        """
        Args:
            is_json: What it tells is for a program; its successor tells it the same way.
            sweep: Ends what is left of this home when all children are gone; the lock is still held.
        """
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
        self._ignore_hangup, self._is_json = ignore_hangup, is_json
        self._family: list[Child] = []
        """The controller, then the workers."""
        self._retiring: list[tuple[Child, float]] = []
        """Those that were replaced and finish what they have, each with the time when it is killed."""
        self._roll: Roll | None = None
        self._restarts_heard = 0
        self._restarts = 0
        self._restart_failure = ""
        self._started_at = time.time()
        self._settings_file = settings.run_path / "settings"

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

    def resume(self, handover: HandOver) -> None:
        """Instead of `prepare`: go on where the program before the exec was, and replace what it started."""
        self._lock.adopt(handover.lock_fd)
        self._listener = socket.socket(fileno=handover.listener_fd)
        self.url = url_of(self.settings, self._listener)
        self._started_at, self._restarts = handover.started_at, handover.restarts
        self._family = [self._member(place) for place in range(1 + self.settings.workers)]
        running = {one.name: one for one in handover.family}
        for child in self._family:
            if child.name in running:
                child.adopt(running[child.name])
        for place, one in enumerate(handover.retiring):
            child = self._member(min(place, self.settings.workers), name=one.name)
            child.adopt(one)
            self._retire(child)
        self._roll = Roll(self._family, self._member, self._retire)

    # the loop

    def run(self) -> int:
        """Serve until told to end; the process's exit status."""
        allow_many_files()
        if not self._family:
            # Written at `up` alone: the file of `--config` counts once for each (`app.seed`).
            write_private(self._settings_file, self.settings.to_json().encode())
            self._family = [self._member(place) for place in range(1 + self.settings.workers)]
        with self._signals.handled():
            try:
                self._watch()
            finally:
                self._stop()
                # Nothing is left to be told: one more signal must not end it with another status.
                hold_signals(held=True)
        return 1 if self.failure else 0

    def _watch(self) -> None:
        """Until a signal, or a child whose setup is wrong."""
        self._write_state()
        self._tell.event("supervisor_started", url=self.url, pid=os.getpid(), home=self.settings.home)
        while not self._signals.count and not self.failure:
            now = time.monotonic()
            changed = self._tend(now)
            if self._roll is not None:
                changed |= self._go_on(self._roll, now)
            if changed:
                self._write_state()
            self._beat(now)
            if self._roll is None and self._signals.restarts > self._restarts_heard:
                self._hand_over()
            waiting = [child.due_at for child in self._family if not child.pid]
            if self._roll is not None:
                waiting.append(now + self._timing.roll_s)
            self._signals.wait(min([self._next_beat, *waiting]) - time.monotonic())

    def _tend(self, now: float) -> bool:
        """Start whoever is dead, and clear away whoever has retired; True when the family changed."""
        changed = False
        for child in self._family:
            death = child.reap(now, self._random, stable_s=self._timing.stable_s)
            if death:
                self._mourn(child, death)
            if not child.pid and now >= child.due_at and not self.failure:
                changed |= self._start(child, now)
        for child, kill_at in self._retiring:
            if now >= kill_at:
                child.signal(signal.SIGKILL)
        self._retiring = [(child, kill_at) for child, kill_at in self._retiring if not child.has_ended()]
        return changed

    def _member(self, place: int, *, name: str = "") -> Child:
        """A child for that place: 0 is the controller's, the others are the workers'."""
        settings = ("--settings", str(self._settings_file))
        if place == 0:
            name, fds = name or "controller", []
            argv = (*self._programs.controller, *settings)
        else:
            name, fds = name or f"worker-{place - 1}", [self._listener.fileno()]
            argv = (*self._programs.worker, *settings, "--socket-fd", str(fds[0]), "--index", str(place - 1))
        return Child(name, argv, fds=fds, log=self.settings.home_path / "logs" / f"{name}.log")

    # the restart

    def _hand_over(self) -> None:
        """Become the code that is installed now; when it cannot take over, all stays as it is."""
        self._restarts_heard = self._signals.restarts
        handover = HandOver(
            settings=self.settings.to_json(),
            started_at=self._started_at,
            restarts=self._restarts,
            listener_fd=self._listener.fileno(),
            lock_fd=self._lock.fd,
            family=tuple(one for child in self._family if (one := child.as_running())),
            retiring=tuple(one for child, _ in self._retiring if (one := child.as_running())),
            ignore_hangup=self._ignore_hangup,
            is_json=self._is_json,
            programs=self._programs if self._programs != Programs() else None,
        )
        self._tell.event("restarting", pid=os.getpid(), version=__version__)
        self._write_state(is_restarting=True)
        # From here a signal waits for the successor: counted here, it would be forgotten by the exec.
        hold_signals(held=True)
        try:
            check(handover)
            if not self._signals.count:
                become(handover)
        except OperationFailed as exc:
            self._end_restart(exc.message)
        finally:
            hold_signals(held=False)

    def _go_on(self, roll: Roll, now: float) -> bool:
        changed = roll.step(now, self._random)
        if roll.is_done:
            self._roll = None
            self._end_restart(roll.failure)
        return changed

    def _end_restart(self, failure: str) -> None:
        self._restarts += 1
        self._restart_failure = failure
        if failure:
            self._tell.event("restart_failed", "error", message=failure)
        else:
            self._tell.event("restarted", version=__version__, pid=os.getpid())
        self._write_state()

    def _retire(self, child: Child) -> None:
        patience_s = self.settings.drain_timeout_s + self._timing.after_drain_s
        if child.name == "controller":
            patience_s = self._timing.controller_grace_s
        self._retiring.append((child, time.monotonic() + patience_s))

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
        for child in self._everyone():
            child.beat()
            trim_log(child.log)
        trim_log(self.settings.home_path / "logs" / "supervisor.log")

    def _everyone(self) -> list[Child]:
        """Also whoever is on the way out or in."""
        newcomer = self._roll.newcomer if self._roll else None
        return [*self._family, *(child for child, _ in self._retiring), *([newcomer] if newcomer else [])]

    # the end

    def _stop(self) -> None:
        """Workers first, so that the last requests still find their engines; then the controller."""
        self._tell.event("stopping", failure=self.failure)
        self._write_state(is_stopping=True)
        self._listener.close()
        controllers = [child for child in self._everyone() if child.name == "controller"]
        workers = [child for child in self._everyone() if child not in controllers]
        self._end(workers, self.settings.drain_timeout_s + self._timing.after_drain_s)
        self._end(controllers, self._timing.controller_grace_s)
        self._sweep(self.settings.run_path)
        self.settings.state_file.unlink(missing_ok=True)
        self._settings_file.unlink(missing_ok=True)
        self.settings.totals_file.unlink(missing_ok=True)
        self.settings.board_file.unlink(missing_ok=True)
        remove_if_empty(self.settings.run_path / "replicas")
        remove_if_empty(self.settings.run_path)
        self._tell.event("stopped")
        self._lock.release()

    def _end(self, children: Sequence[Child], patience_s: float) -> None:
        """TERM and wait; KILL after `patience_s`. A second signal is passed on, and shortens the wait."""
        for child in children:
            child.signal(signal.SIGTERM)
        kill_at = time.monotonic() + patience_s
        hurried = False
        while alive := [child for child in children if not child.has_ended()]:
            now = time.monotonic()
            if self._signals.count > 1 and not hurried:
                hurried, kill_at = True, min(kill_at, now + self._timing.hurry_s)
                self._tell.event("stopping_at_once", "warning")
                for child in alive:
                    child.signal(signal.SIGTERM)
            if now >= kill_at:
                for child in alive:
                    child.signal(signal.SIGKILL)
            self._beat(now)
            self._signals.wait(0.05 if now >= kill_at else min(self._next_beat, kill_at) - now)

    def _write_state(self, *, is_stopping: bool = False, is_restarting: bool = False) -> None:
        state = ServerState(
            url=self.url,
            version=__version__,
            started_at=self._started_at,
            pids=Pids(
                supervisor=os.getpid(),
                controller=self._family[0].pid,
                workers=tuple(worker.pid for worker in self._family[1:] if worker.pid),
            ),
            is_stopping=is_stopping,
            is_restarting=is_restarting or self._roll is not None,
            restarts=self._restarts,
            restart_failure=self._restart_failure,
            home=self.settings.home,
            admin_key_file=str(self.settings.admin_key_file),
            certificate=self.settings.tls_certificate,
        )
        try:
            write_private(self.settings.state_file, msgspec.json.encode(state))
        except OSError as exc:  # a full disk: clients find the server by the file that is there
            self._tell.event("state_not_written", "warning", message=str(exc))
