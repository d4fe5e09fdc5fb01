"""No stage of the request path has doubled: `bench/stages.py --check` says so, with the real worker."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(
    shutil.which("cc") is None, reason="the bench's instruments are written in C, and there is no cc"
)
def test_no_stage_of_a_request_costs_twice_what_it_did() -> None:
    argv = [sys.executable, str(ROOT / "bench" / "stages.py"), "--check"]

    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
