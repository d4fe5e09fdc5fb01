"""
The supervisor's children: starting one, seeing it die, starting it again.

Which children there are, and when all of them shall end, the supervisor says.
The one idea: a child holds a pipe to its parent, so that neither outlives the
other unnoticed, and nothing but the listed descriptors is inherited.
"""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Protocol

from msgspec import Struct

from pilothouse.kit.pulse import Heartbeat, Readiness
from pilothouse.kit.retry import Backoff

RESTARTS = Backoff(first_s=0.2, factor=2.0, ceiling_s=30.0)
"""The first restart comes within 0.2 s: connections wait in the listening socket meanwhile."""
OUTSIDE_CEILING_S = 1.0
"""Whoever was killed from outside is not in a crash loop: he is not kept waiting."""
OPEN_FILES = 65_536
LOG_BYTES = 4 * 1024 * 1024
"""A log file is at most so long, and one older file of that length lies beside it."""


class Death(Struct, frozen=True, kw_only=True):
    """How a child ended: the nth time in a row that it did not live long."""

    status: str
    lived_s: float
    deaths: int
    retry_in_s: float
    from_outside: bool = False
    """Somebody sent SIGKILL or SIGTERM (the kernel, short of memory, is one): no fault of its setup."""


class Running(Struct, frozen=True, kw_only=True):
    """A child that runs, as one supervisor hands it to the next: pid and pipe stay what they are."""

    name: str
    pid: int
    heartbeat_fd: int
    started_at: float
    """Monotonic time, which an exec does not change."""


class _Process(Protocol):
    """What is used of `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def send_signal(self, number: int) -> None: ...


class _Adopted:
    """A child that the program before the exec started: it is ours by its pid alone."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # somebody took its status: it is gone, however it went
                self._code = 0
            else:
                self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


class Child:
    """One place in the family, filled by one process at a time."""

    def __init__(self, name: str, argv: Sequence[str], *, fds: Sequence[int] = (), log: Path) -> None:
        self.name = name
        self.log = log
        self.deaths = 0
        self.was_stable = False
        """It once lived long enough: what it does now is no fault of the setup."""
        self.due_at = 0.0
        """Monotonic time of its next start, while it is dead."""
        self._argv = tuple(argv)
        self._fds = tuple(fds)
        self._process: _Process | None = None
        self._heartbeat: Heartbeat | None = None
        self._readiness: Readiness | None = None
        self._started_at = 0.0

    @property
    def pid(self) -> int:
        """0 while it is dead."""
        return self._process.pid if self._process else 0

    def adopt(self, running: Running) -> None:
        """Go on with a process that this supervisor's predecessor started."""
        self._process = _Adopted(running.pid)
        self._heartbeat = Heartbeat(fd=running.heartbeat_fd)
        self._started_at = running.started_at
        self.was_stable = True

    def as_running(self) -> Running | None:
        """What a successor needs to adopt it; None while it is dead."""
        if self._process is None or self._heartbeat is None:
            return None
        return Running(
            name=self.name,
            pid=self._process.pid,
            heartbeat_fd=self._heartbeat.fd,
            started_at=self._started_at,
        )

    def has_said(self, stage: bytes) -> bool:
        """Whether its process came to that stage of its start (`kit.pulse`)."""
        return self._readiness is not None and self._readiness.said(stage)

    def start(self, now: float) -> None:
        """
        Start its process, in a session of its own: a Ctrl-C on the terminal is for the supervisor alone.

        Raises:
            OSError: The machine has no process or descriptor left; try again later.
        """
        heartbeat, readiness = Heartbeat(), Readiness()
        # -P: the folder that `up` was called in is no place to import modules from.
        argv = [sys.executable, "-P", *self._argv, "--heartbeat-fd", str(heartbeat.child_fd)]
        argv += ["--ready-fd", str(readiness.child_fd)]
        try:
            with self.log.open("ab") as output:
                self._process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(heartbeat.child_fd, readiness.child_fd, *self._fds),
                    start_new_session=True,
                )
        except OSError:
            heartbeat.close()
            readiness.close()
            raise
        heartbeat.close_child_end()
        readiness.close_child_end()
        self._heartbeat, self._readiness = heartbeat, readiness
        self._started_at = now

    def beat(self) -> None:
        if self._heartbeat:
            self._heartbeat.beat()

    def reap(self, now: float, random: Random, *, stable_s: float) -> Death | None:
        """What happened to it since the last look; None when it lives, or was dead already."""
        code = self._process.poll() if self._process else None
        if code is None:
            return None
        self._forget()
        lived_s = now - self._started_at
        if lived_s >= stable_s:
            self.deaths, self.was_stable = 0, True
        outside = code in (-signal.SIGKILL, -signal.SIGTERM)
        return self.delay_start(
            now, random, status=describe_exit(code), lived_s=lived_s, from_outside=outside
        )

    def delay_start(
        self, now: float, random: Random, *, status: str, lived_s: float = 0.0, from_outside: bool = False
    ) -> Death:
        """Count a death (or a start that failed), and set the time of the next start."""
        self.deaths += 1
        delay_s = RESTARTS.delay_s(self.deaths, random)
        if from_outside:
            delay_s = min(delay_s, OUTSIDE_CEILING_S)
        self.due_at = now + delay_s
        return Death(
            status=status,
            lived_s=lived_s,
            deaths=self.deaths,
            retry_in_s=delay_s,
            from_outside=from_outside,
        )

    def signal(self, number: signal.Signals) -> None:
        """Nothing when it is dead: its status was taken, so the pid may be another's."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(number)

    def has_ended(self) -> bool:
        """Also clears away what is left of it."""
        if self._process and self._process.poll() is not None:
            self._forget()
        return self._process is None

    def _forget(self) -> None:
        self._process = None
        if self._heartbeat:
            self._heartbeat.close()
            self._heartbeat = None
        if self._readiness:
            self._readiness.close()
            self._readiness = None


def describe_exit(code: int) -> str:
    """`exit status 1`, or `killed by SIGKILL`."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def allow_many_files() -> None:
    """Raise the soft limit of open files for this process and its children: a connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # some systems allow less than they say; `doctor` tells of a low limit
        pass


def trim_log(path: Path, *, max_bytes: int = LOG_BYTES) -> None:
    """
    Keep a log file bounded while its writer holds it open.

    The file is copied aside and emptied in place: its writer appends, so that it
    goes on at the new end. Lines written between the two steps are lost.
    """
    try:
        if path.stat().st_size <= max_bytes:
            return
        older = path.with_name(path.name + ".1")
        older.write_bytes(_last_bytes(path, max_bytes))
        os.truncate(path, 0)
    except OSError:  # a full disk: emptying the log is what helps most
        try:
            os.truncate(path, 0)
        except OSError:
            pass


def _last_bytes(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - count))
        return file.read(count)


def detach(log: Path) -> int:
    """
    Fork: the child (0 is returned) has no terminal and writes to `log`; the parent gets its pid.

    Call it while there is one thread. What was opened before is shared, so a
    lock or a listening socket passes over without a gap. What the caller of this
    program left open in it does not: else a server would hold a stranger's lock or pipe.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    with log.open("ab") as output, Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    _let_go_of_strangers()
    return 0


def _let_go_of_strangers() -> None:
    """Close what came with the start of this program: what it opened itself is never inherited (PEP 446)."""
    for fd in [int(entry.name) for entry in Path("/dev/fd").iterdir()]:
        # The listing's own descriptor is closed by now.
        with suppress(OSError):
            if fd > 2 and os.get_inheritable(fd):
                os.close(fd)
