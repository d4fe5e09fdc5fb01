"""
What is written down of the replicas of this machine, a file each, and made true again when read.

Belongs here: the state files, their lock, and settling what a crash left open.
Does not: making and ending processes (`local`). The one idea: a reader never
gets a claim that the process table contradicts.
"""

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pilothouse.adapters.targets import _shared_memory
from pilothouse.domain.errors import OperationFailed
from pilothouse.domain.status import Replica
from pilothouse.kit import processes, ringlog
from pilothouse.kit.folders import make_private
from pilothouse.kit.processes import Identity

LOCK_LOOK_S = 0.01
LOCK_WAIT_S = 10.0
"""The lock is held for the milliseconds that a look or a fork takes, never while something is waited for."""
KEPT_LOGS = 20
"""Logs of replicas that are gone: enough to read why, and no more."""


class Trace(Struct, kw_only=True):
    """One replica: what is said of it, and who it is."""

    replica: Replica
    memory_bytes: int
    """What it was promised."""
    identity: Identity | None = None
    """None between the intent to start it and its start."""
    ended: str = ""
    """Why it lives no more; "" while it does."""

    @property
    def seen(self) -> Replica:
        return replace(self.replica, state="failed", reason=self.ended) if self.ended else self.replica


class Book:
    """
    The traces of one home. All but the paths is called with the lock held.

    Args:
        folder: For state files and sockets.
        logs: For the replicas' ring logs.
    """

    def __init__(self, folder: Path, logs: Path) -> None:
        self.folder = folder
        self.home_id = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
        self._logs = logs

    def socket_path(self, name: str) -> Path:
        """Short whatever the name is, for its length is limited."""
        return self.folder / (hashlib.sha256(name.encode()).hexdigest()[:12] + ".sock")

    def file_of(self, name: str, kind: str) -> Path:
        return self.folder / f"{name}.{kind}"

    def work_folder(self, name: str) -> Path:
        """The process's own. Short, for it makes sockets and caches in it."""
        return self.socket_path(name).with_suffix(".d")

    def log_path(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def make(self) -> None:
        make_private(self.folder)
        make_private(self._logs)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """
        Alone among all threads and processes over this folder.

        The folder itself is locked, so that nothing stays behind. The lock goes
        with its holder, and a fork keeps it until its program runs.
        """
        fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            deadline = time.monotonic() + LOCK_WAIT_S
            while not _try_lock(fd):
                if time.monotonic() >= deadline:
                    raise OperationFailed(
                        f"{self.folder} is locked by another process; see: pilothouse doctor"
                    )
                time.sleep(LOCK_LOOK_S)
            yield
        finally:
            os.close(fd)

    def all(self) -> list[Trace]:
        traces = [self.read(path.stem) for path in sorted(self.folder.glob("*.json"))]
        return [trace for trace in traces if trace is not None]

    def read(self, name: str) -> Trace | None:
        """What is written of it, settled: who was made unnoticed, and who ended since."""
        try:
            trace = msgspec.json.decode(self.file_of(name, "json").read_bytes(), type=Trace)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError:  # files change whole, so the disk failed: as good as none
            return None
        if trace.ended:
            return trace
        if trace.identity is None:
            self._find_made(trace)
        elif not processes.is_alive(trace.identity):
            self._note_end(trace, _why_ended(trace.identity))
        return trace

    def note_intent(self, trace: Trace) -> None:
        self._write(trace)

    def note_birth(self, trace: Trace, identity: Identity) -> None:
        born = processes.started_at(identity) or time.time()
        trace.identity = identity
        trace.replica = replace(trace.replica, pid=identity.pid, started_at=born)
        self._write(trace)

    def forget(self, name: str) -> None:
        shutil.rmtree(self.work_folder(name), ignore_errors=True)
        for path in (
            self.socket_path(name),
            *(self.file_of(name, kind) for kind in ("config", "token", "json")),
        ):
            path.unlink(missing_ok=True)
        _shared_memory.clear(self.home_id, name)
        self._trim_logs()

    def left_behind(self, name: str, trace: Trace | None) -> list[Identity]:
        """Processes of that name that nothing is written of, and helpers that outlived their leader."""
        identity = trace.identity if trace else None
        others = [one for one in self._marked(name) if one != identity]
        if trace and trace.ended and identity and processes.group_members(identity):
            others.append(identity)
        return others

    def strays(self) -> list[Identity]:
        """Processes of ours that no file names: nobody can ask for them."""
        known = {trace.identity for trace in self.all()}
        return [one for one in self._leaders("--home-id", self.home_id) if one not in known]

    def _find_made(self, trace: Trace) -> None:
        """
        Settle an intent. Nobody is half-way here: whoever forks holds the lock,
        and so does the fork until its program runs.
        """
        if made := self._marked(trace.replica.name):
            self.note_birth(trace, made[0])
        else:
            self._note_end(trace, "Pilothouse ended before it could start it")

    def _note_end(self, trace: Trace, reason: str) -> None:
        last = ringlog.tail(self.log_path(trace.replica.name), 1)
        trace.ended = f"{reason}; its last line: {last[0][:300]}" if last else reason
        try:
            self._write(trace)
        except OSError:  # a full disk must not blind us: it is found out again at the next look
            pass

    def _marked(self, name: str) -> list[Identity]:
        return self._leaders("--replica", name, "--home-id", self.home_id)

    def _leaders(self, *words: str) -> list[Identity]:
        leaders = [processes.leader_of(one) for one in processes.find(words)]
        return list(dict.fromkeys(one for one in leaders if one is not None))

    def _trim_logs(self) -> None:
        alive = {path.stem for path in self.folder.glob("*.json")}
        gone = [path for path in self._logs.glob("*.log") if path.stem not in alive]
        for path in sorted(gone, key=lambda path: path.stat().st_mtime)[:-KEPT_LOGS]:
            ringlog.remove(path)

    def _write(self, trace: Trace) -> None:
        write_private(self.file_of(trace.replica.name, "json"), msgspec.json.encode(trace))


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_private(path: Path, data: bytes) -> None:
    """Whole or not at all, and for the owner alone."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    part.write_bytes(data)
    part.replace(path)


def _why_ended(identity: Identity) -> str:
    status = processes.reap(identity.pid)
    if status is None:
        return "it ended while nobody watched, so its exit status is unknown"
    return processes.describe_exit(status)
