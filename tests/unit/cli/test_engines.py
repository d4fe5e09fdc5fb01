"""`engine list` where no server runs yet: somebody chooses what to install."""

import json
from pathlib import Path

from click.testing import CliRunner

from pilothouse.app.engines import OWN
from pilothouse.cli.main import cli


def listed(home: Path, *more: str) -> str:
    result = CliRunner().invoke(cli, ["engine", "list", "--home", str(home), *more])
    assert result.exit_code == 0, result.output
    return result.output


def test_without_a_server_the_engines_of_this_machine_are_listed(tmp_path: Path):
    rows = listed(tmp_path).splitlines()

    assert rows[0].startswith("NAME")
    assert [row.split()[0] for row in rows[1:]] == sorted({*OWN, *(row.split()[0] for row in rows[1:])})
    assert next(row for row in rows if row.startswith("openai ")).split()[1] == "yes"


def test_programs_get_what_is_missing_and_the_command_that_installs_it(tmp_path: Path):
    items = {one["name"]: one for one in json.loads(listed(tmp_path, "--json"))["items"]}

    assert "stream" in items["llama.cpp"]["capabilities"]
    for one in items.values():
        assert one["installed"] or (one["missing"] and one["install_command"]), one
