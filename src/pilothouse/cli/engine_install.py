"""
Making the environment of a heavy engine: a virtual environment of its own, with pinned packages.

Belongs here: the two programs that do it. Does not: which packages, which the
engine's driver says, with a file of the versions that were tried together.

An environment cannot be moved, for its scripts say where it is. So each is made where it
stays, beside the last one, and the engine's name is a link that leads to the one that is whole.
One process at a time makes an engine's, for each clears away what others left half made.
"""

import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pilothouse.domain.errors import OperationFailed
from pilothouse.kit.lockfile import LockTimeout, file_lock
from pilothouse.ports.engine import Environment

TIMEOUT_S = 3600.0
"""A slow network and two gigabytes."""
BUSY_S = 5.0
"""For one that ends just now; who makes an environment from nothing takes minutes."""


def install(environment: Environment, *, busy_s: float = BUSY_S) -> None:
    """
    Make the environment anew; the old one, if any, works until the new one is whole.

    Args:
        busy_s: How long to wait for another process that makes the same.

    Raises:
        OperationFailed: Another process makes it; or the disk, the network or the index failed, and the
            message has their last words.
    """
    name = Path(environment.folder)
    try:
        name.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(name.with_name(f".{name.name}.lock"), timeout_s=busy_s):
            _make(name, environment)
    except LockTimeout as exc:
        raise OperationFailed(
            f"another process makes {name} just now; fix: let it end, and see by pilothouse engine list "
            "whether anything is missing"
        ) from exc
    except OSError as exc:
        raise OperationFailed(f"{name} cannot be made: {exc.strerror or exc}") from exc


def _make(name: Path, environment: Environment) -> None:
    made = name.with_name(f"{name.name}.{secrets.token_hex(4)}")
    try:
        _run([sys.executable, "-m", "venv", str(made)])
        _run([*_installer(made), *_wanted(environment)])
        _lead(name, made)
    finally:
        _clear_beside(name)


def _lead(name: Path, made: Path) -> None:
    link = made.with_name(f"{made.name}.link")
    link.symlink_to(made.name)
    if not name.is_symlink():
        shutil.rmtree(name, ignore_errors=True)
    link.replace(name)


def _clear_beside(name: Path) -> None:
    """What the name does not lead to: the one before, or one that did not become whole."""
    kept = name.resolve()
    for one in name.parent.glob(f"{name.name}.*"):
        if one.is_symlink():
            one.unlink(missing_ok=True)
        elif one != kept:
            shutil.rmtree(one, ignore_errors=True)


def _wanted(environment: Environment) -> list[str]:
    if environment.exact:
        return ["--no-deps", "-r", environment.constraints]
    return ["-c", environment.constraints, *environment.packages]


def _installer(folder: Path) -> list[str]:
    """uv where it is there, which takes a tenth of the time; else the environment's own pip."""
    python = str(folder / "bin" / "python")
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--python", python]
    return [python, "-m", "pip", "install", "--disable-pip-version-check"]


def _run(argv: Sequence[str]) -> None:
    """What it prints is for the terminal: it takes minutes, and somebody watches."""
    try:
        done = subprocess.run(
            argv, timeout=TIMEOUT_S, check=False, stdin=subprocess.DEVNULL, stdout=sys.stderr
        )
    except subprocess.TimeoutExpired as exc:
        raise OperationFailed(f"{Path(argv[0]).name} took more than {TIMEOUT_S:.0f} s; try again") from exc
    if done.returncode:
        raise OperationFailed(
            f"{Path(argv[0]).name} ended with status {done.returncode}: see its last lines above. fix: check "
            "the network and the package index (PIP_INDEX_URL), then run the same command again"
        )
