"""Declaring, staging and going back on the real program with the real model."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilothouse.domain.model import Artifact
from program_rig import Program, program
from program_shell import Shell

pytestmark = [pytest.mark.engine, pytest.mark.slow]

FIRST = """version: 1
models:
  assistant: {{source: "file:{path}", licence: Apache-2.0}}
deployments:
  live: {{model: assistant, engine_options: {{context_tokens: 512, slots: 1}}}}
endpoints:
  chat: {{routes: [{{deployment: live}}], limits: {{max_tokens: 8}}}}
"""


@pytest.fixture(scope="module")
def second(smollm2: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as another file: bytes after its last tensor, which nobody reads."""
    path = tmp_path_factory.mktemp("second") / "second.gguf"
    path.write_bytes(Path(smollm2.path).read_bytes() + bytes(32))
    return path


@pytest.fixture(scope="module")
def server(smollm2: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    home = tmp_path_factory.mktemp("declaring") / "home"
    with program(home, FIRST.format(path=smollm2.path)) as started:
        yield started


def test_a_second_version_is_staged_refused_swapped_and_gone_back_from(
    server: Program, second: Path, smollm2: Artifact, tmp_path: Path
) -> None:
    shell = Shell(server)
    file = tmp_path / "mine.yaml"

    assert shell.versions() == {f"assistant:{smollm2.digest.removeprefix('sha256:')[:12]}"}
    pulled = shell.json("model", "pull", f"file:{second}", "--name", "assistant", "--version", "2",
                        "--licence", "Apache-2.0")  # fmt: skip
    assert pulled["version"] == "2"

    shell.run("model", "stage", "assistant@2", "production")
    file.write_text(shell.run("spec").replace("model: assistant\n", "model: assistant@production\n"))
    said = shell.run("apply", "-f", str(file), "--wait")
    assert 'deployments.live.model: "assistant" -> "assistant@production"' in said
    assert "is ready" in said
    assert shell.versions() == {"assistant:2"}

    # A bad spec is refused with its line, and what runs goes on running.
    bad = tmp_path / "bad.yaml"
    bad.write_text(
        file.read_text().replace("assistant@production", "assistant@produktion").partition("\n")[2]
    )
    assert "no stage or version 'produktion' of model 'assistant'" in shell.run(
        "apply", "-f", str(bad), status=2
    )
    assert shell.run("chat", "chat", "Hello").strip()

    # A version leaves as an OCI artefact and comes back under another name, with the same digest.
    artefact = str(tmp_path / "a.tar")
    assert "assistant@2 is in" in shell.run("model", "export", "assistant@production", artefact)
    imported = shell.json("model", "import", artefact, "--name", "copy")
    assert (imported["version"], imported["digest"], imported["licence"]) == (
        "2",
        pulled["digest"],
        "Apache-2.0",
    )

    # Both are verified; one that is swapped on the disk is found, and not loaded.
    assert shell.run("model", "verify", "assistant").count("ok: ") == 2
    blob = server.home / "models" / "sha256" / smollm2.digest.removeprefix("sha256:")
    blob.chmod(0o600)
    with blob.open("r+b") as damaged:
        damaged.seek(-1, os.SEEK_END)
        damaged.write(b"!")
    assert "was changed on the disk" in shell.run("model", "verify", "assistant", status=1)
    refused = shell.run("apply", "--revision", "1", "--wait", "--timeout", "1m", status=1)
    assert "was changed on the disk" in refused
    assert shell.versions() == {"assistant:2"}, "the replica of the revision before goes on serving"
    assert shell.run("chat", "chat", "Hello").strip()

    shell.run("apply", "--revision", "3", "--wait")
    events = {one["reason"] for one in shell.json("get", "events")["items"]}
    assert {"declared", "stage_moved", "start", "ready", "start_failed"} <= events
    assert "assistant@production" in shell.run("describe", "deployment", "live")
    assert "used by models.assistant.stages.production" in shell.run(
        "model", "remove", "assistant@2", status=6
    )
