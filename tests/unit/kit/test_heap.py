"""A process that keeps what it freed does not ask the kernel for it again and again."""

import subprocess
import sys

import pytest

FAULTS = """
import resource
from pilothouse.kit.heap import keep_freed
kept = keep_freed() if KEEPS else True
def take():
    parts = [bytes(33_000) for _ in range(20)]
for _ in range(10):
    take()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    take()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*, keeps: bool) -> int:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.replace("KEEPS", str(keeps))],
        capture_output=True,
        text=True,
        check=True,
    )
    kept, count = done.stdout.split()
    if kept != "True":
        pytest.skip("the C library here is not glibc")
    return int(count)


def test_what_was_freed_is_taken_again_without_the_kernel():
    assert faults(keeps=True) * 10 < faults(keeps=False)
