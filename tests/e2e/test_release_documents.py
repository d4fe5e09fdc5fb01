"""The how-to pages of releases do what they say: their spec and shell blocks are run, in order."""

import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOWTO = ROOT / "docs" / "howto"
TIMEOUT_S = 240.0

pytestmark = [pytest.mark.engine, pytest.mark.slow]


def blocks(page: str, language: str) -> list[str]:
    text = (HOWTO / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def follow(page: str, folder: Path, *, port: str) -> str:
    """
    All that the page's commands print.

    Args:
        folder: Where the spec file and the home are.
        port: The one in the page; a free one takes its place.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = str(probe.getsockname()[1])
    (folder / "pilothouse.yaml").write_text(blocks(page, "yaml")[0])
    script = "\n".join(blocks(page, "sh")).replace(port, free)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PILOTHOUSE_")}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"trap 'pilothouse down >/dev/null 2>&1 || true' EXIT\n{script}"],
        cwd=folder,
        env={
            **kept,
            "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}",
            "PILOTHOUSE_HOME": str(folder / "home"),
        },
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"
    return done.stdout


def test_the_page_about_rollouts_works(tmp_path: Path) -> None:
    said = follow("roll-out-a-model.md", tmp_path, port="8422")

    assert "assistant-v2 gets" in said
    assert "answers_at_all" in said
    assert "thumbs" in said


def test_the_page_about_shadows_works(tmp_path: Path) -> None:
    said = follow("try-a-model-unseen.md", tmp_path, port="8424")

    assert "assistant-v2 gets 0 %" in said
    assert "of 500 unseen" in said
    assert "assistant-v2 answered a copy of " in said
    assert "aborted" in said


def test_the_page_about_scaling_works(tmp_path: Path) -> None:
    said = follow("scale-to-zero.md", tmp_path, port="8423")

    assert "Asleep" in said
