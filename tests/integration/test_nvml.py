"""
GPU readings against a stand-in for NVIDIA's library, compiled from the published interface.

There is no GPU where these tests run: what is shown is that the interface is spoken, from the
library's functions up to metrics and status, not that a driver behaves.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pilothouse.control.gauges import CpuTotals, controller_metrics
from pilothouse.control.gpus import GpuReadings
from pilothouse.control.processes import KnownProcess, ProcessSampler
from pilothouse.control.recent_errors import RecentErrors
from pilothouse.control.vitals import VitalSigns
from pilothouse.domain.status import SystemStatus
from pilothouse.kit.clock import SystemClock
from pilothouse.kit.nvml import Gpu, GpuProcess, Nvml

SOURCE = Path(__file__).parents[1] / "fixtures" / "nvml.c"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("the stand-in for NVIDIA's library needs a C compiler on Linux")
    path = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(path), str(SOURCE)], check=True, timeout=60)
    return str(path)


@pytest.fixture
def opened(library: str, monkeypatch: pytest.MonkeyPatch) -> Nvml:
    # C's getenv sees what os.environ sets.
    monkeypatch.setenv("NVML_PID", str(os.getpid()))
    nvml = Nvml.open(library)
    assert nvml is not None
    return nvml


def test_gpus_and_their_processes_are_read_and_a_lost_one_is_left_out(opened):
    ours = GpuProcess(pid=os.getpid(), memory_bytes=3 << 30, utilization_ratio=0.4)
    untold = GpuProcess(pid=4194303)

    assert opened.read() == (
        Gpu(
            index=0,
            name="NVIDIA H100",
            utilization_ratio=0.75,
            memory_used_bytes=5 << 30,
            memory_total_bytes=80 << 30,
            processes=(ours, untold),
        ),
    )
    opened.close()


def test_a_gpu_that_counts_no_processes_use_still_tells_their_memory(opened, monkeypatch):
    monkeypatch.setenv("NVML_NO_SAMPLES", "1")

    (gpu,) = opened.read()

    assert gpu.processes[0] == GpuProcess(pid=os.getpid(), memory_bytes=3 << 30)


def test_no_library_or_no_driver_is_no_gpu(library, monkeypatch, tmp_path):
    monkeypatch.setenv("NVML_NO_DRIVER", "1")

    assert Nvml.open(library) is None
    assert Nvml.open(str(tmp_path / "none.so")) is None


def test_a_replicas_share_comes_into_its_figures(opened):
    known = [KnownProcess(role="replica", name="r1", pid=os.getpid(), deployment="d")]

    (figures,) = ProcessSampler().sample(known, opened.read())

    assert (figures.gpu_utilization_ratio, figures.gpu_memory_bytes) == (0.4, 3 << 30)


def test_what_the_contract_names_of_gpus_is_in_the_metrics(opened, tmp_path):
    clock = SystemClock()
    vitals = VitalSigns(tmp_path, clock, version="1", url="", errors=RecentErrors(clock), lag=lambda: 0)
    vitals.gpus = GpuReadings(clock, open_library=lambda: opened)
    thread = vitals.gpus.look()
    assert thread is not None
    thread.join(10)

    read = vitals.read(SystemStatus(), {})
    text = controller_metrics(SystemStatus(), read, CpuTotals()).render()

    assert [gpu.name for gpu in read.host.gpus] == ["NVIDIA H100"]
    assert 'pilothouse_gpu_utilization_ratio{gpu="0"} 0.75' in text
    assert f'pilothouse_gpu_memory_bytes{{gpu="0"}} {80 << 30}' in text
