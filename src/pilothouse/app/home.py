"""
The home of a running server: its folders, its lock, its socket, and the file that says where it runs.

Processes are not started here. The one idea: the lock lives exactly as long as
the supervisor, so it alone says whether a server runs; `server.json` only
describes it, and may be left over from a killed one.
"""

import errno
import fcntl
import os
import socket
import time
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from pilothouse.config import Settings
from pilothouse.domain.errors import Conflict, OperationFailed
from pilothouse.kit.folders import make_private
from pilothouse.kit.lockfile import LockFile, LockTimeout, wait_for_lock

LOCK_PATIENCE_S = 0.5
"""Someone who only looks holds the lock for a moment; so long is that waited for."""
BACKLOG = 4096


class Pids(Struct, frozen=True, kw_only=True):
    supervisor: int
    controller: int = 0
    workers: tuple[int, ...] = ()


class ServerState(Struct, frozen=True, kw_only=True):
    """What `server.json` says. `started_at` (Unix seconds) and the pid together are the identity."""

    url: str
    version: str
    started_at: float
    pids: Pids
    is_stopping: bool = False
    """It was told to end: a second signal would cut the requests that it still finishes."""
    is_restarting: bool = False
    """Controller and workers are being replaced."""
    restarts: int = 0
    """Restarts that came to an end, whichever."""
    restart_failure: str = ""
    """Why the last one was given up; empty when all was replaced."""
    home: str = ""
    admin_key_file: str = ""
    certificate: str = ""
    """The PEM file that the server presents, for clients on this machine to pin; empty without TLS."""


def prepare_folders(settings: Settings) -> None:
    """
    Make home, keys and run folders, open to their owner alone.

    Raises:
        OperationFailed: One cannot be made or written, is another user's, or keys and home are not apart.
    """
    home, keys = settings.home_path, settings.keys_path
    if keys.resolve().is_relative_to(home.resolve()) or home.resolve().is_relative_to(keys.resolve()):
        raise OperationFailed(
            f"the keys folder {keys} and the home {home} lie inside each other, so that one copy takes both. "
            f"fix: pilothouse up --keys {home}-keys"
        )
    # A home may be a link to a bigger disk; the run folder may lie in a shared place and must not be one.
    for folder in (home.resolve(), keys.resolve(), settings.run_path, home.resolve() / "logs"):
        try:
            make_private(folder)
        except OSError as exc:
            raise OperationFailed(
                f"cannot use the folder {folder}: {exc.strerror or exc}. fix: make it yours, or name another"
            ) from exc
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OperationFailed(f"the folder {folder} is not writable. fix: chmod u+rwx {folder}")


def remove_if_empty(folder: Path) -> None:
    """The run folder may lie in the shared temporary folder: leave nothing there."""
    try:
        folder.rmdir()
    except OSError:  # something of an engine or of a killed process is still in it
        pass


class HomeLock:
    """Held from `up` to the end of the supervisor, however it ends."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock = LockFile(home / "supervisor.lock")

    @property
    def fd(self) -> int:
        return self._lock.fd

    def adopt(self, fd: int) -> None:
        """Go on holding what the program before an exec held."""
        self._lock.adopt(fd)

    def acquire(self) -> None:
        """
        Raises:
            Conflict: A server runs in this home; the message says where.
        """
        try:
            wait_for_lock(self._lock, timeout_s=LOCK_PATIENCE_S)
        except LockTimeout as exc:
            raise Conflict(_who_runs(self._home)) from exc

    def release(self) -> None:
        """Close it. After a fork the other process holds it on."""
        self._lock.release()


def is_locked(home: Path) -> bool:
    """Whether a supervisor of this home lives."""
    try:
        fd = os.open(home / "supervisor.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Shared, so that two who look do not see each other.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _who_runs(home: Path) -> str:
    state = read_state(home / "server.json")
    if state is None:
        return f"another server is starting in {home}. fix: pilothouse status, or name another --home"
    return (
        f"a server of {home} already runs at {state.url} (pid {state.pids.supervisor}). "
        f"fix: use it, stop it with: pilothouse down --home {home}, or name another --home"
    )


def read_state(path: Path) -> ServerState | None:
    """What the file says; None when there is none, or nothing that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=ServerState)
    except (OSError, msgspec.DecodeError):
        return None


def server_url(path: Path) -> str:
    """Where clients reach this server, as its supervisor wrote it down; empty as long as it did not."""
    state = read_state(path)
    return state.url if state else ""


def running_server(home: Path) -> ServerState | None:
    """The server that runs in this home now; None when none does."""
    return read_state(home / "server.json") if is_locked(home) else None


def write_private(path: Path, data: bytes) -> None:
    """Replace `path` at once by a file that only its owner can read."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
    beside.replace(path)


_BIND_FIXES = {
    errno.EADDRINUSE: "is taken by another program. fix: pilothouse up --port 0 picks a free one",
    errno.EADDRNOTAVAIL: "is not an address of this machine. fix: --host 127.0.0.1",
    errno.EACCES: "needs rights that this user has not. fix: --port 8420",
}


def listen(host: str, port: int, *, patience_s: float = 0.0) -> socket.socket:
    """
    Bind and listen. The socket goes to every worker, so that none is missed while one is replaced.

    Args:
        patience_s: How long to wait for a taken port: the workers of a killed server give it back soon.

    Raises:
        OperationFailed: The address cannot be had; the message names the fix.
    """
    name = host.strip("[]")
    try:
        family, _, _, _, address = socket.getaddrinfo(
            name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as exc:
        raise OperationFailed(f"--host {host} cannot be resolved: {exc}. fix: --host 127.0.0.1") from exc
    patience_ends = time.monotonic() + patience_s
    while True:
        try:
            return _bind(family, address)
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE and time.monotonic() < patience_ends:
                time.sleep(0.05)
                continue
            known = _BIND_FIXES.get(
                exc.errno or 0, f"cannot be listened on: {exc.strerror}. fix: another --port"
            )
            raise OperationFailed(f"{_authority(name, port)} {known}") from exc


def _bind(family: int, address: Any) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(BACKLOG)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


def url_of(settings: Settings, listener: socket.socket) -> str:
    """Where a client on this machine reaches the server."""
    host, port = listener.getsockname()[:2]
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - read, not bound
    scheme = "https" if settings.tls_certificate else "http"
    return f"{scheme}://{_authority(reachable, port)}"


def exposure_warning(settings: Settings, listener: socket.socket) -> str:
    """What to say when keys and prompts would cross a network in clear text; else empty."""
    host = listener.getsockname()[0]
    if settings.tls_certificate or host == "::1" or host.startswith("127."):
        return ""
    return (
        f"{host} is reachable from other machines and TLS is off: keys and prompts travel in clear text. "
        "fix: --tls-certificate FILE --tls-key FILE, or --host 127.0.0.1 behind a proxy with TLS"
    )


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
