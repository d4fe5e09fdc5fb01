"""
NVIDIA's GPUs as their driver's own library sees them: use, memory, and which process has how much.

A handful of functions of NVML over ctypes, by the published interface (nvml.h),
so that nothing is installed for it and a machine without a GPU loads nothing.
Calls go to a kernel driver and may hang with it: call from a thread.
"""

import ctypes
from collections.abc import Iterator

from msgspec import Struct

LIBRARY = "libnvidia-ml.so.1"
MOST_PROCESSES = 1024
_SUCCESS, _INSUFFICIENT_SIZE = 0, 7
_NOT_AVAILABLE = 2**64 - 1
"""NVML_VALUE_NOT_AVAILABLE: memory by process, where the driver does not tell it (WDDM, containers)."""


class GpuProcess(Struct, frozen=True, kw_only=True):
    pid: int
    memory_bytes: int | None = None
    utilization_ratio: float | None = None
    """0..1 of the GPU's processors, of late; None where it is not told."""


class Gpu(Struct, frozen=True, kw_only=True):
    index: int
    name: str
    utilization_ratio: float | None = None
    memory_used_bytes: int = 0
    memory_total_bytes: int = 0
    processes: tuple[GpuProcess, ...] = ()


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Process(ctypes.Structure):
    """nvmlProcessInfo_t as of version 3 of its functions."""

    _fields_ = (
        ("pid", ctypes.c_uint),
        ("memory", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


class _Sample(ctypes.Structure):
    """nvmlProcessUtilizationSample_t; percents."""

    _fields_ = (
        ("pid", ctypes.c_uint),
        ("time_us", ctypes.c_ulonglong),
        ("sm", ctypes.c_uint),
        ("memory", ctypes.c_uint),
        ("encoder", ctypes.c_uint),
        ("decoder", ctypes.c_uint),
    )


class Nvml:
    """The library, opened. One thread at a time."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    @classmethod
    def open(cls, path: str = LIBRARY) -> "Nvml | None":
        """None where there is no such library, or no driver behind it."""
        try:
            library = ctypes.CDLL(path)
            if library.nvmlInit_v2() != _SUCCESS:
                return None
        except (OSError, AttributeError):  # not there, or too old for what is asked here
            return None
        return cls(library)

    def close(self) -> None:
        self._library.nvmlShutdown()

    def read(self) -> tuple[Gpu, ...]:
        """All GPUs; one that does not answer (it fell off the bus) is left out."""
        count = ctypes.c_uint()
        if self._library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != _SUCCESS:
            return ()
        return tuple(gpu for index in range(count.value) if (gpu := self._gpu(index)) is not None)

    def _gpu(self, index: int) -> Gpu | None:
        device, memory, use = ctypes.c_void_p(), _Memory(), _Utilization()
        name = ctypes.create_string_buffer(96)
        if self._library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)) != _SUCCESS:
            return None
        if self._library.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)) != _SUCCESS:
            return None
        self._library.nvmlDeviceGetName(device, name, len(name))
        is_told = self._library.nvmlDeviceGetUtilizationRates(device, ctypes.byref(use)) == _SUCCESS
        ratios = self._ratios(device)
        return Gpu(
            index=index,
            name=name.value.decode(errors="replace"),
            utilization_ratio=use.gpu / 100 if is_told else None,
            memory_used_bytes=memory.used,
            memory_total_bytes=memory.total,
            processes=tuple(
                GpuProcess(pid=pid, memory_bytes=used, utilization_ratio=ratios.get(pid))
                for pid, used in self._processes(device)
            ),
        )

    def _processes(self, device: ctypes.c_void_p) -> Iterator[tuple[int, int | None]]:
        count, found = ctypes.c_uint(MOST_PROCESSES), (_Process * MOST_PROCESSES)()
        status = self._library.nvmlDeviceGetComputeRunningProcesses_v3(device, ctypes.byref(count), found)
        if status not in (_SUCCESS, _INSUFFICIENT_SIZE):
            return
        for one in found[: min(count.value, MOST_PROCESSES)]:
            yield one.pid, None if one.memory == _NOT_AVAILABLE else one.memory

    def _ratios(self, device: ctypes.c_void_p) -> dict[int, float]:
        """By process: the newest of the samples that the driver still has."""
        count, found = ctypes.c_uint(MOST_PROCESSES), (_Sample * MOST_PROCESSES)()
        since = ctypes.c_ulonglong(0)
        asked = self._library.nvmlDeviceGetProcessUtilization(device, found, ctypes.byref(count), since)
        if asked != _SUCCESS:  # none of late, or a GPU that does not count it
            return {}
        samples = sorted(found[: min(count.value, MOST_PROCESSES)], key=lambda sample: sample.time_us)
        return {sample.pid: sample.sm / 100 for sample in samples}
