"""The documents on planning and simulating do what they say; only a load test there needs a server."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

HOWTO = Path(__file__).parents[2] / "docs" / "howto"
PROGRAM = "from pilothouse.cli.main import main; main()"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (HOWTO / page).read_text(), re.MULTILINE | re.DOTALL)


def run(line: str, folder: Path) -> str:
    program, *arguments = shlex.split(line)
    assert program == "pilothouse"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=folder,
        env={**os.environ, "PILOTHOUSE_HOME": str(folder / "home"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("page", ["plan-capacity.md", "simulate.md"])
def test_every_command_of_the_page_works_with_the_files_that_it_shows(page: str, tmp_path: Path) -> None:
    scenarios = [text for text in blocks(page, "yaml") if "deployments:" in text]
    (prices,) = (text for text in blocks(page, "yaml") if "usd_per_hour" in text)
    (tmp_path / "prices.yaml").write_text(prices)
    for number, text in enumerate(reversed(scenarios)):
        (tmp_path / "scenario.yaml").write_text(text)
        if number < len(scenarios) - 1:
            assert "rolled_back" in run("pilothouse simulate -f scenario.yaml", tmp_path)
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    commands = [line for line in lines if "--answers" not in line]
    for line in set(lines) - set(commands):
        (answer,) = re.findall(r'`(\{"began".*?\})`', (HOWTO / page).read_text())
        (tmp_path / shlex.split(line)[-1]).write_text(answer + "\n")

    said = [run(command, tmp_path) for command in commands]

    assert len(said) == len(commands) >= 2
    assert any("$" in text for text in said)
    assert "$" not in said[0]
