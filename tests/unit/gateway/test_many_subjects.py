"""A worker and its controller meet more people than they could remember."""

import math

import pytest

from pilothouse.domain.ledger import Account, Book, Plan, Reservation
from pilothouse.gateway.leases import Leases, Memory
from pilothouse.testing.memory_ledger import MemoryLedger

KINDS = (("rpm", 5), ("parallel", 2), ("budget", 1000))


class Time:
    at = 1000.0

    def monotonic(self) -> float:
        return self.at

    now = monotonic


@pytest.mark.parametrize("workers", [1, 2])
async def test_people_who_are_gone_are_forgotten_by_the_worker_and_by_the_pools(workers: int) -> None:
    time, book = Time(), Book()
    ledger = MemoryLedger(time, workers=workers)
    leases = Leases(
        ledger,
        book,
        worker="w",
        workers=workers,
        when_lost="closed",
        is_shared=False,
        memory=Memory(accounts=100),
        monotonic=time.monotonic,
    )
    most = 0
    for second in range(200):
        for one in range(20):
            scope = f"team:t/subject:{second}-{one}"
            accounts = [leases.account(_name(scope, k), _maker(scope, k, n), n) for k, n in KINDS]
            for account in accounts:
                account.need = 10 if account.kind == "budget" else 1
                book.dry.add(account)
            await leases.exchange()
            made = book.reserve(Plan(accounts), 1, 10, now=time.at, expires=math.inf)
            assert isinstance(made, Reservation)
            assert book.settle(made, 1, 10)
            ledger.pools.settle("w", leases.life, {_name(scope, "budget"): 10})
        time.at += 1.0
        await leases.exchange()
        ledger.pools.forget_untouched(time.at)
        most = max(most, len(leases.accounts))
    for _ in range(200):
        time.at += 1.0
        await leases.exchange()
    ledger.pools.forget_untouched(time.at)

    assert most < 20 * len(KINDS) * 150  # of 200 seconds' people: those of the last two minutes
    assert len(leases.accounts) <= 100
    assert len(ledger.pools.pools) <= 100


def _name(scope: str, kind: str) -> str:
    return f"{scope}|budget|month|0" if kind == "budget" else f"{scope}|{kind}"


def _maker(scope, kind, limit):
    return lambda: Account(_name(scope, kind), kind, limit, scope)
