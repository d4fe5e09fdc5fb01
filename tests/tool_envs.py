"""
Virtual environments of other people's tools, each made once and kept in the tests' cache.

The small ones are made by the test that needs one. `lm-eval` is 700 MB:
`python tests/tool_envs.py lm-eval` makes it, and without it its test is skipped.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pilothouse.kit.lockfile import file_lock

PACKAGES = {
    "llm": ("llm==0.36",),
    "langchain": ("langchain-openai==1.7.4", "langchain-anthropic==1.7.10"),
    "ollama": ("ollama==0.6.3",),
    "lm-eval": ("lm-eval[api]==0.4.13", "transformers==5.24.0", "gguf==0.19.0"),
}
ON_DEMAND = {"lm-eval"}
_TIMEOUT_S = 300


def default_folder() -> Path:
    return Path.home() / ".cache" / "pilothouse-tests" / "tools"


def environment(name: str, folder: Path) -> Path:
    """Its `bin`; the test is skipped where it cannot be made, or is not made by itself."""
    made = folder / f"{name}-{'.'.join(map(str, sys.version_info[:2]))}"
    wanted = "\n".join(PACKAGES[name])
    stamp = made / "packages.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        return made / "bin"
    if name in ON_DEMAND:
        pytest.skip(f"{name} is not installed: python tests/tool_envs.py {name}")
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(made.with_name(f"{made.name}.lock"), timeout_s=3 * _TIMEOUT_S):
        if not (stamp.exists() and stamp.read_text() == wanted):
            if fault := make(made, PACKAGES[name]):
                pytest.skip(f"{name} cannot be installed: {fault}")
            stamp.write_text(wanted)
    return made / "bin"


def make(folder: Path, packages: tuple[str, ...]) -> str:
    """What went wrong, or ""."""
    shutil.rmtree(folder, ignore_errors=True)
    python = str(folder / "bin" / "python")
    uv = _uv()
    if uv:
        commands = [
            [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "--quiet", "--python", python, *packages],
        ]
    else:
        commands = [
            [sys.executable, "-m", "venv", str(folder)],
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages],
        ]
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as exc:
            return str(exc)[:300]
        if done.returncode:
            return " ".join(done.stderr.split())[-300:]
    return ""


def _uv() -> str:
    """As the Makefile finds it."""
    own = Path(__file__).parents[1] / ".uv" / "bin" / "uv"
    return shutil.which("uv") or (str(own) if own.exists() else "")


def main() -> None:
    for name in sys.argv[1:]:
        made = default_folder() / f"{name}-{'.'.join(map(str, sys.version_info[:2]))}"
        if fault := make(made, PACKAGES[name]):
            sys.exit(fault)
        (made / "packages.txt").write_text("\n".join(PACKAGES[name]))
        sys.stdout.write(f"{made}\n")


if __name__ == "__main__":
    main()
