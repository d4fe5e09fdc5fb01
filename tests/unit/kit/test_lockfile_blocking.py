"""One holder at a time."""

from pathlib import Path

import pytest

from pilothouse.kit.lockfile import POLL_S, LockTimeout, file_lock


def test_the_second_waits_until_the_first_lets_go(tmp_path: Path) -> None:
    first = file_lock(tmp_path / "lock", timeout_s=0)
    assert first.__enter__() is False
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            first.__exit__(None, None, None)

    with file_lock(tmp_path / "lock", timeout_s=60, sleep=sleep) as waited:
        assert waited
    assert waits == [POLL_S] * 3


def test_waiting_ends(tmp_path: Path) -> None:
    with (
        file_lock(tmp_path / "lock", timeout_s=0),
        pytest.raises(LockTimeout),
        file_lock(tmp_path / "lock", timeout_s=1, sleep=lambda _s: None),
    ):
        pass


def test_who_waits_may_change_their_mind(tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with (
        file_lock(tmp_path / "lock", timeout_s=0),
        pytest.raises(KeyboardInterrupt),
        file_lock(tmp_path / "lock", timeout_s=1, on_wait=stop),
    ):
        pass
