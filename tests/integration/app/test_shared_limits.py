"""Two servers, each with two workers and a store of its own, that share a budget through Redis."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from app_limits_rig import COST, SPEC, call, chats, mock_port, new_key, spent
from pilothouse.domain.allotment import BUDGET_SHARE
from program_rig import Program, program
from redis_server import BINARY, MISSING, redis_server

__all__ = ["mock_port"]
pytestmark = pytest.mark.skipif(BINARY is None, reason=MISSING)
BUDGET = 10_000
MOST_OF_ONE = 400
"""What a request may cost at the most: its prompt's bytes, 64 tokens for the template and 40 of an answer."""


def two_servers(stack: ExitStack, folder: Path, port: int, url: str, *more: str) -> list[Program]:
    prices = folder / "prices.yaml"
    prices.write_text('as_of: "2026-01-01"\nmodels: {m: {input_usd: 1, output_usd: 1}}\n')
    spec = SPEC.format(port=port).replace("max_tokens: 50", "max_tokens: 50, budget: 0.01usd/day")
    options = ("--workers", "2", "--prices", str(prices), "--set", f"ledger_url={url}", *more)
    return [stack.enter_context(program(folder / name, spec, *options)) for name in ("one", "two")]


def until(holds: Callable[[], bool], *, within_s: float = 30.0) -> None:
    ends = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.3)


def test_two_servers_share_a_budget_and_a_lost_redis_overspends_nothing(
    tmp_path: Path, mock_port: int
) -> None:
    with ExitStack() as stack:
        running = stack.enter_context(redis_server(tmp_path))
        servers = two_servers(stack, tmp_path, mock_port, running.url)
        keys = [new_key(server) for server in servers]
        for server, key in zip(servers, keys, strict=True):
            until(lambda s=server, k=key: chats(s, k, 1) == ["ok"])

        first = [chats(server, key, 10) for server, key in zip(servers, keys, strict=True)]
        running.process.kill()
        running.process.wait(10)
        lost = [code for s, k in zip(servers, keys, strict=True) for code in chats(s, k, 60)]
        warned = [call(server, "GET", "/readyz")[1] for server in servers]

        stack.enter_context(redis_server(tmp_path))  # it has forgotten everything
        for server, key in zip(servers, keys, strict=True):
            until(lambda s=server, k=key: chats(s, k, 1)[0] in ("ok", "budget_exceeded"))
        for _ in range(6):
            rest = [chats(server, key, 30) for server, key in zip(servers, keys, strict=True)]
            time.sleep(1.5)
        costs = [spent(server, key) for server, key in zip(servers, keys, strict=True)]

    assert set(first[0]) | set(first[1]) == {"ok"}
    assert set(lost) <= {"ok", "overloaded"}
    assert "overloaded" in lost
    assert all("out of reach" in str(said) for said in warned)
    assert set(rest[0]) | set(rest[1]) == {"budget_exceeded"}
    assert sum(costs) % COST == 0
    assert BUDGET - 3 * MOST_OF_ONE <= sum(costs) <= BUDGET


def test_by_setting_each_server_goes_on_with_its_part_while_redis_is_lost(
    tmp_path: Path, mock_port: int
) -> None:
    with ExitStack() as stack:
        running = stack.enter_context(redis_server(tmp_path))
        servers = two_servers(stack, tmp_path, mock_port, running.url, "--set", "ledger_lost=share")
        keys = [new_key(server) for server in servers]
        for server, key in zip(servers, keys, strict=True):
            until(lambda s=server, k=key: chats(s, k, 1) == ["ok"])

        running.process.kill()
        running.process.wait(10)
        for server in servers:
            until(lambda s=server: "out of reach" in str(call(s, "GET", "/readyz")[1]))
        before = [spent(server, key) for server, key in zip(servers, keys, strict=True)]
        lost = [code for s, k in zip(servers, keys, strict=True) for code in chats(s, k, 150)]
        costs = [spent(server, key) for server, key in zip(servers, keys, strict=True)]

    assert "overloaded" not in lost
    assert set(lost) == {"ok", "budget_exceeded"}
    assert all(now > then for now, then in zip(costs, before, strict=True))
    assert sum(costs) <= BUDGET + 2 * (BUDGET // 2 // BUDGET_SHARE)
