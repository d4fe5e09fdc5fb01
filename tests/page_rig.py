"""The blocks of a page of docs/howto, and the shell that a reader would paste them into."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

HOWTO = Path(__file__).parents[1] / "docs" / "howto"


def blocks(page: str, language: str) -> list[str]:
    """Args: page: Its file's name."""
    found = re.findall(rf"^```{language}\n(.*?)^```", (HOWTO / page).read_text(), re.MULTILINE | re.DOTALL)
    return [str(block) for block in found]


def blocks_that_start(page: str) -> list[str]:
    """The page's shell blocks; the first starts a program: at a free port, and ended with the shell."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    up, *others = (block.replace("8420", port) for block in blocks(page, "sh"))
    up = up.replace("pilothouse up ", f"pilothouse up --port {port} ")
    return [f"trap 'pilothouse down >/dev/null 2>&1 || true' EXIT\n{up}", *others]


def run(script: str, folder: Path, **more: str) -> str:
    """What it prints; it must succeed. `more` are variables of its environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PILOTHOUSE_")}
    kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder, env=kept | more, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    return done.stdout
