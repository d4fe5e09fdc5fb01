"""The tool that makes the demonstration model a folder of safetensors, killed half way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pilothouse.adapters.engines._environment import python_of

TOOL = Path(__file__).parents[3] / "tools" / "smollm2_folder.py"
pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path(python_of("transformers")).exists(),
        reason="no torch here: pilothouse engine install transformers",
    ),
]
BEGIN_S = 300.0


def test_a_run_that_is_killed_leaves_no_folder_that_a_later_one_refuses(
    tmp_path: Path, smollm2_gguf: Path
) -> None:
    folder = tmp_path / "models" / "smollm2"
    argv = [sys.executable, str(TOOL), str(folder), "--gguf", str(smollm2_gguf)]
    with subprocess.Popen(argv, start_new_session=True, stdout=subprocess.DEVNULL) as tool:
        try:
            wait_until_it_writes(tmp_path, tool, timeout_s=BEGIN_S)
        finally:
            os.killpg(tool.pid, signal.SIGKILL)

    assert not folder.exists()


def wait_until_it_writes(place: Path, tool: "subprocess.Popen[bytes]", *, timeout_s: float) -> None:
    """The tokenizer is written before the weights are read."""
    ends = time.monotonic() + timeout_s
    while not list(place.rglob("tokenizer.json")):
        assert tool.poll() is None, "the tool ended before it wrote anything"
        assert time.monotonic() < ends, "the tool wrote nothing in time"
        time.sleep(0.01)
