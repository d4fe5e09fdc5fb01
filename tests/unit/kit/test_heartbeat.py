import asyncio
import os
from collections.abc import Iterator

import pytest

from pilothouse.kit.heartbeat import Heartbeat, wait_for_loss


@pytest.fixture
def heartbeat() -> Iterator[Heartbeat]:
    heart = Heartbeat()
    yield heart
    heart.close()


async def test_a_closed_pipe_is_a_loss_at_once(heartbeat):
    fd = os.dup(heartbeat.child_fd)
    heartbeat.close()

    try:
        assert await asyncio.wait_for(wait_for_loss(fd, silence_s=30), 1) == "closed"
    finally:
        os.close(fd)


async def test_silence_is_a_loss(heartbeat):
    assert await wait_for_loss(heartbeat.child_fd, silence_s=0.01) == "silent"


async def test_beats_put_the_loss_off(heartbeat):
    waiting = asyncio.ensure_future(wait_for_loss(heartbeat.child_fd, silence_s=0.2))
    for _ in range(10):
        assert heartbeat.beat()
        await asyncio.sleep(0.03)

    assert not waiting.done()

    assert await asyncio.wait_for(waiting, 2) == "silent"


async def test_a_full_pipe_never_blocks_the_parent(heartbeat):
    for _ in range(70_000):
        assert heartbeat.beat()


async def test_the_parent_learns_that_the_child_is_gone(heartbeat):
    heartbeat.close_child_end()

    assert not heartbeat.beat()
