"""
What `doctor` looks at on the machine and in the home: each check is a function from facts to findings.

Nothing is changed here, and nothing is decided for the user: a finding says what
is and what to do. Packages and Python itself are in `checks_python`.
"""

import os
import platform
import shutil
import socket
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import psutil
from msgspec import Struct

from pilothouse.app.home import ServerState, is_locked, read_state
from pilothouse.app.leftovers import processes_of
from pilothouse.cli.text import size
from pilothouse.config import Settings

Status = Literal["ok", "warn", "fail"]
GB = 1_000_000_000
EARLIEST_CLOCK_S = 1_767_225_600
"""2026-01-01: before this version was made, so an earlier clock is wrong."""
FEW_FILES = 4096
SOCKETS = ("control.sock", "feed.sock")


class Finding(Struct, frozen=True, kw_only=True):
    check: str
    status: Status
    what: str
    fix: str = ""


def processor(flags: Sequence[str] | None, cpus: int, machine: str) -> Finding:
    """`flags` is None where the system does not tell them."""
    if machine in ("x86_64", "amd64") and flags is not None and "avx2" not in flags:
        return Finding(
            check="processor",
            status="fail",
            what=f"{cpus} cores, without AVX2, which the engine's wheel is built for",
            fix="use a machine with AVX2, or an `engine: openai` deployment elsewhere",
        )
    extra = ", AVX2" if flags is not None and "avx2" in flags else ""
    return Finding(check="processor", status="ok", what=f"{cpus} cores, {machine}{extra}")


def processor_flags() -> list[str] | None:
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return None
    line = next((line for line in text.splitlines() if line.startswith("flags")), None)
    return line.partition(":")[2].split() if line else None


def memory(available_bytes: int, total_bytes: int) -> Finding:
    what = f"{size(available_bytes)} free of {size(total_bytes)}"
    if available_bytes < GB // 2:
        return Finding(
            check="memory", status="fail", what=what, fix="end other programs: the default needs 0.5 GB"
        )
    if available_bytes < 2 * GB:
        return Finding(check="memory", status="warn", what=what, fix="only the smallest models will fit")
    return Finding(check="memory", status="ok", what=what)


def c_library(name: str, version: str, system: str) -> Finding:
    """The engine's wheel is for glibc 2.17 and newer (manylinux2014)."""
    if system != "Linux":
        return Finding(check="c library", status="ok", what=system)
    if name != "glibc":
        fix = "use a distribution with glibc, or an `engine: openai` deployment elsewhere"
        return Finding(
            check="c library", status="fail", what=f"{name or 'no glibc'}: the engine has no wheel", fix=fix
        )
    return Finding(check="c library", status="ok", what=f"glibc {version}")


def disk(folder: Path) -> Finding:
    free = free_bytes(folder)
    what = f"{size(free)} free for {folder}"
    if free < GB // 2:
        return Finding(check="disk", status="fail", what=what, fix="make room, or name another --home")
    if free < 5 * GB:
        return Finding(
            check="disk", status="warn", what=what, fix="a larger model needs more; see pilothouse model list"
        )
    return Finding(check="disk", status="ok", what=what)


def free_bytes(folder: Path) -> int:
    """Free space where `folder` is, or will be."""
    there = next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))
    return shutil.disk_usage(there).free


def clock(now: float, newest_file_s: float) -> Finding:
    """`newest_file_s`: when the newest file of the home was written."""
    shown = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(now))
    if now < EARLIEST_CLOCK_S:
        return Finding(
            check="clock", status="fail", what=f"it says {shown}", fix="set it: keys would not expire"
        )
    if newest_file_s > now + 60:
        what = f"it says {shown}, and the home has files from {newest_file_s - now:.0f} s later"
        return Finding(
            check="clock", status="warn", what=what, fix="was it turned back? turn on time synchronization"
        )
    return Finding(check="clock", status="ok", what=shown)


def newest_file_s(home: Path) -> float:
    """Of the files right in the home: the store and the state are among them."""
    try:
        return max((entry.stat().st_mtime for entry in os.scandir(home)), default=0.0)
    except OSError:
        return 0.0


def open_files(soft: int) -> Finding:
    """`up` raises the soft limit as far as it may; what counts is the hard one, given here."""
    if 0 <= soft < FEW_FILES:
        fix = "raise it (ulimit -n, or LimitNOFILE= of the unit): each connection takes one"
        return Finding(check="open files", status="warn", what=f"at most {soft}", fix=fix)
    return Finding(check="open files", status="ok", what="unlimited" if soft < 0 else f"at most {soft}")


def private_folder(check: str, folder: Path) -> Finding:
    try:
        facts = folder.stat()
    except FileNotFoundError:
        return Finding(check=check, status="ok", what=f"{folder} (made by the first up)")
    except OSError as exc:
        return Finding(check=check, status="fail", what=f"{folder}: {exc.strerror}", fix="make it readable")
    mode = stat.S_IMODE(facts.st_mode)
    if facts.st_uid != os.getuid():
        return Finding(
            check=check, status="fail", what=f"{folder} belongs to another user", fix=f"chown it: {folder}"
        )
    if mode & 0o077:
        return Finding(
            check=check,
            status="fail",
            what=f"{folder} is open to others ({mode:o})",
            fix=f"chmod 700 {folder}",
        )
    return Finding(check=check, status="ok", what=str(folder))


def key_files(folder: Path) -> list[Finding]:
    """One finding a file that others can read."""
    try:
        files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    except OSError:
        return []
    return [
        Finding(check="keys", status="fail", what=f"{path} is readable by others", fix=f"chmod 600 {path}")
        for path in files
        if stat.S_IMODE(path.stat().st_mode) & 0o077
    ]


def port(host: str, number: int, state: ServerState | None) -> Finding:
    """Free for `up`, or taken by our own server."""
    if state is not None:
        return Finding(check="port", status="ok", what=f"this home's server listens at {state.url}")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
        except OSError as exc:
            what = f"{host}:{number}: {exc.strerror}"
            return Finding(
                check="port", status="warn", what=what, fix="pilothouse up --port 0 picks a free one"
            )
    return Finding(check="port", status="ok", what=f"{host}:{number} is free")


def leftovers(settings: Settings) -> list[Finding]:
    """What a killed server left: only where none runs."""
    if is_locked(settings.home_path):
        return []
    processes = processes_of(settings.run_path)
    found = [
        Finding(
            check="leftovers",
            status="warn",
            what=f"{one.role} (pid {one.pid}) runs without a server",
            fix="pilothouse up takes engines over; pilothouse down ends them",
        )
        for one in processes
    ]
    stale = [name for name in SOCKETS if (settings.run_path / name).exists()]
    if stale and not processes:
        what = f"{', '.join(stale)} in {settings.run_path}, and nobody behind"
        found.append(Finding(check="leftovers", status="ok", what=what, fix="the next up removes them"))
    if read_state(settings.state_file):
        what = f"{settings.state_file} is of a server that was killed"
        found.append(Finding(check="leftovers", status="ok", what=what, fix="the next up writes it anew"))
    return found or [Finding(check="leftovers", status="ok", what="none")]


def readiness(status: int, body: object) -> Finding:
    """What `/readyz` said; status 0 is no answer."""
    reasons = body.get("reasons") if isinstance(body, dict) else None
    told = "; ".join(map(str, reasons)) if isinstance(reasons, list) and reasons else ""
    if status == 200:
        return Finding(check="server", status="warn" if told else "ok", what=told or "ready", fix=_see(told))
    what = told or ("does not answer" if not status else f"answers {status}")
    return Finding(
        check="server", status="fail", what=f"not ready: {what}", fix="pilothouse status, pilothouse logs"
    )


def _see(told: str) -> str:
    return "pilothouse status" if told else ""


def machine_findings() -> list[Finding]:
    virtual = psutil.virtual_memory()
    library, version = platform.libc_ver()
    return [
        processor(processor_flags(), usable_cpus(), platform.machine()),
        memory(virtual.available, virtual.total),
        c_library(library, version, platform.system()),
    ]


def usable_cpus() -> int:
    """Those that this process may run on, where the system tells; else all."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1
