"""
Instructions that a gateway worker executes, counted by callgrind: the same every time, whatever else runs.

The count is of the process, in user space, between two moments; how long they take
is not in it. The worker runs on a simulated processor, dozens of times slower.
"""

import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rig.worker import GatewayWorker, gateway_worker

START_S = 180.0
DUMP_S = 60.0


def can_count() -> bool:
    return shutil.which("valgrind") is not None and shutil.which("callgrind_control") is not None


class Count:
    """What was counted, once the block has ended."""

    each = 0.0
    """Instructions for each of so many requests."""


class Counted:
    """A worker whose instructions are counted on demand."""

    def __init__(self, worker: GatewayWorker, out: Path) -> None:
        self.worker = worker
        self._out = out
        self._dumps = 0

    @contextmanager
    def counting(self, requests: int) -> Iterator[Count]:
        """Count while the block runs, in which so many requests are answered."""
        found = Count()
        self._control("-i", "on")
        yield found
        self._control("-i", "off")
        self._control("-d")
        self._dumps += 1
        found.each = self._dumped() / requests

    def _control(self, *told: str) -> None:
        argv = ["callgrind_control", *told, str(self.worker.pid)]
        subprocess.run(argv, check=True, capture_output=True, timeout=DUMP_S)

    def _dumped(self) -> int:
        """The newest file that it wrote: callgrind writes when the worker next does something."""
        path = self._out.with_name(f"{self._out.name}.{self._dumps}")
        ends = time.monotonic() + DUMP_S
        while time.monotonic() < ends:
            if path.exists():
                for line in path.read_text().splitlines():
                    if line.startswith("totals:"):
                        return int(line.split()[1])
            time.sleep(0.1)
        raise RuntimeError(f"callgrind wrote no {path.name}")


@contextmanager
def counted(upstream: int, out: Path, *, program: Sequence[str], **changes: object) -> Iterator[Counted]:
    """A worker on callgrind for the block; see `rig.worker`."""
    tool = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
    with gateway_worker(upstream, program=program, under=tool, start_s=START_S, **changes) as worker:
        yield Counted(worker, out)
