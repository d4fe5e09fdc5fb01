"""
Build the C instruments into `bench/build/`; does nothing when they are newer than their source.

They are C so that neither the upstream nor the load is what is measured:
together they answer more than 100,000 requests a second on one core.
"""

import shutil
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parent
BUILD = BENCH / "build"
FLAGS = ["-O2", "-std=gnu17", "-Wall", "-Wextra", "-Werror"]


def build(name: str) -> Path:
    """The path of the program made from `bench/<name>.c`."""
    source, program = BENCH / f"{name}.c", BUILD / name
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return program
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        sys.exit("the benches need a C compiler for their instruments: install gcc or clang")
    BUILD.mkdir(exist_ok=True)
    subprocess.run([compiler, *FLAGS, "-o", str(program), str(source)], check=True)
    return program


if __name__ == "__main__":
    for instrument in ("mock", "load"):
        print(build(instrument))
