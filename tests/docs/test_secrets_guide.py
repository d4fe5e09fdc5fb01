"""The guide to secrets is read as the program reads it."""

import re
import shlex
from pathlib import Path

import click
import pytest

from pilothouse.cli.main import cli
from pilothouse.config import read_spec
from pilothouse.domain.provider_secret import host_of, users_of

GUIDE = (Path(__file__).parents[2] / "docs" / "howto" / "secrets.md").read_text()
COMMANDS = [
    line.rpartition("| ")[2]
    for block in re.findall(r"^```sh\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    for line in block.strip().splitlines()
]


def options_of(line: str) -> dict[str, object]:
    _, group, name, *rest = shlex.split(line)
    found: click.Command = cli
    for word in (group, name):
        assert isinstance(found, click.Group)
        command = found.get_command(click.Context(found), word)
        assert command is not None
        found = command
    return found.make_context(name, rest, resilient_parsing=False).params


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_guide_is_there_with_its_options(line: str) -> None:
    assert options_of(line)


def test_the_secret_of_the_guide_fits_its_deployment() -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    spec, given = read_spec(block.encode()), options_of(COMMANDS[0])

    assert users_of(str(given["name"]), spec) == ["cloud"]
    assert host_of(spec.deployments["cloud"].common.base_url) == given["host"]
