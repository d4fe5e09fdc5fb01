"""The guides to secrets and to providers are read as the program reads them."""

import re
import shlex
from pathlib import Path

import click
import pytest

from pilothouse.cli.main import cli
from pilothouse.config import read_spec
from pilothouse.domain.provider_secret import host_of, users_of
from pilothouse.domain.speccheck import check_spec
from spec_trees import ENGINES

HOWTO = Path(__file__).parents[2] / "docs" / "howto"
GUIDE = (HOWTO / "secrets.md").read_text()
PROVIDERS = (HOWTO / "use-a-provider.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """Of ours: what stands before a pipe is somebody else's."""
    lines = [line for block in blocks(text, "sh") for line in block.strip().splitlines()]
    return [line.rpartition("| ")[2] for line in lines if "pilothouse " in line]


def options_of(line: str) -> dict[str, object]:
    _, group, name, *rest = shlex.split(line.partition(" < ")[0])
    found: click.Command = cli
    for word in (group, name):
        assert isinstance(found, click.Group)
        command = found.get_command(click.Context(found), word)
        assert command is not None
        found = command
    return found.make_context(name, rest, resilient_parsing=False).params


@pytest.mark.parametrize("line", commands(GUIDE) + commands(PROVIDERS))
def test_every_command_of_the_guides_is_there_with_its_options(line: str) -> None:
    assert options_of(line)


@pytest.mark.parametrize(
    "section",
    [GUIDE, *(part for part in PROVIDERS.split("\n## ") if "```yaml" in part)],
    ids=lambda section: section.partition("\n")[0],
)
def test_the_secret_of_a_guide_fits_its_deployment(section: str) -> None:
    (block,), given = blocks(section, "yaml"), options_of(commands(section)[0])
    spec = read_spec(block.encode())
    ((name, deployment),) = spec.deployments.items()

    check_spec(spec, engines=ENGINES, targets=["local"])
    assert users_of(str(given["name"]), spec) == [name]
    assert host_of(deployment.common.base_url) == given["host"]
