"""The controller's process with the real engine, from the first start to its end."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from controller_rig import House, spec_of
from pilothouse.adapters.keys.file import FileKeys
from pilothouse.domain.record import InferenceRecord, JournalEntry
from pilothouse.domain.snapshot import Snapshot
from pilothouse.kit.journal.writer import JournalWriter
from pilothouse.kit.lockfile import LockFile

pytestmark = pytest.mark.engine


@pytest.fixture
async def house(tmp_path: Path, smollm2_gguf: Path) -> AsyncIterator[House]:
    house = House(tmp_path, spec_of(smollm2_gguf))
    house.connect()
    yield house
    await house.close()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def is_listening_to_signals(pid: int) -> bool:
    """Whether TERM would be handled, which a young interpreter does not yet."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


async def test_from_an_empty_home_to_a_ready_replica_and_an_admin_key(house, smollm2_gguf):
    async with house.controller():
        await house.until(house.ready)
        status = await house.ask("GET", "/admin/v1/status")
        (replica,) = (await house.ask("GET", "/admin/v1/replicas"))["items"]

    (entry,) = house.newest.replicas["d"]
    assert entry.slots == (0, 1)
    assert entry.context_tokens == 256
    assert house.newest.endpoints["e"].tasks == ("chat", "completion")
    assert [key.role for key in house.newest.keys.values()] == ["admin"]
    assert status["phase"] == "ready"
    assert replica["memory_bytes"] > smollm2_gguf.stat().st_size, "the model was read into it"
    assert replica["cpu_seconds"] > 0
    assert {process["role"] for process in status["processes"]} >= {"controller", "worker", "replica"}


async def test_a_killed_engine_is_withdrawn_and_started_again(house):
    async with house.controller():
        await house.until(house.ready)
        (name,) = house.ready()
        killed = (await house.pids())[name]

        os.kill(killed, signal.SIGKILL)
        await house.until(lambda: not house.ready(), timeout_s=5)
        await house.until(house.ready)

        assert (await house.pids())[name] != killed
        assert not is_alive(killed)


async def test_a_killed_controller_is_followed_by_one_that_adopts_the_engine(house):
    async with house.controller() as first:
        await house.until(house.ready)
        pids = await house.pids()
        before: Snapshot = house.newest
        first.signal(signal.SIGKILL)
        await first.wait(timeout_s=10)

    async with house.controller():
        await house.until(lambda: house.newest.epoch != before.epoch)
        first_word = house.newest
        await house.until(house.ready)

        assert await house.pids() == pids
        # Not for a moment was the replica withdrawn, nor a slot moved.
        assert first_word.replicas == before.replicas
        assert first_word.revision > before.revision


async def test_without_its_supervisor_it_ends_alone(house):
    async with house.controller() as process:
        await house.until(house.ready)
        (pid,) = (await house.pids()).values()

        process.heartbeat.close()

        assert await process.wait(timeout_s=5) == 0
        assert is_alive(pid)


async def test_told_to_end_it_ends_the_engine_too(house):
    async with house.controller() as process:
        await house.until(house.ready)
        (pid,) = (await house.pids()).values()

        process.signal(signal.SIGTERM)

        assert await process.wait(timeout_s=30) == 0
        assert not is_alive(pid)
        assert await house.pids() == {}


async def test_a_second_controller_waits_for_the_first(house):
    async with house.controller() as first:
        await house.until(house.ready)
        epoch = house.newest.epoch
        async with house.controller() as second:
            await asyncio.sleep(2)
            assert second.child.poll() is None
            assert house.newest.epoch == epoch

            first.signal(signal.SIGHUP)
            assert await first.wait(timeout_s=10) == 0

            await house.until(lambda: house.newest.epoch != epoch)


async def test_one_that_still_waits_ends_when_it_is_told_to(house):
    lock = LockFile(house.settings.home_path / "controller.lock")
    assert lock.try_acquire()
    async with house.controller() as process:
        await house.until(lambda: is_listening_to_signals(process.child.pid))

        process.signal(signal.SIGTERM)

        assert await process.wait(timeout_s=10) == 0
    lock.release()
    assert await house.pids() == {}


async def test_a_key_reaches_the_workers_and_leaves_them_within_a_second(house):
    async with house.controller():
        await house.until(house.ready)
        created = await house.ask("POST", "/admin/v1/keys", {"team": "default", "role": "developer"})
        await house.until(lambda: created["id"] in house.newest.keys, timeout_s=1)

        began = time.monotonic()
        await house.ask("DELETE", f"/admin/v1/keys/{created['id']}")
        await house.until(lambda: created["id"] not in house.newest.keys, timeout_s=1)

        assert time.monotonic() - began < 1


async def test_a_changed_spec_replaces_the_engine_without_a_gap(house, smollm2_gguf):
    async with house.controller():
        await house.until(house.ready)
        (old,) = house.ready()
        seen: list[int] = []

        spec = msgspec.to_builtins(spec_of(smollm2_gguf, slots=1))
        await house.ask("PUT", "/admin/v1/spec", spec)
        await house.until(lambda: seen.append(len(house.ready())) or old not in house.ready())

        (entry,) = house.newest.replicas["d"]
        assert entry.slots == (0,)
        assert min(seen) == 1
        deadline = time.monotonic() + 30
        while old in await house.pids():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)


async def test_what_the_journal_holds_comes_into_the_store(house):
    keys = FileKeys(house.settings.keys_path)
    writer = JournalWriter(
        house.settings.journal_path,
        writer="w0-test",
        segment_bytes=1 << 20,
        wrap=lambda key: keys.wrap(key, context=b"journal"),
    )
    writer.open()
    record = InferenceRecord(id="chatcmpl-1", time=time.time(), team="default", key_id="k", endpoint="e")
    writer.append(msgspec.msgpack.encode(JournalEntry(record)))

    try:
        async with house.controller():
            await house.until(house.ready)
            deadline = time.monotonic() + 10
            while not (found := (await house.ask("GET", "/admin/v1/records"))["items"]):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
    finally:
        writer.close()

    assert [item["id"] for item in found] == ["chatcmpl-1"]
