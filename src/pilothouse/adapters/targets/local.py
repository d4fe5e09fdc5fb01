"""
Replicas as processes of this machine, which outlive Pilothouse.

Each replica has a state file with who it is (pid and birth) and how it was
started; the file is written before the process is made and again after, so that
no crash in between loses or doubles one. The files and the process table are all
there is: a new `LocalTarget` over the same folders finds everything.
"""

import asyncio
import hashlib
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from pilothouse.domain.errors import NotFound, OperationFailed
from pilothouse.domain.status import Replica
from pilothouse.kit import processes, ringlog
from pilothouse.kit.folders import make_private
from pilothouse.kit.processes import Identity
from pilothouse.ports.engine import Launch

LOOK_S = 0.02
KILL_WAIT_S = 5.0
MAX_SOCKET_PATH_BYTES = 107


class _State(Struct, kw_only=True):
    name: str
    deployment: str
    engine: str
    model_digest: str
    model_version: str
    address: str
    slots: int
    context_tokens: int
    identity: Identity | None = None
    """None between the intent to start it and its start."""
    started_at: float = 0.0
    exit: str = ""


class LocalTarget:
    """
    Implements `ports.target.Target`.

    Args:
        run_folder: For state files and sockets; its path must be short.
        logs_folder: For the replicas' ring logs.
    """

    name = "local"

    def __init__(self, run_folder: Path, logs_folder: Path) -> None:
        self._folder = run_folder
        self._logs = logs_folder
        self._home_id = hashlib.sha256(str(run_folder).encode()).hexdigest()[:16]
        self._locks: dict[str, asyncio.Lock] = {}

    async def observe(self) -> list[Replica]:
        if not self._folder.is_dir():
            return []
        states = [self._read(path) for path in sorted(self._folder.glob("*.json"))]
        return [self._look(state) for state in states if state is not None]

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
            OperationFailed: The socket's path is too long, or the program cannot be run.
        """
        async with self._locks.setdefault(name, asyncio.Lock()):
            known = self._read(self._state_path(name))
            if known is not None and (found := self._look(known)).state != "failed":
                return found
            socket = self._socket_path(name)
            state = _State(
                name=name,
                deployment=deployment,
                engine=engine,
                model_digest=model_digest,
                model_version=model_version,
                address=launch.address.replace("{socket}", str(socket)),
                slots=launch.slots,
                context_tokens=launch.context_tokens,
            )
            make_private(self._folder)
            make_private(self._logs)
            self._write(state)
            state.identity = await asyncio.to_thread(self._spawn, name, launch, socket)
            state.started_at = processes.started_at(state.identity) or time.time()
            self._write(state)
            return self._look(state)

    async def stop(self, name: str, *, grace_s: float) -> None:
        """
        Raises:
            OperationFailed: It is still there after KILL.
        """
        async with self._locks.setdefault(name, asyncio.Lock()):
            state = self._read(self._state_path(name))
            for identity in self._processes_of(name, state):
                await self._end(name, identity, grace_s)
            self._forget(name)
        self._locks.pop(name, None)

    async def logs(self, name: str, *, lines: int) -> list[str]:
        path = self._log_path(name)
        if "/" in name or not path.exists():
            raise NotFound(f"there is no log of a replica {name[:100]!r}; see: pilothouse get replicas")
        return await asyncio.to_thread(ringlog.tail, path, lines)

    def _spawn(self, name: str, launch: Launch, socket: Path) -> Identity:
        if len(str(socket).encode()) > MAX_SOCKET_PATH_BYTES:
            raise OperationFailed(f"the socket's path {socket} is over 107 bytes; choose a shorter --home")
        config = self._folder / f"{name}.config"
        words = {
            "{socket}": str(socket),
            "{config}": str(config),
            "{log}": str(self._log_path(name)),
            "{home}": self._home_id,
            "{name}": name,
        }
        _write_private(config, launch.config.replace("{socket}", str(socket)).encode())
        socket.unlink(missing_ok=True)
        argv = [words.get(word, word) for word in launch.argv]
        try:
            return processes.spawn(argv, env=launch.env, cwd=self._folder, output=self._log_path(name))
        except OSError as exc:
            self._forget(name)
            raise OperationFailed(f"replica {name} cannot be started: {argv[0]}: {exc.strerror}") from exc

    def _look(self, state: _State) -> Replica:
        identity = state.identity
        if identity is None:
            identity = self._find_started(state)
        reason = state.exit
        if identity is not None and not reason:
            status = processes.reap(identity.pid)
            if status is not None:
                reason = processes.describe_exit(status)
            elif not processes.is_alive(identity):
                reason = "it ended while nobody watched; its exit status is unknown"
        elif identity is None:
            reason = "it was to be started, and was not"
        if reason and reason != state.exit:
            state.exit = reason
            self._write(state)
        return Replica(
            name=state.name,
            deployment=state.deployment,
            model_digest=state.model_digest,
            model_version=state.model_version,
            state="failed" if reason else "starting",
            engine=state.engine,
            address=state.address,
            pid=identity.pid if identity else 0,
            started_at=state.started_at,
            reason=self._with_last_line(state.name, reason) if reason else "",
            slots=state.slots,
            context_tokens=state.context_tokens,
        )

    def _find_started(self, state: _State) -> Identity | None:
        """A process made right before a crash kept us from writing down who it is."""
        if self._is_being_started(state.name):
            return None
        found = processes.find(["--replica", state.name, "--home-id", self._home_id])
        if not found:
            return None
        state.identity = found[0]
        state.started_at = processes.started_at(found[0])
        self._write(state)
        return found[0]

    def _is_being_started(self, name: str) -> bool:
        lock = self._locks.get(name)
        return lock is not None and lock.locked()

    def _processes_of(self, name: str, state: _State | None) -> list[Identity]:
        found = processes.find(["--replica", name, "--home-id", self._home_id])
        if state is not None and state.identity is not None and state.identity not in found:
            found.append(state.identity)
        return found

    async def _end(self, name: str, identity: Identity, grace_s: float) -> None:
        processes.terminate(identity)
        if await _is_gone(identity, grace_s):
            return
        processes.kill_group(identity)
        if not await _is_gone(identity, KILL_WAIT_S):
            raise OperationFailed(f"replica {name} (pid {identity.pid}) does not end, not even by KILL")

    def _with_last_line(self, name: str, reason: str) -> str:
        last = ringlog.tail(self._log_path(name), 1)
        return f"{reason}; its last line: {last[0][:300]}" if last else reason

    def _forget(self, name: str) -> None:
        for path in (self._socket_path(name), self._folder / f"{name}.config", self._state_path(name)):
            path.unlink(missing_ok=True)

    def _read(self, path: Path) -> _State | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=_State)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError:
            path.unlink(missing_ok=True)  # never complete: nothing was started under it
            return None

    def _write(self, state: _State) -> None:
        _write_private(self._state_path(state.name), msgspec.json.encode(state))

    def _state_path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _socket_path(self, name: str) -> Path:
        return self._folder / (hashlib.sha256(name.encode()).hexdigest()[:12] + ".sock")

    def _log_path(self, name: str) -> Path:
        return self._logs / f"{name}.log"


async def _is_gone(identity: Identity, timeout_s: float) -> bool:
    """Wait until nobody of its group lives, for at most `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        processes.reap(identity.pid)
        if not processes.is_alive(identity) and not processes.group_members(identity):
            return True
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(LOOK_S)


def _write_private(path: Path, data: bytes) -> None:
    """Whole or not at all, and for the owner alone."""
    part = path.with_name(path.name + ".part")
    part.touch(mode=0o600)
    part.write_bytes(data)
    part.replace(path)
