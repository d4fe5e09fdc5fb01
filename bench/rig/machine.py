"""
Where things run, and what they used.

What is measured has a core of its own; mock and load share another. A real-time
class keeps the rest of the machine out, where the system permits it.
"""

import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import psutil

MEASURED_CORE = 0
LOAD_CORE = min(1, (os.cpu_count() or 1) - 1)
PRIORITY = 10


@cache
def _chrt() -> tuple[str, ...]:
    """`chrt` when this user may raise a process to a real-time class, else nothing."""
    tool = shutil.which("chrt")
    if tool is None:
        return ()
    prefix = (tool, "-r", str(PRIORITY))
    return (
        prefix if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0 else ()
    )


def pinned(core: int, argv: Iterable[str]) -> list[str]:
    """The command, bound to a core and raised above the rest of the machine."""
    tool = shutil.which("taskset")
    binding = [tool, "-c", str(core)] if tool else []
    return [*binding, *_chrt(), *argv]


def describe() -> str:
    """One line for the head of a table: figures without it are worth nothing."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:  # noqa: PTH123 - a system file, read once
            model = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    chrt = "real-time class" if _chrt() else "no real-time class (noisier)"
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} x {model}, {system}, {chrt}, load {os.getloadavg()[0]:.1f}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def family(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def cpu_s(pid: int, *, alone: bool = False) -> float:
    """User and system seconds so far, of a process and all below it, or of it alone."""
    return sum(_cpu_s(process) for process in ([psutil.Process(pid)] if alone else family(pid)))


def on_cpu_us(pid: int) -> float:
    """
    Microseconds that a process has run so far, all its threads: exact, where `cpu_s` counts in hundredths.

    Source: `schedstat` of proc(5), whose first number is in nanoseconds.
    """
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1000


def rss_bytes(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)


def peak_rss_bytes(pid: int) -> int:
    """The most resident memory that a process ever had (Linux)."""
    with open(f"/proc/{pid}/status") as file:  # noqa: PTH123 - a system file
        line = next(line for line in file if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def _cpu_s(process: psutil.Process) -> float:
    """By the clock of the process (clock_getcpuclockid(3)): /proc counts in hundredths of a second."""
    try:
        return time.clock_gettime(~process.pid << 3 | 2)
    except OSError:
        return 0.0


def raised() -> bool:
    """Whether processes of a bench run in a real-time class here."""
    return bool(_chrt())
