"""
Processes of a home that nobody watches any more: found, and ended.

The supervisor ends its own children; this is for what a killed one left. The
one idea: every process of ours names the home's run folder in its command line,
so that nothing has to be remembered to find it.
"""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import psutil
from msgspec import Struct

KILL_PATIENCE_S = 5.0
Role = Literal["controller", "worker", "engine"]


class Leftover(Struct, frozen=True):
    """A process that is ours. Its identity is `pid` and `started_at` together."""

    pid: int
    started_at: float
    role: Role


def processes_of(run_folder: Path) -> list[Leftover]:
    """Controllers, workers and engines that belong to the home of this run folder."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "create_time", "uids", "status"]):
        facts = process.info
        if facts["pid"] == os.getpid() or facts["status"] == psutil.STATUS_ZOMBIE or not facts["cmdline"]:
            continue
        role = role_of(facts["cmdline"], run_folder)
        if role and facts["uids"] and facts["uids"].real == os.getuid():
            found.append(Leftover(facts["pid"], facts["create_time"], role))
    return found


def role_of(cmdline: Sequence[str], run_folder: Path) -> Role | None:
    """What a command line says it is; None when it is not a process of ours in this home."""
    inside = f"{run_folder}{os.sep}"
    if not any(argument.startswith(inside) or f"={inside}" in argument for argument in cmdline[1:]):
        return None
    words = set(cmdline)
    if "pilothouse.app.controller" in words:
        return "controller"
    if "pilothouse.app.worker" in words:
        return "worker"
    return "engine" if any("pilothouse" in word or "llama" in word for word in cmdline[:6]) else None


def end(leftovers: Iterable[Leftover], *, grace_s: float) -> list[Leftover]:
    """TERM, wait, KILL, wait; those that live on all the same are returned."""
    left = list(leftovers)
    for act, patience_s in ((psutil.Process.terminate, grace_s), (psutil.Process.kill, KILL_PATIENCE_S)):
        for one in left:
            _quietly(act, one)
        give_up_at = time.monotonic() + patience_s
        while (left := [one for one in left if _living(one)]) and time.monotonic() < give_up_at:
            time.sleep(0.05)
    return left


def is_same_process(pid: int, started_by: float) -> bool:
    """Whether `pid` is still the process that ran at `started_by`: a later one got the number anew."""
    try:
        # A second of tolerance: the kernel counts a process's start in its own ticks.
        return bool(psutil.Process(pid).create_time() <= started_by + 1.0)
    except psutil.Error:
        return False


def _living(one: Leftover) -> psutil.Process | None:
    """None also for a zombie: it has ended, and waits for a parent that is not us."""
    try:
        process = psutil.Process(one.pid)
        is_same = process.create_time() == one.started_at
        return process if is_same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def _quietly(act: Callable[[psutil.Process], None], one: Leftover) -> None:
    try:
        if process := _living(one):
            act(process)
    except psutil.Error:  # it ended between the look and the signal
        pass
