"""
How a supervisor becomes its own successor: the exec, and what passes over it.

A process keeps its pid, its children and its open descriptors when it executes
another program, so the new code finds the socket, the lock and the pipes of its
children where the old code left them; it only has to be told which is which.
That is one small JSON value in a pipe. Before there is no way back, the new code
is asked whether it can read it.
"""

import os
import subprocess
import sys
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from pilothouse.app.processes import Running
from pilothouse.config import Settings
from pilothouse.domain.errors import OperationFailed

RESUME = "pilothouse.cli.resume"
CHECK_TIMEOUT_S = 8.0
"""The children's hearts do not beat meanwhile, and they wait 10 s for a beat."""
_PIPE_BYTES = 60 * 1024
"""So much fits into a pipe that nobody reads yet."""


class Programs(Struct, frozen=True, kw_only=True):
    """What Python runs as children: other ones in tests."""

    controller: tuple[str, ...] = ("-m", "pilothouse.app.controller")
    worker: tuple[str, ...] = ("-m", "pilothouse.app.worker")


class HandOver(Struct, frozen=True, kw_only=True):
    """All that the next supervisor needs. Fields may be added: what is unknown or absent is no fault."""

    settings: str
    """`Settings.to_json`."""
    started_at: float
    restarts: int
    listener_fd: int
    lock_fd: int
    family: tuple[Running, ...]
    """Controller and workers that serve."""
    retiring: tuple[Running, ...] = ()
    """Those of an earlier restart that still finish their requests."""
    ignore_hangup: bool = False
    is_json: bool = False
    programs: Programs | None = None
    """None: those of the new code."""

    @property
    def fds(self) -> tuple[int, ...]:
        return (
            self.listener_fd,
            self.lock_fd,
            *(child.heartbeat_fd for child in (*self.family, *self.retiring)),
        )


def check(handover: HandOver) -> None:
    """
    Ask the code that is installed now whether it could take over.

    Raises:
        OperationFailed: It cannot; the message says why.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", RESUME, "--check"],
            input=msgspec.json.encode(handover),
            capture_output=True,
            timeout=CHECK_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise OperationFailed(f"the installed version does not start: {exc}") from exc
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise OperationFailed(
            f"the installed version cannot take over: {last[0]}. "
            "fix: repair the installation, then restart again"
        )


def become(handover: HandOver) -> None:
    """
    Execute the new code in this process, with signals held (`hold_signals`). Returns only by raising.

    Raises:
        OperationFailed: The exec failed; this process goes on as it was.
    """
    data = msgspec.json.encode(handover)
    if len(data) > _PIPE_BYTES:
        raise OperationFailed(f"{len(data)} bytes of state are more than a pipe takes")
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    kept = (reading, *handover.fds)
    sys.stdout.flush()
    sys.stderr.flush()
    _inherit(kept, inheritable=True)
    try:
        argv = [sys.executable, "-P", "-m", RESUME, "--handover-fd", str(reading)]
        os.execv(sys.executable, argv)  # noqa: S606 - our own interpreter, without a shell on purpose
    except OSError as exc:
        _inherit(kept, inheritable=False)
        os.close(reading)
        raise OperationFailed(f"{sys.executable} cannot be executed: {exc.strerror}") from exc


def take(fd: int) -> HandOver:
    """What the predecessor left; its descriptors are no longer inherited by children."""
    with os.fdopen(fd, "rb") as pipe:
        handover = read(pipe.read())
    _inherit(handover.fds, inheritable=False)
    return handover


def read(data: bytes) -> HandOver:
    """
    Raises:
        OperationFailed: This code does not understand it.
    """
    try:
        handover = msgspec.json.decode(data, type=HandOver)
        Settings.from_json(handover.settings)
    except msgspec.DecodeError as exc:
        raise OperationFailed(f"the running server's state is not understood: {exc}") from exc
    return handover


def _inherit(fds: Sequence[int], *, inheritable: bool) -> None:
    for fd in fds:
        os.set_inheritable(fd, inheritable)
