"""The how-to of batches does what it says: its own line and its own program, the real program and model."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from program_rig import program

HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "batches.md"
SPEC = """
version: 1
models: {{smollm2: {{source: "file:{model}"}}}}
deployments: {{smollm2: {{model: smollm2, engine_options: {{context_tokens: 512, slots: 2}}}}}}
endpoints: {{smollm2: {{routes: [{{deployment: smollm2}}], limits: {{max_tokens: 8}}}}}}
"""

pytestmark = [pytest.mark.engine, pytest.mark.slow]


def test_the_how_to_of_batches_works_from_top_to_bottom(smollm2_gguf: Path, tmp_path: Path) -> None:
    text = HOWTO.read_text()
    (line,), (code,) = [
        re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL) for kind in ("json", "python")
    ]
    (tmp_path / "requests.jsonl").write_text(line)

    with program(tmp_path / "home", SPEC.format(model=smollm2_gguf)) as running:
        code = code.replace("http://127.0.0.1:8420", running.url).replace("ph_...", running.admin_key)
        done = subprocess.run(
            [sys.executable, "-c", code.replace("sleep(5)", "sleep(0.1)")],
            cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    assert done.returncode == 0, done.stderr
    counts, answer = done.stdout.strip().splitlines()
    assert counts == "BatchRequestCounts(completed=1, failed=0, total=1)"
    assert '"custom_id":"1"' in answer
