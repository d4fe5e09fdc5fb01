"""
Runs a Python module in a process of its own, with bounds on what it may use.

Belongs here: the parent's side (`run_module`) and the child's (`limit_self`).
The one idea: code that reads a stranger's bytes may crash, hang or swell, and
then only the child does. It gets no environment, no input and no other files
than its arguments name.
"""

import resource
import subprocess
import sys
from pathlib import Path

MAX_OUTPUT_BYTES = 8 * 1024 * 1024
_SHOWN_CHARS = 300


class ChildFailed(Exception):
    """The child refused, crashed, hung or swelled; the text says which."""

    def __init__(self, message: str, *, refused: bool) -> None:
        super().__init__(message)
        self.refused = refused
        """The child itself found fault with its input, and the text is what it said."""


REFUSED_STATUS = 65
"""EX_DATAERR of sysexits.h: the child says that its input is at fault, and why, on standard error."""


def run_module(
    module: str, *arguments: str, timeout_s: float, environment: dict[str, str] | None = None
) -> bytes:
    """
    Run `python -m module arguments...` and return what it printed.

    Raises:
        ChildFailed: It did not end with status 0 in time.
    """
    argv = [sys.executable, "-I", "-B", "-X", "utf8", "-m", module, *arguments]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment or {},
            cwd=Path(sys.prefix).anchor,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise ChildFailed(f"it was not done after {timeout_s:g} s", refused=False) from exc
    if done.returncode == 0 and len(done.stdout) <= MAX_OUTPUT_BYTES:
        return done.stdout
    raise _failure(done)


def limit_self(*, memory_bytes: int, cpu_s: int, file_bytes: int) -> None:
    """
    Bound this process, first thing in a child's `main`.

    Args:
        memory_bytes: Address space. macOS ignores or refuses it; the other bounds hold there.
        cpu_s: Processor seconds; after them the kernel ends the process.
        file_bytes: Largest file that it may write, its standard output included.
    """
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, file_bytes)
    _limit(resource.RLIMIT_CPU, cpu_s)
    _limit(resource.RLIMIT_AS, memory_bytes)


def _limit(which: int, wanted: int) -> None:
    hard = resource.getrlimit(which)[1]
    value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(which, (value, value))
    except (ValueError, OSError):
        # A platform without this limit: the wall clock in the parent still bounds the child.
        return


def _failure(done: "subprocess.CompletedProcess[bytes]") -> ChildFailed:
    if done.returncode == 0:
        return ChildFailed(f"it printed more than {MAX_OUTPUT_BYTES} bytes", refused=False)
    said = done.stderr.decode(errors="replace").strip()
    if done.returncode == REFUSED_STATUS:
        return ChildFailed(said, refused=True)
    last = said.splitlines()[-1][:_SHOWN_CHARS] if said else ""
    if done.returncode < 0:
        return ChildFailed(f"it was ended by signal {-done.returncode} {last}".rstrip(), refused=False)
    if "MemoryError" in last:
        return ChildFailed("it needed more memory than it may have", refused=False)
    return ChildFailed(f"it ended with status {done.returncode}: {last}", refused=False)
