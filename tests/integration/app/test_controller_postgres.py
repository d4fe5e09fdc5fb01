"""The controller with its store in PostgreSQL: crashes of either, a second controller, and the password."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from controller_rig import House, spec_of
from fixtures_postgres import PASSWORD, PostgresServer
from pilothouse.adapters.keys.file import FileKeys
from pilothouse.app.control_parts import STORE_LOST
from pilothouse.domain.record import Content, InferenceRecord, JournalEntry
from pilothouse.kit.journal.writer import JournalWriter

pytestmark = pytest.mark.engine


def house_in(folder: Path, gguf: Path, server: PostgresServer, database: str = "postgres") -> House:
    folder.mkdir(exist_ok=True)
    return House(
        folder,
        spec_of(gguf),
        store=server.url(database),
        store_password=f"file:{server.password_file}",
    )


@pytest.fixture
async def house(tmp_path: Path, smollm2_gguf: Path, own_postgres: PostgresServer) -> AsyncIterator[House]:
    house = house_in(tmp_path, smollm2_gguf, own_postgres)
    house.connect()
    yield house
    await house.close()


class Journal:
    """A worker's journal; `keep` is what an answered request leaves behind."""

    def __init__(self, house: House) -> None:
        keys = FileKeys(house.settings.keys_path)
        self._writer = JournalWriter(
            house.settings.journal_path,
            writer="w0-test",
            segment_bytes=1 << 20,
            wrap=lambda key: keys.wrap(key, context=b"journal"),
        )
        self._writer.open()
        self.kept: list[str] = []

    def keep(self, count: int) -> None:
        for _ in range(count):
            name = f"r{len(self.kept)}"
            record = InferenceRecord(id=name, time=time.time(), team="default", key_id="k", endpoint="e")
            entry = JournalEntry(record, Content(b"question", ["answer"]))
            self._writer.append(msgspec.msgpack.encode(entry))
            self.kept.append(name)

    def close(self) -> None:
        self._writer.close()


async def until_stored(server: PostgresServer, wanted: list[str]) -> None:
    """Wait until the table of records holds exactly these."""
    ends = time.monotonic() + 45
    while True:
        found = sorted(str(row[0]) for row in server.execute("SELECT id FROM records"))
        if found == sorted(wanted):
            return
        assert time.monotonic() < ends, f"{len(found)} of {len(wanted)} are there"
        await asyncio.sleep(0.1)


async def test_without_its_database_it_serves_on_and_then_catches_up(house, own_postgres):
    async with house.controller() as process:
        await house.until(house.ready)
        journal = Journal(house)
        journal.keep(10)
        await until_stored(own_postgres, journal.kept)
        assert house.newest.warnings == ()
        (name,) = house.ready()

        own_postgres.kill()
        await house.until(lambda: house.newest.warnings, timeout_s=10)
        journal.keep(10)
        status = await house.ask("GET", "/admin/v1/status")

        assert house.newest.warnings == (STORE_LOST,)
        assert house.ready() == [name], "the replica is served from all the same"
        assert status["phase"] == "degraded"
        assert status["store"]["kind"] == "postgresql"
        assert "cannot be used now" in status["store"]["problem"]
        os.kill((await house.pids())[name], signal.SIGKILL)
        await house.until(lambda: not house.ready(), timeout_s=5)
        await house.until(house.ready)  # an engine that dies meanwhile is started again

        own_postgres.start()
        await house.until(lambda: not house.newest.warnings, timeout_s=15)
        await until_stored(own_postgres, journal.kept)
        journal.close()
        assert process.child.poll() is None
        status = await house.ask("GET", "/admin/v1/status")
        assert status["phase"] == "ready"
        assert status["store"]["problem"] == ""


async def test_a_controller_killed_while_it_drains_loses_and_doubles_nothing(house, own_postgres):
    async with house.controller():
        await house.until(house.ready)
    journal = Journal(house)
    for _ in range(3):
        journal.keep(1500)
        async with house.controller() as process:
            await house.until(lambda: own_postgres.execute("SELECT 1 FROM records LIMIT 1"))
            await asyncio.sleep(0.1)
            process.signal(signal.SIGKILL)
            await process.wait(timeout_s=10)

    async with house.controller():
        await until_stored(own_postgres, journal.kept)
    journal.close()
    counted = own_postgres.execute("SELECT sum(requests)::bigint FROM usage_minutes")
    assert counted == [(len(journal.kept),)]


async def test_a_store_that_worked_before_is_waited_for(house, own_postgres):
    async with house.controller() as first:
        await house.until(house.ready)
        first.signal(signal.SIGHUP)
        await first.wait(timeout_s=10)
    own_postgres.stop()

    async with house.controller() as process:
        await house.until(lambda: "store_lost" in house.log.read_text())
        epoch = house.newest.epoch
        own_postgres.start()

        await house.until(lambda: house.newest.epoch != epoch)
        assert house.ready(), "its engine was adopted"
        own_postgres.stop()
        process.signal(signal.SIGTERM)
        assert await process.wait(timeout_s=30) == 0


async def test_of_two_homes_on_one_database_one_is_active(house, own_postgres, tmp_path, smollm2_gguf):
    other = house_in(tmp_path / "other", smollm2_gguf, own_postgres)
    async with house.controller() as first:
        await house.until(house.ready)

        async with other.controller() as second:
            assert await second.wait(timeout_s=30) == 1

        assert "another controller uses this store and is alive" in other.log.read_text()
        first.signal(signal.SIGTERM)
        await first.wait(timeout_s=30)

    async with other.controller():  # given back, so there is nothing to wait for
        await other.until(lambda: "controller_started" in other.log.read_text())
    await other.close()


async def test_the_password_is_nowhere(house, own_postgres):
    async with house.controller() as process:
        await house.until(house.ready)
        told: list[Any] = [await house.ask("GET", path) for path in ("/admin/v1/status", "/admin/v1/spec")]
        family = [psutil.Process(process.child.pid), psutil.Process((await house.pids()).popitem()[1])]
        told += [member.cmdline() for member in family] + [member.environ() for member in family]
        own_postgres.stop()
        await house.until(lambda: house.newest.warnings, timeout_s=10)
        told.append(await house.ask("GET", "/admin/v1/status"))

    folders = (house.settings.home_path, house.settings.keys_path, house.settings.run_path)
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert house.settings.store_file in files
    assert [str(path) for path in (*files, house.log) if PASSWORD.encode() in path.read_bytes()] == []
    assert PASSWORD not in json.dumps(told)
