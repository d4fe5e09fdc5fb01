import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pilothouse.adapters.feeds.unix import UnixFeed
from pilothouse.adapters.feeds.unix_publisher import UnixPublisher
from pilothouse.domain.errors import Conflict
from pilothouse.domain.snapshot import KeyEntry, Snapshot
from pilothouse.testing.conformance_feed import Controller, hello, newest, report, until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "feed.sock"


@pytest.fixture
async def controller(path: Path) -> AsyncIterator[Controller]:
    controller = Controller(UnixPublisher(path))
    await until(path.exists)
    yield controller
    await controller.stop()


async def test_socket_and_folder_are_closed_to_others(path, controller):
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_the_socket_file_is_gone_after_a_clean_end(path, controller):
    await controller.stop()

    assert not path.exists()


async def test_the_end_of_the_server_is_no_error_of_its_connections(path, controller):
    feed = UnixFeed(path, hello())
    await newest(feed.snapshots())
    _, stranger = await asyncio.open_unix_connection(str(path))
    await asyncio.sleep(0)
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))

    await controller.stop()
    await until(lambda: feed.disconnected_since is not None)
    await asyncio.sleep(0)

    assert errors == []

    stranger.close()
    await feed.aclose()


async def test_a_socket_file_that_a_dead_controller_left_is_replaced(path):
    path.parent.mkdir()
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()

    controller = Controller(UnixPublisher(path))
    feed = UnixFeed(path, hello())

    assert (await newest(feed.snapshots())).revision == 1

    await feed.aclose()
    await controller.stop()


async def test_a_socket_that_answers_is_left_alone(path, controller):
    with pytest.raises(Conflict, match="another controller answers"):
        await UnixPublisher(path).serve(
            view=lambda _: Snapshot(), on_report=lambda _: None, on_leave=lambda _: None
        )


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x00\x03abc", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00"]
)
async def test_a_stranger_is_cut_off_and_harms_nobody(path, controller, garbage):
    feed = UnixFeed(path, hello())
    snapshots = feed.snapshots()
    await newest(snapshots)

    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(garbage)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    controller.publish(2)

    assert (await newest(snapshots)).revision == 2

    await feed.aclose()


async def test_a_worker_that_reads_nothing_costs_one_snapshot_and_gets_the_newest(path, controller):
    """A stopped process: its socket fills, publishing goes on, and nothing piles up."""
    keys = {f"k{i}": KeyEntry(id=f"k{i}", team="t", role="r", mac=bytes(32)) for i in range(3000)}
    encoded: list[int] = []

    def view(_: object) -> Snapshot:
        encoded.append(controller.snapshot.revision)
        return Snapshot(revision=controller.snapshot.revision, keys=keys)

    controller._view = view
    await controller.stop()
    publisher = UnixPublisher(path)
    serving = asyncio.ensure_future(
        publisher.serve(view=view, on_report=lambda _: None, on_leave=lambda _: None)
    )
    await until(path.exists)
    feed = UnixFeed(path, hello())
    real_listen, gate = feed._listen, asyncio.Event()

    async def listen(reader: asyncio.StreamReader) -> None:
        await gate.wait()
        await real_listen(reader)

    feed._listen = listen
    snapshots = feed.snapshots()
    for revision in range(2, 200):
        controller.snapshot = Snapshot(revision=revision)
        publisher.publish()
        await asyncio.sleep(0)
    await until(lambda: bool(encoded))

    gate.set()

    assert (await newest(snapshots, revision=199)).revision == 199
    assert len(encoded) < 20

    await feed.aclose()
    serving.cancel()
    await asyncio.wait([serving])


async def test_a_worker_that_comes_again_replaces_its_dead_connection(path, controller):
    first, second = UnixFeed(path, hello("w")), UnixFeed(path, hello("w"))
    await newest(first.snapshots())

    await newest(second.snapshots())
    await until(lambda: controller.left == ["w"])
    await first.aclose()
    second.report(report("w", inflight=7))
    await until(lambda: bool(controller.reports))

    assert controller.left == ["w"]
    assert controller.reports[-1].inflight == 7

    await second.aclose()


def test_the_workers_end_imports_nothing_heavy():
    code = (
        "import sys, pilothouse.adapters.feeds.unix;"
        "heavy = {'sqlalchemy', 'litestar', 'uvicorn', 'numpy', 'psutil', 'cryptography'};"
        "print(heavy & sys.modules.keys())"
    )

    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "set()\n"
    )
