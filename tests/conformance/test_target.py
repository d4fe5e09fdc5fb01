import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilothouse.adapters.targets.local import LocalTarget
from pilothouse.domain.status import Replica
from pilothouse.kit import processes
from pilothouse.ports.engine import Launch
from pilothouse.testing.conformance_target import Behaviour, TargetConformance
from pilothouse.testing.memory_target import MemoryMachine, MemoryTarget

_CODE = {
    "obedient": "print('hello', flush=True); signal.pause()",
    "stubborn": "signal.signal(15, signal.SIG_IGN); print('hello', flush=True); signal.pause()",
    "crashing": "print('hello'); print('out of luck'); sys.exit(3)",
}
_SIZES = {"slots": 2, "context_tokens": 512, "memory_bytes": 1_000_000}


def launch(behaviour: str, *, code: str = "") -> Launch:
    program = "import signal, sys; " + (code or _CODE[behaviour])
    return Launch(
        argv=(sys.executable, "-I", "-S", "-c", program, "--replica", "{name}", "--home-id", "{home}"),
        env={},
        address="unix:{socket}",
        **_SIZES,
    )


class MemoryLab:
    def __init__(self) -> None:
        self.machine = MemoryMachine()

    def target(self) -> MemoryTarget:
        return MemoryTarget(self.machine)

    def launch(self, behaviour: Behaviour) -> Launch:
        return Launch(argv=(behaviour,), env={}, address="unix:{socket}", **_SIZES)

    def is_alive(self, replica: Replica) -> bool:
        process = self.machine.processes.get(replica.name)
        return process is not None and process.replica.pid == replica.pid and not process.ended

    def kill(self, replica: Replica) -> None:
        self.machine.end(replica.name, "it was ended by signal 9 (SIGKILL)")


class LocalLab:
    """Real processes, small ones. Whatever a test leaves is ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: set[int] = set()

    def target(self) -> LocalTarget:
        return LocalTarget(self.folder / "run", self.folder / "logs")

    def launch(self, behaviour: Behaviour) -> Launch:
        return launch(behaviour)

    def is_alive(self, replica: Replica) -> bool:
        found = processes.identify(replica.pid)
        return found is not None and bool(processes.group_members(found))

    def kill(self, replica: Replica) -> None:
        os.kill(replica.pid, signal.SIGKILL)


class TestMemoryTarget(TargetConformance):
    @pytest.fixture
    def lab(self) -> MemoryLab:
        return MemoryLab()


class TestLocalTarget(TargetConformance):
    @pytest.fixture
    def lab(self, tmp_path: Path) -> Iterator[LocalLab]:
        lab = LocalLab(tmp_path)
        yield lab
        end_all(tmp_path / "run")


def end_all(run_folder: Path) -> None:
    home = LocalTarget(run_folder, run_folder)._book.home_id
    for left in processes.find(["--home-id", home]):
        processes.kill_group(left)
        while processes.is_alive(left):
            processes.reap(left.pid)
        processes.reap(left.pid)
