import asyncio

from pilothouse.kit.lockfile import LockFile


def test_one_holds_it_and_the_other_does_not(tmp_path):
    first, second = LockFile(tmp_path / "a.lock"), LockFile(tmp_path / "a.lock")

    assert first.try_acquire()
    assert not second.try_acquire()

    first.release()
    assert second.try_acquire()
    second.release()


async def test_waiting_ends_with_the_holder(tmp_path):
    first, second = LockFile(tmp_path / "a.lock"), LockFile(tmp_path / "a.lock")
    assert first.try_acquire()
    waiting = asyncio.ensure_future(second.acquire(timeout_s=5))
    await asyncio.sleep(0)

    first.release()

    assert await waiting
    second.release()


async def test_waiting_ends_with_its_time(tmp_path):
    first, second = LockFile(tmp_path / "a.lock"), LockFile(tmp_path / "a.lock")
    assert first.try_acquire()

    assert not await second.acquire(timeout_s=0.01)

    first.release()
