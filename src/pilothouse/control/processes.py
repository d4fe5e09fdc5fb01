"""
What our processes use: processor time and memory, read from the system.

Knows processes by pid only; which they are, the caller says. A pid that was
given to somebody else's process since is not taken for ours. A replica is its
process and all below it: some engines compute in a child of a child.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from msgspec import Struct

from pilothouse.control.status import ProcessFigures, ProcessRole
from pilothouse.kit.nvml import Gpu, GpuProcess


class KnownProcess(Struct, frozen=True, kw_only=True):
    role: ProcessRole
    name: str
    pid: int
    deployment: str = ""


class ProcessSampler:
    """Reads figures; a process keeps its handle from its first reading, and with it its identity."""

    def __init__(self) -> None:
        self._handles: dict[tuple[str, int], psutil.Process] = {}

    def sample(self, known: Iterable[KnownProcess], gpus: Sequence[Gpu] = ()) -> tuple[ProcessFigures, ...]:
        """
        The figures of those that live, in the given order.

        About 0.1 ms a process, those of a replica included; others of this machine are not looked at.
        """
        known = list(known)
        on_gpus = _by_pid(gpus)
        handles: dict[tuple[str, int], psutil.Process] = {}
        figures = []
        for process in known:
            with suppress(psutil.Error, ValueError):  # it ended a moment ago, or never was
                key = (process.name, process.pid)
                handle = self._handles.get(key) or psutil.Process(process.pid)
                if not handle.is_running():
                    continue
                family = _below(process.pid) if process.role == "replica" else []
                figures.append(_figures(process, handle, family, on_gpus))
                handles[key] = handle
        self._handles = handles
        return tuple(figures)


def _figures(
    process: KnownProcess,
    handle: psutil.Process,
    below: Sequence[psutil.Process],
    on_gpus: Mapping[int, Sequence[GpuProcess]],
) -> ProcessFigures:
    gpus = [one for pid in (process.pid, *(child.pid for child in below)) for one in on_gpus.get(pid, ())]
    ratios = [one.utilization_ratio for one in gpus if one.utilization_ratio is not None]
    memory = [one.memory_bytes for one in gpus if one.memory_bytes is not None]
    with handle.oneshot():
        is_replica = process.role == "replica"
        cpu_seconds, rss_bytes = _seconds(handle, with_ended=is_replica), handle.memory_info().rss
        for child in below:
            with suppress(psutil.Error):  # it ended just now
                cpu_seconds += _seconds(child, with_ended=True)
                rss_bytes += private_bytes(child.pid)
        return ProcessFigures(
            role=process.role,
            name=process.name,
            pid=process.pid,
            started_at=handle.create_time(),
            cpu_seconds=cpu_seconds,
            rss_bytes=rss_bytes,
            peak_rss_bytes=max(rss_bytes, _peak_bytes(process.pid)),
            deployment=process.deployment,
            gpu_utilization_ratio=max(ratios, default=None),
            gpu_memory_bytes=sum(memory) if memory else None,
        )


def _seconds(handle: psutil.Process, *, with_ended: bool) -> float:
    """
    Args:
        with_ended: Of children that ended and were waited for as well: parts of a replica are. Replicas
            are none of the controller, which starts and waits for them, and count as themselves.
    """
    times = handle.cpu_times()
    ended = times.children_user + times.children_system if with_ended else 0.0
    return float(times.user + times.system + ended)


def _below(pid: int) -> list[psutil.Process]:
    """All below it: children, theirs, and so on; none where the system is not Linux, or tells no children."""
    found: list[psutil.Process] = []
    parents = [pid]
    while parents:
        for child in _children(parents.pop()):
            parents.append(child)
            with suppress(psutil.Error):  # it ended just now
                found.append(psutil.Process(child))
    return found


def _children(pid: int) -> list[int]:
    """Of each of its threads, for any of them may have started some (proc(5), `children`)."""
    found: list[int] = []
    with suppress(OSError):  # it ended just now
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found += map(int, (thread / "children").read_bytes().split())
    return found


def private_bytes(pid: int) -> int:
    """
    Memory that would be free if the process ended.

    Without pages of files: those count as free memory already, whoever reads them.
    """
    with suppress(psutil.Error):
        info = psutil.Process(pid).memory_info()
        return max(0, int(info.rss) - int(getattr(info, "shared", 0)))
    return 0


def _peak_bytes(pid: int) -> int:
    """As Linux counts it; 0 where that is not to be had, and then the present counts."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _by_pid(gpus: Iterable[Gpu]) -> dict[int, list[GpuProcess]]:
    found: dict[int, list[GpuProcess]] = defaultdict(list)
    for gpu in gpus:
        for process in gpu.processes:
            found[process.pid].append(process)
    return found
