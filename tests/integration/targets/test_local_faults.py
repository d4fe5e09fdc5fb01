"""What LocalTarget does when something dies at the wrong moment, or lies about."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pilothouse.adapters.targets import _book
from pilothouse.adapters.targets._book import Book, Trace
from pilothouse.adapters.targets.local import LocalTarget
from pilothouse.domain.errors import InvalidRequest, OperationFailed
from pilothouse.domain.status import Replica
from pilothouse.kit import processes
from pilothouse.ports.engine import Launch
from pilothouse.testing.conformance_target import eventually, seen_as

NAME = "m-1-0"
MARK = ("--replica", "{name}", "--home-id", "{home}", "--log", "{log}")
"""As a program of ours says it: nothing stands between it and its log."""


class Place:
    """Folders for replicas, and what a test needs to make trouble there."""

    def __init__(self, folder: Path) -> None:
        self.run = folder / "run"
        self.logs = folder / "logs"
        self.book = Book(self.run, self.logs)

    def target(self, *, free_bytes: int = 10**9) -> LocalTarget:
        return LocalTarget(self.run, self.logs, free_bytes=lambda: free_bytes)

    async def start(
        self, target: LocalTarget, code: str = "signal.pause()", *, name: str = NAME, memory_bytes: int = 0
    ) -> Replica:
        return await target.start(
            name,
            launch(code, memory_bytes=memory_bytes),
            deployment="m",
            engine="llama.cpp",
            model_digest="sha256:aa",
            model_version="m:1",
        )

    def living(self) -> list[int]:
        return [one.pid for one in processes.find(["--home-id", self.book.home_id])]


def launch(code: str, *, memory_bytes: int = 0, config: str = "") -> Launch:
    program = f"import os, signal, sys, time; {code}"
    return Launch(
        argv=(sys.executable, "-I", "-S", "-c", program, *MARK, "--config", "{config}"),
        config=config,
        env={},
        address="unix:{socket}",
        slots=2,
        context_tokens=512,
        memory_bytes=memory_bytes,
    )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    for left in processes.find(["--home-id", place.book.home_id]):
        processes.kill_group(left)
        while processes.is_alive(left):
            processes.reap(left.pid)
        processes.reap(left.pid)


def lose_birth(place: Place) -> None:
    """The state as a crash between the fork and its note leaves it."""
    path = place.run / f"{NAME}.json"
    trace = msgspec.json.decode(path.read_bytes(), type=Trace)
    trace.identity = None
    trace.replica = msgspec.structs.replace(trace.replica, pid=0, started_at=0.0)
    path.write_bytes(msgspec.json.encode(trace))


async def test_a_process_made_right_before_a_crash_is_adopted(place: Place) -> None:
    started = await place.start(place.target())
    lose_birth(place)

    assert await place.target().observe() == [started]


async def test_a_start_after_such_a_crash_makes_no_second_process(place: Place) -> None:
    started = await place.start(place.target())
    lose_birth(place)

    assert await place.start(place.target()) == started
    assert place.living() == [started.pid]


async def test_a_stop_after_such_a_crash_ends_the_process(place: Place) -> None:
    await place.start(place.target())
    lose_birth(place)

    await place.target().stop(NAME, grace_s=5)

    assert place.living() == []


async def test_an_intent_that_came_to_nothing_is_seen_and_can_be_repeated(place: Place) -> None:
    started = await place.start(place.target())
    os.kill(started.pid, signal.SIGKILL)
    await seen_as(place.target(), NAME, "failed")
    lose_birth(place)
    path = place.run / f"{NAME}.json"
    trace = msgspec.json.decode(path.read_bytes(), type=Trace)
    trace.ended = ""
    path.write_bytes(msgspec.json.encode(trace))

    (seen,) = await place.target().observe()
    assert seen.state == "failed"
    assert "before it could start it" in seen.reason

    again = await place.start(place.target())
    assert place.living() == [again.pid]


async def test_a_controller_killed_while_it_starts_replicas_never_doubles_one(place: Place) -> None:
    """Kill it at many moments of a start; each time the next one must find or make exactly one."""
    program = (
        "import asyncio, sys; from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from test_local_faults import Place\n"
        "place = Place(Path(sys.argv[1]))\n"
        "print('go', flush=True)\n"
        "asyncio.run(place.start(place.target()))\n"
    )
    argv = [sys.executable, "-c", program, str(place.run.parent), str(Path(__file__).parent)]
    for delay_s in (0.0, 0.002, 0.004, 0.008, 0.012, 0.02, 0.04, 0.08):
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as starter:
            assert starter.stdout is not None
            assert starter.stdout.readline() == b"go\n"
            time.sleep(delay_s)
            starter.kill()

        started = await place.start(place.target())

        assert place.living() == [started.pid]
        assert await place.target().observe() == [started]
        await place.target().stop(NAME, grace_s=5)
        assert place.living() == []


async def test_a_process_whose_state_is_lost_is_ended(place: Place) -> None:
    await place.start(place.target())
    (place.run / f"{NAME}.json").unlink()

    assert await place.target().observe() == []

    async def gone() -> bool | None:
        return not place.living() or None

    assert await eventually(gone)


async def test_a_start_first_ends_a_process_whose_state_is_lost(place: Place) -> None:
    lost = await place.start(place.target())
    (place.run / f"{NAME}.json").unlink()

    started = await place.start(place.target())

    assert started.pid != lost.pid
    assert place.living() == [started.pid]


async def test_a_torn_state_file_is_as_good_as_none(place: Place) -> None:
    lost = await place.start(place.target())
    (place.run / f"{NAME}.json").write_bytes(b'{"replica": {"na')

    started = await place.start(place.target())

    assert started.pid != lost.pid
    assert place.living() == [started.pid]


async def test_a_number_that_came_back_is_not_taken_for_the_replica(place: Place) -> None:
    started = await place.start(place.target())
    path = place.run / f"{NAME}.json"
    path.write_bytes(path.read_bytes().replace(b'"birth":"', b'"birth":"an earlier boot '))

    (seen,) = await place.target().observe()

    assert seen.state == "failed"
    assert "exit status is unknown" in seen.reason
    os.kill(started.pid, 0)  # the stranger who has the number was not touched


async def test_a_stopped_process_that_does_not_go_on_is_killed(place: Place) -> None:
    target = place.target()
    started = await place.start(target)
    os.kill(started.pid, signal.SIGSTOP)
    (seen,) = await target.observe()

    await target.stop(NAME, grace_s=0.1)

    assert seen.state == "starting"
    assert place.living() == []
    assert await target.observe() == []


async def test_helpers_of_a_dead_leader_are_ended_before_a_new_start(place: Place) -> None:
    target = place.target()
    leader = await place.start(
        target, "pid = os.fork(); pid or (print('helper', flush=True), time.sleep(60))"
    )

    async def helper_is_alone() -> Replica | None:
        (seen,) = await target.observe()
        has_helper = "helper" in await target.logs(NAME, lines=5)
        return seen if seen.state == "failed" and has_helper else None

    await eventually(helper_is_alone)
    assert len(place.living()) == 1

    started = await place.start(target)

    assert started.pid != leader.pid
    assert place.living() == [started.pid]


async def test_helpers_are_ended_by_a_stop(place: Place) -> None:
    target = place.target()
    await place.start(target, "pid = os.fork(); print('up', flush=True); time.sleep(60)")

    async def both_are_up() -> bool | None:
        return await target.logs(NAME, lines=5) == ["up", "up"] or None

    await eventually(both_are_up)
    await target.stop(NAME, grace_s=0.1)

    assert place.living() == []


async def test_while_one_replica_is_slow_to_end_others_are_started_and_seen(place: Place) -> None:
    target = place.target()
    await place.start(target, "signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)")

    async def is_deaf() -> bool | None:
        return await target.logs(NAME, lines=1) == ["deaf"] or None

    await eventually(is_deaf)
    stopping = asyncio.create_task(target.stop(NAME, grace_s=3))
    await asyncio.sleep(0.05)

    began = time.monotonic()
    other = await place.start(target, name="m-1-1")
    names = {replica.name for replica in await target.observe()}
    took_s = time.monotonic() - began
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)

    assert other.state == "starting"
    assert names == {NAME, "m-1-1"}
    assert took_s < 2


async def test_an_end_that_was_asked_for_is_no_failure(place: Place) -> None:
    target = place.target()
    await place.start(target, "os.fork(); print('up', flush=True); time.sleep(60)")
    seen: list[str] = []

    async def watch() -> None:
        while True:
            seen.extend(replica.state for replica in await target.observe())

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    await target.stop(NAME, grace_s=0.3)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)

    assert "failed" not in seen


async def test_a_start_that_would_not_fit_beside_what_still_loads_is_refused(place: Place) -> None:
    target = place.target(free_bytes=1_000_000_000)
    await place.start(target, memory_bytes=600_000_000)

    with pytest.raises(OperationFailed, match="needs 600 MB of memory, but 1000 MB are free, of which 5"):
        await place.start(target, name="m-1-1", memory_bytes=600_000_000)

    assert len(await target.observe()) == 1


async def test_a_program_that_is_not_there_is_told_and_leaves_nothing(place: Place) -> None:
    target = place.target()
    wanted = msgspec.structs.replace(launch(""), argv=("/no/such/engine", *MARK))

    with pytest.raises(OperationFailed, match=r"m-1-0 cannot be started: .*/no/such/engine"):
        await target.start(NAME, wanted, deployment="m", engine="e", model_digest="", model_version="")

    assert await target.observe() == []


async def test_a_path_too_long_for_a_socket_is_told(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90)
    target = LocalTarget(deep, tmp_path / "logs")

    with pytest.raises(OperationFailed, match="choose a shorter --home"):
        await target.start(NAME, launch(""), deployment="m", engine="e", model_digest="", model_version="")


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a b", "-x", "x" * 201, "a\n"])
async def test_a_name_that_is_no_name_is_refused(place: Place, name: str) -> None:
    with pytest.raises(InvalidRequest):
        await place.target().start(
            name, launch(""), deployment="m", engine="e", model_digest="", model_version=""
        )


async def test_files_and_folders_are_closed_to_others(place: Place) -> None:
    await place.start(place.target(), "print('x', flush=True); signal.pause()")

    modes = {path.name: path.stat().st_mode & 0o777 for path in place.run.iterdir()}
    assert modes.pop(place.book.work_folder(NAME).name) == 0o700
    assert modes == dict.fromkeys((f"{NAME}.json", f"{NAME}.config"), 0o600)
    assert place.run.stat().st_mode & 0o777 == 0o700
    assert (place.logs / f"{NAME}.log").stat().st_mode & 0o777 == 0o600


async def test_the_config_is_in_a_file_and_not_in_the_command_line(place: Place) -> None:
    target = place.target()
    wanted = launch(
        "print(open(sys.argv[sys.argv.index('--config') + 1]).read(), flush=True); signal.pause()",
        config='{"at": "{socket}"}',
    )
    started = await target.start(NAME, wanted, deployment="m", engine="e", model_digest="", model_version="")
    socket = started.address.removeprefix("unix:")

    async def said() -> bool | None:
        return await target.logs(NAME, lines=1) == [f'{{"at": "{socket}"}}'] or None

    assert await eventually(said)


async def test_a_stop_leaves_nothing_in_the_folder(place: Place) -> None:
    await place.start(place.target())

    await place.target().stop(NAME, grace_s=5)

    assert list(place.run.iterdir()) == []


async def test_a_lock_that_another_process_keeps_is_told(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_book, "LOCK_WAIT_S", 0.05)
    await place.start(place.target())

    with place.book.locked(), pytest.raises(OperationFailed, match="is locked by another process"):
        await place.target().observe()


async def test_the_logs_of_what_is_gone_stay_but_not_without_end(place: Place) -> None:
    target = place.target()
    await place.start(target, "print('why', flush=True); sys.exit(1)")
    await seen_as(target, NAME, "failed")
    for i in range(30):
        log = place.logs / f"old-{i}.log"
        log.write_text("old")
        os.utime(log, (i, i))

    await target.stop(NAME, grace_s=1)

    assert await target.logs(NAME, lines=1) == ["why"]
    assert len(list(place.logs.glob("*.log"))) == 20
    assert not (place.logs / "old-0.log").exists()
