"""
From `pilothouse up` to ready: everything installed and pulled, nothing running.

The time is that of a person: from the start of the process until it says ready,
which it does after the engine has produced a token. Each run starts the
supervisor, the controller, a worker and the engine anew.

    python bench/start.py [--quick] [--json] [--runs N]
"""

import time
from compileall import compile_dir
from pathlib import Path

import pilothouse
from rig.report import Report, figure, options, publish, tell
from rig.server import pulled_home, server


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--runs", type=int, default=0, help="starts; by default 9, with --quick 3")
    given = parser.parse_args()
    runs = given.runs or (3 if given.quick else 9)
    compile_dir(str(Path(pilothouse.__file__).parent), quiet=2)  # as `make setup` does
    home = pulled_home()
    samples = []
    for number in range(runs):
        began = time.monotonic()
        with server(home):
            samples.append(time.monotonic() - began)
        tell(f"start {number + 1} of {runs}: {samples[-1]:.2f} s")
    report = Report(
        bench="start: from `pilothouse up` to ready, default model",
        method=f"{runs} starts of all processes, the model's file in the page cache; median (least .. most)",
        figures=[figure("start to ready", samples, unit="s", goal="<= 3")],
    )
    publish(report, given)


if __name__ == "__main__":
    main()
