"""
Compile the modules of the request path with mypyc: what `make fast` does.

Which ones, and where the result lies so that it is never stale: `pilothouse.app.compiled`.
Where there is no C compiler this says so and is content, for nothing needs it.

    python tools/fast.py [--into FOLDER] [--optimize 0|1|2|3]
"""

import argparse
import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

from mypyc.build import mypycify
from setuptools import setup

from pilothouse.app import compiled

KEPT = 3
"""Builds of other sources that may lie beside the newest: a rollback finds its own again."""

_DIRECT = ["-fvisibility=hidden", "-fno-semantic-interposition", "-fno-plt"]
"""Functions of the library call each other directly: nobody outside may put others in their place."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--into", type=Path, default=compiled.default_folder(), help="instead of the usual place"
    )
    parser.add_argument("--optimize", choices="0123", default="2", help="the C compiler's level")
    given = parser.parse_args()
    if given.into.exists():
        print("The request path is compiled already")
    elif not has_compiler():
        print("No C compiler or no Python.h here: workers run the interpreted modules")
    else:
        print("Compiling the request path; two minutes, once for these sources", flush=True)
        build(given.into, level=given.optimize)
        print(f"Compiled: {len(compiled.MODULES)} modules, for the workers that start from now on")


def has_compiler() -> bool:
    program = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    headers = Path(sysconfig.get_path("include"), "Python.h")
    return shutil.which(program) is not None and headers.exists()


def build(folder: Path, *, level: str) -> None:
    """Make it beside, then give it its name: a build that broke off is none."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    source = compiled.PACKAGE.parent
    files = [f"{compiled.PACKAGE.name}/{name.replace('.', '/')}.py" for name in compiled.MODULES]
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as work:
        os.chdir(source)  # mypyc names modules by their path from here
        options = ["--python-executable", sys.executable, "--cache-dir", f"{work}/cache"]
        options += ["--config-file", str(source.parent / "pyproject.toml")]
        parts = mypycify(
            [*options, *files],
            opt_level=level,
            debug_level="0",
            target_dir=f"{work}/c",
            group_name=compiled.GROUP,
        )
        for part in parts:  # another compiler's warning is no reason to have no build
            part.extra_compile_args = [one for one in part.extra_compile_args if one != "-Werror"] + _DIRECT
        into = ["--build-lib", f"{work}/made", "--build-temp", f"{work}/objects"]
        setup(name="pilothouse-fast", ext_modules=parts, script_args=["--quiet", "build_ext", *into])
        Path(work, "made").rename(folder)
    _forget_old(folder)


def _forget_old(newest: Path) -> None:
    others = [path for path in newest.parent.iterdir() if path != newest and not path.name.startswith(".")]
    for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    main()
