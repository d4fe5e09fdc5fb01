"""The published clients for Node, installed once for all tests that use them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from pilothouse.kit.lockfile import file_lock

FOLDER = Path(__file__).parent / "node"
INSTALL_S = 180


@pytest.fixture(scope="session")
def node() -> str:
    """Node, with the clients installed beside their lock: by one process, while others wait."""
    found, npm = shutil.which("node"), shutil.which("npm")
    if found is None or npm is None:
        pytest.skip("node and npm are not installed")
    with file_lock(FOLDER / "package-lock.json", timeout_s=2 * INSTALL_S):
        _install_clients(npm)
    return found


def _install_clients(npm: str) -> None:
    installed = FOLDER / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < (FOLDER / "package-lock.json").stat().st_mtime:
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
        try:
            done = subprocess.run(
                command, cwd=FOLDER, capture_output=True, text=True, timeout=INSTALL_S, check=False
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"npm ci took longer than {INSTALL_S} s")
        if done.returncode:
            pytest.skip(f"npm ci failed: {done.stderr.strip().splitlines()[-1:]}")
