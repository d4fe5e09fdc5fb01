"""Common moments of what is done at intervals."""

import asyncio
import time

import pytest

from pilothouse.kit import beat


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch):
    """Sets what time it is."""
    return lambda now: monkeypatch.setattr(beat.time, "monotonic", lambda: now)


@pytest.mark.parametrize("now", [100.0, 100.1, 100.24, 100.3, 100.499, 100.7])
def test_intervals_end_together(at, now):
    at(now)
    ends = {period: now + beat.until_beat(period) for period in (0.25, 0.5, 1.0)}
    for period, end in ends.items():
        assert end % period == pytest.approx(0, abs=1e-6) or end % period == pytest.approx(period, abs=1e-6)
        assert now < end <= now + period + 0.005 + 1e-9


def test_a_timer_that_ends_early_does_not_begin_a_second_one_for_its_moment(at):
    at(99.9985)
    assert beat.until_beat(0.25) == pytest.approx(0.2515)


async def test_an_event_ends_the_wait_and_is_cleared():
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, event.set)

    began = time.monotonic()
    await beat.beat_or(event, 60.0, least_s=0.0)

    assert time.monotonic() - began < 5
    assert not event.is_set()


async def test_an_event_that_is_set_again_and_again_is_followed_no_faster_than_said():
    event = asyncio.Event()
    began = time.monotonic()
    for _ in range(5):
        event.set()
        await beat.beat_or(event, 60.0, least_s=0.02)

    assert time.monotonic() - began >= 0.095


async def test_without_an_event_the_wait_ends_at_the_next_moment():
    began = time.monotonic()
    await beat.beat_or(asyncio.Event(), 0.05, least_s=0.0)

    assert time.monotonic() - began < 5
