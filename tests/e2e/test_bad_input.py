"""Everything that is refused is refused with the reason and the fix, and what runs goes on running."""

import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client_rig import Client, wait_until
from pilothouse.domain.model import Artifact
from pilothouse.domain.room import KEPT_FREE_BYTES
from program_rig import Program, program
from program_shell import Shell
from small_disk import fill_disk, small_disk

pytestmark = [pytest.mark.engine, pytest.mark.slow]

GOOD = """version: 1
models:
  smollm2: {{source: "file:{path}", licence: Apache-2.0}}
deployments:
  live: {{model: smollm2, engine_options: {{context_tokens: 512, slots: 1}}}}
  spare: {{model: smollm2, replicas: {{min: 0, max: 1}}, engine_options: {{context_tokens: 512, slots: 1}}}}
endpoints:
  chat: {{routes: [{{deployment: live}}], limits: {{max_tokens: 8}}}}
"""

ROUTE = "deployment: live}]"
REFUSED = {
    "an unknown field": ("smollm2, engine_o", "smollm2, engin_o", "did you mean `engine_options`?"),
    "an unknown engine": ("live: {", "live: {engine: lama.cpp, ", "did you mean 'llama.cpp'?"),
    "a fallback onto itself": (
        ROUTE,
        f"{ROUTE}, fallback: [spare, live]",
        "fallback[1]: 'live' is a route already",
    ),
    "a fallback that comes round": (
        ROUTE,
        f"{ROUTE}, fallback: [spare, spare]",
        "fallback[1]: 'spare' is named twice",
    ),
    "weights that do not sum": (
        ROUTE,
        "deployment: live, weight: 50}, {deployment: spare, weight: 30}]",
        "the weights 50, 30 sum to 80, not 100; such as 63, 37",
    ),
    "memory that cannot fit": (
        "context_tokens: 512, slots: 1",
        "context_tokens: 8192, slots: 9000",
        r"weights \d+ MB \+ cache \d+ MB .* = \d+ MB, but \d+ MB .*; lower context_tokens",
    ),
    "a licence against the policy": (
        "version: 1",
        "version: 1\nlicences: {allowed: [MIT]}",
        "its licence 'Apache-2.0' is none that the policy allows: MIT",
    ),
    "another schema": ("version: 1", "version: 0", "fix: write `version: 1`"),
}


@pytest.fixture(scope="module")
def server(smollm2: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    home = tmp_path_factory.mktemp("refusing") / "home"
    with program(home, GOOD.format(path=smollm2.path)) as started:
        yield started


@pytest.fixture
def goes_on(server: Program) -> Iterator[None]:
    """The very replica that ran before answers after it."""
    client = Client(server, "chat")
    before = running(client)
    yield
    assert client.ask()[0] == 200
    assert running(client) == before


def running(client: Client) -> set[int]:
    status, page = client.call("GET", "/admin/v1/replicas")
    assert status == 200
    return {one["pid"] for one in page["items"] if one["state"] == "ready"}


@pytest.mark.usefixtures("goes_on")
@pytest.mark.parametrize("what", REFUSED)
def test_a_bad_spec_is_refused(server: Program, smollm2: Artifact, tmp_path: Path, what: str) -> None:
    old, new, said = REFUSED[what]
    file = tmp_path / "bad.yaml"
    file.write_text(GOOD.format(path=smollm2.path).replace(old, new, 1))

    refused = Shell(server).run("apply", "-f", str(file), status=2)

    assert re.search(rf"{re.escape(str(file))}:\d+:\d+: ", refused), "the line is named"
    assert said in refused or re.search(said, refused), refused


@pytest.mark.usefixtures("goes_on")
def test_a_spec_older_than_what_runs_is_a_conflict(
    server: Program, smollm2: Artifact, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    shell = Shell(server)
    mine = shell.run("spec")
    file.write_text(GOOD.format(path=smollm2.path).replace("max_tokens: 8", "max_tokens: 9"))
    shell.run("apply", "-f", str(file))
    file.write_text(mine.replace("max_tokens: 8", "max_tokens: 7"))

    refused = shell.run("apply", "-f", str(file), status=6)

    assert "runs, declared by admin.key (" in refused
    assert "fix: see pilothouse diff" in refused
    file.write_text(mine.partition("\n")[2])
    shell.run("apply", "-f", str(file))


@pytest.mark.usefixtures("goes_on")
def test_a_source_that_became_another_file_is_not_taken(
    server: Program, smollm2: Artifact, tmp_path: Path
) -> None:
    file, shell = tmp_path / "model.gguf", Shell(server)
    file.write_bytes(Path(smollm2.path).read_bytes())
    shell.run("model", "pull", f"file:{file}", "--name", "mine")
    with file.open("ab") as grown:
        grown.write(bytes(32))

    refused = shell.run("model", "pull", f"file:{file}", "--name", "mine", status=1)

    assert f"but {smollm2.digest} is recorded" in refused
    assert "remove the model and pull it again" in refused
    shell.run("model", "remove", "mine")


@pytest.mark.usefixtures("goes_on")
def test_a_model_without_a_licence_is_not_taken_where_the_policy_wants_one(
    server: Program, smollm2: Artifact, tmp_path: Path
) -> None:
    file, spec, shell = tmp_path / "nameless.gguf", tmp_path / "spec.yaml", Shell(server)
    file.write_bytes(Path(smollm2.path).read_bytes().replace(b"general.license", b"general.licensf", 1))
    good = GOOD.format(path=smollm2.path)
    spec.write_text(good.replace("version: 1", "version: 1\nlicences: {allowed: [Apache-2.0]}"))
    shell.run("apply", "-f", str(spec))

    refused = shell.run("model", "pull", f"file:{file}", "--name", "nameless", status=4)

    assert "its licence is not known, and the policy wants one of: Apache-2.0" in refused
    assert "declare it as `licence`" in refused
    shell.run("model", "pull", f"file:{file}", "--name", "nameless", "--licence", "Apache-2.0")
    spec.write_text(good)
    shell.run("apply", "-f", str(spec))


def test_a_disk_that_fills_during_a_pull_ends_the_pull_and_nothing_else(
    smollm2: Artifact, tmp_path: Path
) -> None:
    large = tmp_path / "large.gguf"  # its last two thirds are a hole that costs no disk
    large.write_bytes(Path(smollm2.path).read_bytes())
    large_bytes = 3 * smollm2.bytes
    os.truncate(large, large_bytes)
    journal_bytes = 256 << 20
    room = smollm2.bytes + journal_bytes + large_bytes + KEPT_FREE_BYTES
    with (
        small_disk(tmp_path / "disk", size_bytes=room) as disk,
        program(disk / "home", GOOD.format(path=smollm2.path)) as server,
    ):
        client, shell = Client(server, "chat"), Shell(server)
        before = running(client)
        ballast = filled_meanwhile(disk, lambda: arrives(server.home))

        refused = shell.run("model", "pull", f"file:{large}", "--name", "large", status=1)
        ballast.join(30)

        assert "the disk became full at large.gguf: free some space and try again" in refused
        assert client.ask()[0] == 200
        assert running(client) == before
        assert not arrives(server.home), "what was begun is gone"
        (disk / "ballast").unlink()
        assert json.loads(
            shell.run("model", "pull", f"file:{large}", "--name", "large", "--json").splitlines()[-1]
        )


def arrives(home: Path) -> bool:
    return any(path.stat().st_size for path in home.rglob("model.gguf"))


def filled_meanwhile(disk: Path, is_time: Callable[[], bool]) -> threading.Thread:
    def fill() -> None:
        wait_until(is_time, what="pull", within_s=30)
        fill_disk(disk)

    thread = threading.Thread(target=fill)
    thread.start()
    return thread
