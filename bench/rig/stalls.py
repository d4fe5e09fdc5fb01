"""
What the machine does to a program that only computes: how long one fixed loop takes, again and again.

On a machine that is shared, the host slows both processors down for tens of
milliseconds at a time, unseen in the guest's own accounts. A gateway that needs
100 us for a request then needs 2 ms, and requests pile up behind it; so tails are
read beside this.

    python -m rig.stalls SECONDS
"""

import subprocess
import sys
import time
from pathlib import Path

from msgspec import Struct, json

from rig.machine import MEASURED_CORE, pinned

LOOP_US = 100.0


class Stalls(Struct, frozen=True):
    """Microseconds that the loop took, and the share of the time (%) in which it took over four times p50."""

    p50_us: float
    p99_us: float
    most_us: float
    slow_percent: float


def stalls(seconds: float) -> Stalls:
    """Measured on the core and in the class that gateways are measured in."""
    argv = pinned(MEASURED_CORE, [sys.executable, "-m", "rig.stalls", str(seconds)])
    folder = Path(__file__).parents[1]
    done = subprocess.run(argv, cwd=folder, capture_output=True, check=True, timeout=seconds + 30)
    return json.decode(done.stdout, type=Stalls)


def main() -> None:
    size = 1000
    size = max(1, int(size * LOOP_US / min(_loop_us(size) for _ in range(50))))
    took: list[float] = []
    ends = time.perf_counter() + float(sys.argv[1])
    while time.perf_counter() < ends:
        took.append(_loop_us(size))
    took.sort()
    usual = took[len(took) // 2]
    slow = sum(one for one in took if one > 4 * usual)
    found = Stalls(usual, took[int(len(took) * 0.99)], took[-1], 100 * slow / sum(took))
    sys.stdout.buffer.write(json.encode(found))


def _loop_us(size: int) -> float:
    began = time.perf_counter_ns()
    total = 0
    for i in range(size):
        total += i
    return (time.perf_counter_ns() - began) / 1000


if __name__ == "__main__":
    main()
