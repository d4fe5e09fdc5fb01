"""The command line as a whole: its table, its help, its exit statuses."""

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import click.testing
import pytest

from pilothouse.cli import main as entry
from pilothouse.cli.main import COMMANDS, cli, exit_status, main
from pilothouse.domain import errors
from pilothouse.domain.errors import PilothouseError


def walk(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None, f"{path} {name} is in the table and nowhere else"
            yield from walk(found, f"{path} {name}")


ALL = dict(walk(cli, "pilothouse"))


@pytest.mark.parametrize("path", [path for path, command in ALL.items() if isinstance(command, click.Group)])
def test_a_list_of_commands_fits_a_narrow_terminal(path: str) -> None:
    told = click.testing.CliRunner().invoke(ALL[path], ["--help"], terminal_width=80).output

    assert not [line for line in told.partition("Commands:")[2].splitlines() if line.endswith("...")]


@pytest.mark.parametrize("path", ALL)
def test_every_command_says_what_it_does_with_an_example(path: str) -> None:
    help_text = ALL[path].help or ""

    assert "Example" in help_text
    assert f"  {path}" in help_text.partition("Example")[2]


@pytest.mark.parametrize(
    "path", [path for path, command in ALL.items() if not isinstance(command, click.Group)]
)
def test_every_command_has_json_and_documents_its_options(path: str) -> None:
    options = [one for one in ALL[path].params if isinstance(one, click.Option)]

    assert any("--json" in option.opts for option in options)
    assert [option.name for option in options if not option.help] == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.OperationFailed, 1),
        (errors.UpstreamError, 1),
        (errors.ModelFileRefused, 1),
        (errors.InvalidRequest, 2),
        (errors.ContextLengthExceeded, 2),
        (errors.ServerUnreachable, 3),
        (errors.InvalidApiKey, 4),
        (errors.PermissionDenied, 4),
        (errors.NotFound, 5),
        (errors.ModelNotFound, 5),
        (errors.Conflict, 6),
    ],
)
def test_an_error_has_the_exit_status_of_the_contract(error: type[PilothouseError], status: int) -> None:
    assert exit_status(error("x")) == status


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_an_error_is_one_line_with_what_and_fix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = run("status", "--home", str(tmp_path))

    assert status == 3
    assert (
        capsys.readouterr().err
        == f"error: no server runs in {tmp_path}. fix: pilothouse up, or name one by --url\n"
    )


def test_an_error_is_json_for_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("status", "--home", str(tmp_path), "--json")

    assert json.loads(capsys.readouterr().err)["error"]["code"] == "server_unreachable"


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("get",), ("up", "--port", "70000"), ("get", "nonsense")]
)
def test_wrong_usage_exits_with_2_and_one_line(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2

    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    assert "fix: " in line


def test_a_group_without_a_command_shows_its_help_and_exits_with_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("key") == 2
    assert "create" in capsys.readouterr().err


def test_help_loads_no_command() -> None:
    code = (
        "import sys; from pilothouse.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    )
    code += "print(sorted(name for name in sys.modules if name.startswith('pilothouse.')))"

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )

    loaded = ast.literal_eval(done.stdout.splitlines()[-1])
    assert [name for name in loaded if not name.startswith("pilothouse.domain")] == [
        "pilothouse.cli",
        "pilothouse.cli.main",
    ]


def test_the_table_names_what_is_there() -> None:
    for name, (target, help_text) in COMMANDS.items():
        module, _, attribute = target.partition(":")

        assert getattr(importlib.import_module(module), attribute).name == name
        assert help_text.endswith(".")


def test_a_reader_that_went_away_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(cli, "main", broken)
    monkeypatch.setattr(entry.os, "dup2", lambda *_: None)

    assert run("version") == 141
