"""
Processes of a home that nobody watches any more: found, and ended.

The supervisor ends its own children; this is for what a killed one left. The
one idea: every process of ours names the home's run folder in its command line,
so that nothing has to be remembered to find it.
"""

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import psutil
from msgspec import Struct

from pilothouse.kit.processes import Identity, group_members, identify, is_alive, kill_group, terminate

KILL_PATIENCE_S = 5.0
Role = Literal["controller", "worker", "engine"]


class Leftover(Struct, frozen=True):
    """A process that is ours."""

    identity: Identity
    role: Role

    @property
    def pid(self) -> int:
        return self.identity.pid


def processes_of(run_folder: Path) -> list[Leftover]:
    """Controllers, workers and engines that belong to the home of this run folder."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "uids"]):
        pid, cmdline, uids = (process.info[name] for name in ("pid", "cmdline", "uids"))
        if not cmdline or uids is None or uids.real != os.getuid() or pid == os.getpid():
            continue
        role = role_of(cmdline, run_folder)
        identity = identify(pid) if role else None  # None: it ended between the two looks
        if role and identity:
            found.append(Leftover(identity, role))
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
    """TERM, wait, KILL the group, wait; those that live on all the same are returned."""
    left = list(leftovers)
    for act, patience_s in ((terminate, grace_s), (kill_group, KILL_PATIENCE_S)):
        for one in left:
            act(one.identity)
        give_up_at = time.monotonic() + patience_s
        while (left := [one for one in left if _lives(one.identity)]) and time.monotonic() < give_up_at:
            time.sleep(0.05)
    return left


def is_same_process(pid: int, started_by: float) -> bool:
    """Whether `pid` is still the process that ran at `started_by`: a later one got the number anew."""
    try:
        # A second of tolerance: the kernel counts a process's start in its own ticks.
        return bool(psutil.Process(pid).create_time() <= started_by + 1.0)
    except psutil.Error:
        return False


def _lives(identity: Identity) -> bool:
    return is_alive(identity) or bool(group_members(identity))
