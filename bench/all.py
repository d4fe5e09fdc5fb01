"""
Every bench, one after the other: `make bench`.

A bench that fails does not stop the others; the exit status tells. With
`--json`, one object a line.
"""

import subprocess
import sys
from pathlib import Path

BENCHES = (
    "gateway",
    "engine_overhead",
    "engines",
    "parallel",
    "start",
    "hangup",
    "crash",
    "memory",
    "idle",
    "recovery",
    "releases",
    "batch",
    "affinity",
    "flood",
    "balance",
    "plan",
    "canary",
    "planner",
    "simulate",
    "codecs",
    "passthrough",
    "cache",
    "semantic_cache",
)
BENCH = Path(__file__).parent


def main() -> int:
    subprocess.run([str(BENCH / "peers" / "setup.sh")], check=False)
    failed = []
    for name in BENCHES:
        print(f"== {name}", file=sys.stderr, flush=True)
        if subprocess.run([sys.executable, str(BENCH / f"{name}.py"), *sys.argv[1:]], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
