"""
A gateway worker under the profiler: `python -m rig.profiled OUT [the worker's options]`.

Counts processor time of the thread by function, with C calls charged to their
caller. Before and after, it times a fixed loop in the same way, as the measure of
this machine at this moment. Written when the worker ends.
"""

import cProfile
import importlib
import json
import sys
import time
from pathlib import Path

from pilothouse.app import worker

LOOPS = 50_000
"""At each end."""


def _step(table: dict[int, int], n: int) -> int:
    table[n & 63] = n
    return table[n & 31] + len(b"%d" % n)


def _calibrate() -> None:
    table = dict.fromkeys(range(64), 0)
    for n in range(LOOPS):
        _step(table, n)


def main() -> None:
    out = Path(sys.argv[1])
    importlib.import_module("pilothouse.app.serving")  # which the worker imports late: no part of a request
    profiler = cProfile.Profile(time.thread_time, builtins=False)
    profiler.runcall(_calibrate)
    try:
        profiler.runcall(worker.main, sys.argv[2:])
    finally:
        profiler.runcall(_calibrate)
        seconds: dict[str, float] = {}
        for entry in profiler.getstats():
            name = getattr(entry.code, "co_filename", "")
            seconds[name] = seconds.get(name, 0.0) + entry.inlinetime
        out.write_text(json.dumps({"loop_us": seconds[__file__] * 1e6 / (2 * LOOPS), "seconds": seconds}))


if __name__ == "__main__":
    main()
