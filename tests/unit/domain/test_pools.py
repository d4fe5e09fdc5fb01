from pilothouse.domain.leasing import AccountState, Kind, LedgerAsk
from pilothouse.domain.pools import Pools

BUDGET = "key:k|budget|month|0"


def state(
    granted: int, need: int = 0, *, kind: Kind = "budget", spent: int = 0, returned: int = 0
) -> AccountState:
    name = BUDGET if kind == "budget" else f"key:k|{kind}"
    return AccountState(name, kind, 100, granted, spent, returned, need)


def settled(*, workers: int = 2, starts_full: bool = True) -> Pools:
    """Pools whose store is known, with a budget of which nothing is spent."""
    pools = Pools(workers=workers, starts_full=starts_full, now=0.0)
    pools.open_budget(BUDGET, 100, 0, 0.0)
    pools.passed((), is_whole=True)
    return pools


def granted(pools: Pools, worker: str, one: AccountState, now: float = 0.0) -> int:
    return pools.exchange(worker, [one], now)[0].granted


def claim(worker: str, life: int, *states: AccountState) -> LedgerAsk:
    return LedgerAsk(worker=worker, epoch="e", life=life, is_claim=True, states=states)


def test_what_one_worker_holds_another_does_not_get() -> None:
    pools = settled()

    assert granted(pools, "a", state(0, 70)) == 70
    assert granted(pools, "b", state(0, 40)) == 0
    assert granted(pools, "b", state(0, 30)) == 30


def test_an_ask_that_is_repeated_is_granted_once() -> None:
    pools = settled()

    assert granted(pools, "a", state(0, 30)) == granted(pools, "a", state(0, 30)) == 30


def test_a_worker_whose_connection_is_cut_keeps_its_lease_until_its_journal_is_gone() -> None:
    pools = settled()
    granted(pools, "a", state(0, 70))
    pools.leave("a")

    pools.passed(["a"], is_whole=True)
    assert granted(pools, "b", state(0, 40)) == 0
    pools.settle("a", 0, {BUDGET: 50})
    pools.passed([], is_whole=True)

    assert granted(pools, "b", state(0, 51)) == 0
    assert granted(pools, "b", state(0, 50)) == 50


def test_spending_in_the_store_takes_the_place_of_the_lease() -> None:
    pools = settled()
    pools.claim(claim("a", 1), 0.0)
    granted(pools, "a", state(0, 70))

    pools.settle("a", 1, {BUDGET: 60})

    pool = pools.pools[BUDGET]
    assert (pool.settled, pool.outstanding, pool.room()) == (60, 10, 30)


def test_records_from_before_a_claim_are_not_paid_by_the_lease_that_was_claimed() -> None:
    pools = settled()
    pools.claim(claim("a", 2, state(40)), 0.0)

    pools.settle("a", 1, {BUDGET: 30})

    assert pools.pools[BUDGET].room() == 100 - 30 - 40


def test_after_a_claim_budgets_wait_for_whole_passes_of_the_drain() -> None:
    pools = settled()
    pools.claim(claim("a", 2, state(40)), 0.0)

    pools.passed(["a"], is_whole=True)  # it may have begun before the claim
    assert granted(pools, "b", state(0, 10)) == 0
    pools.passed(["a"], is_whole=False)
    assert granted(pools, "b", state(0, 10)) == 0
    pools.passed(["a"], is_whole=True)

    assert granted(pools, "b", state(0, 10)) >= 10


def test_nothing_is_granted_while_somebody_writes_who_has_not_claimed() -> None:
    pools = Pools(workers=2, starts_full=False, now=0.0)
    pools.open_budget(BUDGET, 100, 0, 0.0)
    pools.passed(["a", "b"], is_whole=True)
    pools.claim(claim("b", 1), 0.0)

    assert granted(pools, "b", state(0, 10)) == 0
    assert granted(pools, "b", state(0, 1, kind="rpm"), now=60.0) == 0
    pools.claim(claim("a", 1), 0.0)

    assert granted(pools, "b", state(0, 10)) >= 10


def test_a_rate_refills_only_what_nobody_holds() -> None:
    pools = settled()
    held = granted(pools, "a", state(0, 40, kind="rpm"))

    pools.exchange("a", [state(held, kind="rpm")], 1000.0)
    pool = pools.pools["key:k|rpm"]
    assert pool.room() == 100 - held
    pools.exchange("a", [state(held, kind="rpm", spent=held)], 1000.0)
    pools.exchange("a", [state(held, kind="rpm", spent=held)], 1060.0)

    assert pool.room() == 100


def test_a_controller_that_is_not_the_first_begins_with_empty_rates() -> None:
    pools = settled(starts_full=False)

    assert granted(pools, "a", state(0, 1, kind="rpm"), now=0.5) == 0
    assert granted(pools, "a", state(0, 1, kind="rpm"), now=0.7) == 1
