"""Any program is started as llama.cpp is: it gets what its launch has a place for, and nothing else."""

import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pilothouse.adapters.targets._shared_memory import prefix
from pilothouse.adapters.targets.local import LocalTarget
from pilothouse.domain.errors import OperationFailed
from pilothouse.domain.status import Replica
from pilothouse.kit import keeper, processes, ringlog
from pilothouse.ports.engine import Launch
from pilothouse.testing.conformance_target import eventually, seen_as

NAME = "m-1-0"
SHOW = """
import json, os, signal, sys
print(json.dumps([sys.argv[1:], dict(os.environ)]), flush=True)
signal.pause()
"""
SIZES: dict[str, Any] = {"slots": 2, "context_tokens": 512, "memory_bytes": 0}


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[LocalTarget]:
    target = LocalTarget(tmp_path / "run", tmp_path / "logs")
    yield target
    for replica in await target.observe():
        await target.stop(replica.name, grace_s=1.0)


def shown(*words: str, code: str = SHOW, **changes: Any) -> Launch:
    given: dict[str, Any] = {"env": {}, "address": "unix:{socket}", **SIZES}
    return Launch(argv=(sys.executable, "-I", "-S", "-c", code, *words), **given | changes)


async def start(target: LocalTarget, launch: Launch) -> Replica:
    return await target.start(
        NAME, launch, deployment="m", engine="x", model_digest="sha256:aa", model_version="m:1"
    )


async def said(target: LocalTarget) -> Any:
    async def look() -> Any:
        lines = await target.logs(NAME, lines=1)
        return json.loads(lines[0]) if lines else None

    return await eventually(look)


async def test_places_are_filled_in_and_nothing_is_inherited(target: LocalTarget) -> None:
    os.environ["PILOTHOUSE_TEST_SECRET"] = "x"
    wanted = shown(
        "{port.http}",
        "{port.grpc}",
        "{folder}",
        "{token_file}",
        ports=("http", "grpc"),
        env={"HOME": "{folder}", "TOKEN": "{token}"},
        address="http://127.0.0.1:{port.http}/v1",
        files={"models/m/config.txt": "{socket}"},
    )

    replica = await start(target, wanted)
    argv, env = await said(target)

    http, grpc, folder, token_file = argv
    token = Path(token_file).read_text()
    assert env.keys() - {"LC_CTYPE"} == {"HOME", "TOKEN"}
    assert (env["HOME"], env["TOKEN"]) == (folder, token)
    assert len(token) > 40
    assert http != grpc
    assert replica.address == f"http://127.0.0.1:{http}/v1"
    assert replica.token_file == token_file
    assert Path(token_file).stat().st_mode & 0o777 == 0o600
    assert (Path(folder) / "models/m/config.txt").read_text() == "{socket}"
    assert await LocalTarget(target._book.folder, target._book._logs).observe() == [replica]

    await target.stop(NAME, grace_s=5.0)

    assert list(target._book.folder.iterdir()) == []


async def test_a_token_never_stands_in_the_command_line(target: LocalTarget) -> None:
    with pytest.raises(OperationFailed, match="everybody can read"):
        await start(target, shown("{token}"))

    assert await target.observe() == []


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", ""])
async def test_a_file_outside_of_its_folder_is_refused(target: LocalTarget, path: str) -> None:
    with pytest.raises(OperationFailed, match="out of its folder"):
        await start(target, shown(files={path: "x"}))

    assert await target.observe() == []


async def test_a_program_that_is_not_there_is_told_at_once(target: LocalTarget) -> None:
    with pytest.raises(OperationFailed, match="there is no program /no/such"):
        await start(target, Launch(argv=("/no/such",), env={}, address="", **SIZES))


async def test_the_process_that_is_watched_is_the_program_itself(target: LocalTarget) -> None:
    replica = await start(target, shown(code="import signal; print('[1]', flush=True); signal.pause()"))
    await said(target)

    os.kill(replica.pid, signal.SIGKILL)

    failed = await seen_as(target, NAME, "failed")
    assert "SIGKILL" in failed.reason
    assert failed.reason.endswith("its last line: [1]")


async def test_the_keeper_of_a_log_goes_with_its_program(target: LocalTarget) -> None:
    replica = await start(target, shown())
    await said(target)
    identity = processes.identify(replica.pid)
    assert identity is not None
    assert len(processes.group_members(identity)) == 2

    os.kill(replica.pid, signal.SIGKILL)
    await seen_as(target, NAME, "failed")

    async def is_alone() -> bool | None:
        return not processes.group_members(identity) or None

    assert await eventually(is_alone)


SHARE = """
import signal, sys
open(f"/dev/shm/{sys.argv[1]}piece", "x").close()
signal.pause()
"""


async def test_shared_memory_of_one_that_was_killed_is_removed_and_no_others(
    target: LocalTarget,
) -> None:
    replica = await start(target, shown("{shared_memory}", code=SHARE))
    mine = Path("/dev/shm") / f"{prefix(target._book.home_id, NAME)}piece"
    other = Path("/dev/shm") / f"{prefix(target._book.home_id, f'{NAME}_x')}piece"
    await eventually(_there(mine))
    other.touch()
    try:
        os.kill(replica.pid, signal.SIGKILL)
        await seen_as(target, NAME, "failed")
        await start(target, shown("{shared_memory}", code=SHARE))  # which would fail if it were there
        await eventually(_there(mine))
        await target.stop(NAME, grace_s=5.0)

        assert not mine.exists()
        assert other.exists()
    finally:
        other.unlink()


def _there(path: Path) -> Callable[[], Awaitable[bool | None]]:
    async def look() -> bool | None:
        return path.exists() or None

    return look


async def test_a_port_that_is_taken_is_not_given(target: LocalTarget) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        wanted = shown(ports=("http",), address="http://127.0.0.1:{port.http}/v1")

        replica = await start(target, wanted)

        assert replica.address != f"http://127.0.0.1:{held.getsockname()[1]}/v1"


def test_a_log_stays_bounded(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    reading, writing = os.pipe()
    if not (child := os.fork()):
        os.close(writing)
        keeper.keep(reading, str(path), max_bytes=1000)
        os._exit(0)
    os.close(reading)
    for number in range(500):
        os.write(writing, b"line %d\n" % number)
    os.close(writing)
    os.waitpid(child, 0)

    total = sum(one.stat().st_size for one in (path, ringlog.older_part(path)) if one.exists())
    assert total < 2000 + keeper.READ_BYTES
    assert ringlog.tail(path, 5)[-1] == "line 499"


async def test_many_lines_are_not_waited_for(target: LocalTarget) -> None:
    code = "import sys\nfor n in range(60000): print('x' * 100)\nprint('done', flush=True)"
    await start(target, shown(code=code))

    async def look() -> bool | None:
        return (await target.logs(NAME, lines=1)) == ["done"] or None

    assert await eventually(look)
