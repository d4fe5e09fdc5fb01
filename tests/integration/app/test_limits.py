"""Limits and budgets in the whole program: two workers, one controller, an upstream by script."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app_limits_rig import COST, chats, mock_port, new_key, spent, two_workers, worker_pids

__all__ = ["mock_port"]


def test_two_workers_share_limits_and_a_budget_survives_a_killed_worker(
    tmp_path: Path, mock_port: int
) -> None:
    with two_workers(tmp_path, mock_port) as running:
        small = new_key(running, rpm=4)
        codes = chats(running, small, 12)
        assert codes.count("ok") == 4
        assert set(codes) == {"ok", "rate_limit_exceeded"}

        rich = new_key(running, budget="0.01usd/day")
        first = chats(running, rich, 40)
        killed = worker_pids(running)[0]
        os.kill(killed, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while len(worker_pids(running)) < 2 or killed in worker_pids(running):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        time.sleep(2.5)  # its journal is drained, and its lease with it
        rest = [code for _ in range(6) for code in (chats(running, rich, 20), time.sleep(1.2))[0]]

        assert first.count("ok") == 40
        assert set(rest) == {"ok", "budget_exceeded"}
        cost = spent(running, rich)
        assert cost == COST * (40 + rest.count("ok"))
        # One request may cost up to what 64 + the prompt's bytes + 40 tokens cost: less is left than that.
        assert 10_000 - 400 <= cost <= 10_000


def test_a_worker_that_is_killed_under_load_overspends_nothing_and_leaks_nothing(
    tmp_path: Path, mock_port: int
) -> None:
    with two_workers(tmp_path, mock_port) as running, ThreadPoolExecutor(1) as beside:
        rich = new_key(running, budget="0.05usd/day", parallel=6)
        load = beside.submit(chats, running, rich, 420)
        for _ in range(2):
            time.sleep(0.5)
            os.kill(worker_pids(running)[0], signal.SIGKILL)
        codes = load.result(60)
        time.sleep(3.0)  # the journals of the dead are drained, and their leases with them
        for _ in range(8):
            codes += chats(running, rich, 60, at_once=4)
            time.sleep(1.2)
        last = chats(running, rich, 8, at_once=4)
        cost = spent(running, rich)

    assert set(last) == {"budget_exceeded"}  # its slots came back too, or it would say so
    assert COST * codes.count("ok") <= cost <= COST * (codes.count("ok") + codes.count("cut"))
    assert 50_000 - 400 <= cost <= 50_000
