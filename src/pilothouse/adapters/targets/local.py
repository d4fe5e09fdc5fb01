"""
Replicas as detached processes of this machine, which outlive Pilothouse.

Belongs here: the order in which processes are made and ended. Does not: what is
written down of them (`_book`), the mechanisms (`kit.processes`). The one idea:
files and the process table are all there is. What is meant is written down
before it is done, so that a new `LocalTarget` over the same folders finds
everything, whenever the last one died.
"""

import asyncio
import hashlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import psutil
from msgspec.structs import replace

from pilothouse.adapters.targets._book import Book, Trace
from pilothouse.adapters.targets._places import Places
from pilothouse.domain.errors import InvalidRequest, NotFound, OperationFailed
from pilothouse.domain.status import Replica
from pilothouse.kit import keeper, processes, ringlog
from pilothouse.kit.processes import Identity
from pilothouse.ports.engine import Launch

LOOK_S = 0.02
KILL_WAIT_S = 5.0
MAX_SOCKET_PATH_BYTES = 103
"""What macOS allows before the final zero; Linux allows 107."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


class LocalTarget:
    """
    Implements `ports.target.Target`.

    Args:
        run_folder: For state files and sockets; its path must be short.
        logs_folder: For the replicas' ring logs.
        free_bytes: Memory that a new process could have now.
    """

    name = "local"

    def __init__(
        self, run_folder: Path, logs_folder: Path, *, free_bytes: Callable[[], int] | None = None
    ) -> None:
        self._book = Book(run_folder, logs_folder)
        self._free_bytes = free_bytes or _free_bytes
        self._stopping: dict[str, int] = {}
        self._has_cleaned = False

    async def observe(self) -> list[Replica]:
        return await asyncio.to_thread(self._observe)

    async def start(
        self,
        name: str,
        launch: Launch,
        *,
        deployment: str,
        engine: str,
        model_digest: str,
        model_version: str,
    ) -> Replica:
        """
        Raises:
            OperationFailed: It cannot be started here; the message says why.
        """
        _check_name(name)
        wanted = Replica(
            name=name,
            deployment=deployment,
            model_digest=model_digest,
            model_version=model_version,
            state="starting",
            engine=engine,
            address=launch.address,  # filled in with all other places, right before the start
            slots=launch.slots,
            context_tokens=launch.context_tokens,
            ready_timeout_s=launch.ready_timeout_s,
            options=launch.options,
            launch_digest=hashlib.sha256(msgspec.json.encode(launch)).hexdigest()[:16],
        )
        try:
            found = await asyncio.to_thread(self._start, wanted, launch)
            if not isinstance(found, Replica):
                await _kill(name, found)
                found = await asyncio.to_thread(self._start, wanted, launch)
        except OSError as exc:
            raise OperationFailed(f"replica {name} cannot be started: {exc}") from exc
        if not isinstance(found, Replica):
            raise OperationFailed(f"replica {name} is started and ended at once by others; try again")
        return found

    async def stop(self, name: str, *, grace_s: float) -> None:
        """
        Raises:
            OperationFailed: It is still there after KILL.
        """
        _check_name(name)
        self._stopping[name] = self._stopping.get(name, 0) + 1
        try:
            found = await asyncio.to_thread(self._processes_of, name)
            for identity in found:
                processes.terminate(identity)
            if not await _are_gone(found, grace_s):
                await _kill(name, found)
            await asyncio.to_thread(self._forget, name, found)
        finally:
            self._stopping[name] -= 1
            if not self._stopping[name]:
                del self._stopping[name]

    async def logs(self, name: str, *, lines: int) -> list[str]:
        path = self._book.log_path(name)
        if not _NAME.fullmatch(name) or not (path.exists() or ringlog.older_part(path).exists()):
            raise NotFound(f"there is no log of a replica {name[:100]!r}; see: pilothouse get replicas")
        return await asyncio.to_thread(ringlog.tail, path, lines)

    def _observe(self) -> list[Replica]:
        if not self._book.folder.is_dir():
            return []
        with self._book.locked():
            traces = self._book.all()
            if not self._has_cleaned:
                for stray in self._book.strays():
                    processes.kill_group(stray)
                self._has_cleaned = True
        # Who is being stopped and has ended is as good as gone: its end is no failure.
        return [one.seen for one in traces if not (one.ended and one.replica.name in self._stopping)]

    def _start(self, wanted: Replica, launch: Launch) -> Replica | list[Identity]:
        """The living replica of that name, new or old; or processes that have to go first."""
        name = wanted.name
        self._book.make()
        with self._book.locked():
            known = self._book.read(name)
            if known is not None and not known.ended:
                return known.replica
            if left := self._book.left_behind(name, known):
                return left
            self._refuse_what_cannot_run(launch)
            places = Places(self._book, name, launch)
            replica = replace(wanted, address=places.address, token_file=places.token_file)
            trace = Trace(replica=replica, memory_bytes=launch.memory_bytes)
            self._book.note_intent(trace)
            try:
                places.make()
                identity = self._spawn(name, places)
            except (OSError, OperationFailed):
                self._book.forget(name)
                raise
            self._book.note_birth(trace, identity)
            return trace.replica

    def _spawn(self, name: str, places: Places) -> Identity:
        log, argv = self._book.log_path(name), places.argv
        if not os.access(argv[0], os.X_OK):
            raise FileNotFoundError(f"there is no program {argv[0]}")
        if str(log) not in argv:
            mark = ["--replica", name, "--home-id", self._book.home_id, "--log", str(log)]
            argv = [sys.executable, "-I", "-S", keeper.__file__, *mark, "--", *argv]
        folder = self._book.work_folder(name)
        return processes.spawn(argv, env=places.env, cwd=folder, output=log)

    def _refuse_what_cannot_run(self, launch: Launch) -> None:
        socket = self._book.socket_path("")
        if len(str(socket).encode()) > MAX_SOCKET_PATH_BYTES:
            raise OperationFailed(
                f"a socket's path has at most {MAX_SOCKET_PATH_BYTES} bytes, and {socket} has more; "
                "choose a shorter --home"
            )
        # What others were promised and have not touched yet still looks free.
        promised = sum(
            max(0, trace.memory_bytes - processes.resident_bytes(trace.identity))
            for trace in self._book.all()
            if trace.identity and not trace.ended
        )
        free = self._free_bytes()
        if launch.memory_bytes > free - promised:
            raise OperationFailed(
                f"a replica needs {_mb(launch.memory_bytes)} of memory, but {_mb(free)} are free, of which "
                f"{_mb(promised)} go to replicas that still load; lower replicas, slots or context_tokens"
            )

    def _processes_of(self, name: str) -> list[Identity]:
        if not self._book.folder.is_dir():
            return []
        with self._book.locked():
            trace = self._book.read(name)
            left = self._book.left_behind(name, trace)
            return [trace.identity, *left] if trace and trace.identity and not trace.ended else left

    def _forget(self, name: str, ended: list[Identity]) -> None:
        if not self._book.folder.is_dir():
            return
        with self._book.locked():
            trace = self._book.read(name)
            if trace is None or trace.ended or trace.identity in ended:  # not: started anew meanwhile
                self._book.forget(name)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"a replica's name has letters, digits, dots and dashes, not {name[:100]!r}")


async def _kill(name: str, found: list[Identity]) -> None:
    for identity in found:
        processes.kill_group(identity)
    if not await _are_gone(found, KILL_WAIT_S):
        pids = ", ".join(str(identity.pid) for identity in found)
        raise OperationFailed(f"replica {name} (pid {pids}) does not end, not even by KILL")


async def _are_gone(found: Iterable[Identity], timeout_s: float) -> bool:
    """Wait until nobody of these groups lives, for at most `timeout_s`."""
    left = list(found)
    deadline = time.monotonic() + timeout_s
    while True:
        for identity in left:
            processes.reap(identity.pid)
        left = [one for one in left if processes.group_members(one)]
        if not left or time.monotonic() >= deadline:
            return not left
        await asyncio.sleep(LOOK_S)


def _free_bytes() -> int:
    return psutil.virtual_memory().available


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.0f} MB"
