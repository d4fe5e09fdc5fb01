"""
Asks the user's own package client where a wheel is, and lets it fetch one.

Belongs here: pip and uv as subprocesses. Does not: what a wheel holds. The one
idea: which index, proxy and login to use is configured for these clients and
known to them alone; their addresses are neither logged nor stored, for they may
carry credentials.
"""

import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import Struct

from pilothouse.domain.errors import NotFound, OperationFailed
from pilothouse.kit.digest import name_digest

POLL_S = 0.5
LOCATE_TIMEOUT_S = 300.0
DOWNLOAD_TIMEOUT_S = 6 * 3600.0
_MAX_SHOWN_CHARS = 300

_ADDRESS = re.compile(r"\b[a-z+]+://\S+")
_UNREACHABLE = re.compile(
    r"connection broken|NewConnectionError|Failed to fetch|network was disabled|Could not fetch URL|"
    r"HTTP error (401|403|407|5\d\d)|(401|403|407|5\d\d) Client Error"
)
"""Asked first: pip says "no matching distribution" of an index that it could not reach, too."""
_OS_ERROR = re.compile(r"\[Errno -?\d+\] [\w ]+|HTTP error \d+|[\w ]+\(os error \d+\)|\w+ error: [\w ]+")
_ABSENT = re.compile(
    r"No matching distribution|Could not find a version|not found in the package registry|"
    r"there is no version|no wheels with a matching|has no wheels"
)


OnWait = Callable[[], None]


class Pin(Struct, frozen=True):
    """One version of one package."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


class Located(Struct, frozen=True):
    url: str
    digest: str
    """`sha256:`, or empty where the index does not say."""


class Client(Protocol):
    def locate(self, pin: Pin, on_wait: OnWait) -> Located:
        """
        Args:
            on_wait: Called twice a second; what it raises ends the client.

        Raises:
            ClientMissing: This client is not on the machine.
            NotFound: The index has no such wheel.
            OperationFailed: The index cannot be asked.
        """
        ...

    def download(self, pin: Pin, folder: Path, on_wait: OnWait) -> Path:
        """Fetch the wheel by the client's own means; the same errors."""
        ...


class ClientMissing(Exception):
    """The next client is asked."""


def clients() -> list[Client]:
    """
    The package clients of this machine, the likeliest first.

    A virtual environment made by `python -m venv` has pip; one made by uv has
    none, but the interpreter that it stands on usually does, or uv is there.
    """
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    found: list[Client] = []
    if importlib.util.find_spec("pip"):
        found.append(Pip(Path(sys.executable)))
    found += [Pip(base), Uv()]
    return found


class Pip:
    """pip 22.2 or newer, of any interpreter of our version."""

    def __init__(self, python: Path) -> None:
        self._argv = [str(python), "-m", "pip"]

    def locate(self, pin: Pin, on_wait: OnWait) -> Located:
        # A dry run reads the index and at the most the wheel's metadata; nothing is installed.
        options = ["--dry-run", "--no-deps", "--ignore-installed", "--quiet", "--report", "-"]
        text = self._run(["install", *options], pin, on_wait, timeout_s=LOCATE_TIMEOUT_S)
        try:
            found = msgspec.json.decode(text, type=_PipReport).install[0].download_info
        except (msgspec.DecodeError, UnicodeDecodeError, IndexError) as exc:
            raise OperationFailed(f"{pin}: pip reported nothing that can be read") from exc
        return Located(found.url, _digest(found.archive_info.hashes))

    def download(self, pin: Pin, folder: Path, on_wait: OnWait) -> Path:
        options = ["--no-deps", "--quiet", "--dest", str(folder)]
        self._run(["download", *options], pin, on_wait, timeout_s=DOWNLOAD_TIMEOUT_S)
        wheels = sorted(folder.glob("*.whl"))
        if len(wheels) != 1:
            raise OperationFailed(f"{pin}: pip left {len(wheels)} wheels, not one")
        return wheels[0]

    def _run(self, arguments: Sequence[str], pin: Pin, on_wait: OnWait, *, timeout_s: float) -> bytes:
        common = ["--only-binary", ":all:", "--no-input", "--disable-pip-version-check"]
        return _run([*self._argv, *arguments, *common, "--", str(pin)], pin, on_wait, timeout_s=timeout_s)


class Uv:
    """uv can say where a wheel is; it has no command that only downloads one."""

    def locate(self, pin: Pin, on_wait: OnWait) -> Located:
        options = ["--no-deps", "--only-binary", ":all:", "--format", "pylock.toml", "--no-header", "--quiet"]
        argv = ["uv", "pip", "compile", *options, "--python", sys.executable, "-"]
        text = _run(argv, pin, on_wait, timeout_s=LOCATE_TIMEOUT_S, stdin=str(pin))
        try:
            lock = msgspec.convert(tomllib.loads(text.decode()), _UvLock)
        except (ValueError, msgspec.ValidationError) as exc:
            raise OperationFailed(f"{pin}: uv reported nothing that can be read") from exc
        wheels = [wheel for package in lock.packages for wheel in package.wheels if wheel.url]
        if not wheels:
            raise NotFound(f"{pin} has no wheel on the configured package index")
        best = min(wheels, key=lambda wheel: not wheel.url.endswith("-none-any.whl"))
        return Located(best.url, _digest(best.hashes))

    def download(self, pin: Pin, folder: Path, on_wait: OnWait) -> Path:  # noqa: ARG002 # as all clients
        raise OperationFailed(
            f"{pin} cannot be downloaded directly (the index wants a login, or its files are local), "
            f"and then only pip can do it. Install pip: {sys.executable} -m ensurepip"
        )


class _ArchiveInfo(Struct, frozen=True):
    hashes: dict[str, str] = {}


class _DownloadInfo(Struct):
    url: str
    archive_info: _ArchiveInfo = _ArchiveInfo()


class _Install(Struct):
    download_info: _DownloadInfo


class _PipReport(Struct):
    install: list[_Install]


class _UvWheel(Struct):
    url: str = ""
    hashes: dict[str, str] = {}


class _UvPackage(Struct):
    wheels: list[_UvWheel] = []


class _UvLock(Struct):
    packages: list[_UvPackage]


def _digest(hashes: dict[str, str]) -> str:
    return name_digest(hashes["sha256"]) if "sha256" in hashes else ""


def _run(argv: Sequence[str], pin: Pin, on_wait: OnWait, *, timeout_s: float, stdin: str = "") -> bytes:
    pipe = subprocess.PIPE
    try:
        # The environment is inherited: that is how users configure these clients.
        process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe)
    except (FileNotFoundError, PermissionError) as exc:
        raise ClientMissing(argv[0]) from exc
    with process:
        try:
            out, err = _wait(process, stdin.encode(), on_wait, timeout_s=timeout_s)
        except subprocess.TimeoutExpired as exc:
            raise OperationFailed(f"{pin}: the package index did not answer within {timeout_s:g} s") from exc
        finally:
            process.kill()
    if process.returncode == 0:
        return out
    raise _failure(argv, pin, err.decode(errors="replace"))


def _wait(
    process: "subprocess.Popen[bytes]", stdin: bytes, on_wait: OnWait, *, timeout_s: float
) -> tuple[bytes, bytes]:
    given: bytes | None = stdin
    waited_s = 0.0
    while True:
        try:
            return process.communicate(given, timeout=min(POLL_S, timeout_s))
        except subprocess.TimeoutExpired:
            waited_s += POLL_S
            if waited_s >= timeout_s:
                raise
        given = None
        on_wait()


def _failure(argv: Sequence[str], pin: Pin, said: str) -> ClientMissing | NotFound | OperationFailed:
    if "No module named pip" in said:
        return ClientMissing(argv[0])
    if _UNREACHABLE.search(said):
        client = "uv" if argv[0] == "uv" else "pip"
        found = _OS_ERROR.search(said)
        return OperationFailed(
            f"{pin}: the package index cannot be reached: {found[0] if found else _last_words(said)}. "
            f"Check the network, and the index and login in the settings of {client}"
        )
    if _ABSENT.search(said):
        return NotFound(
            f"{pin}: the configured package index has no such wheel; check the name and the version"
        )
    return OperationFailed(f"{pin}: the package index cannot be asked: {_last_words(said)}")


def _last_words(said: str) -> str:
    """The client's last line of complaint, without any address."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    chosen = next(
        (line for line in reversed(lines) if "error" in line.lower()),
        lines[-1] if lines else "no reason given",
    )
    return _ADDRESS.sub("<address>", chosen)[:_MAX_SHOWN_CHARS]
