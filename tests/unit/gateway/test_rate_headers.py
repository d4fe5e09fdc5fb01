"""Each answer tells the rates of the tightest scope as they are then, whatever was told before."""

from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.ledger import Account, Plan
from pilothouse.gateway.rate_headers import RateHeaders, duration

LEFT = st.lists(st.integers(0, 100), min_size=4, max_size=4)


def rate(kind: str, limit: int, scope: str) -> Account:
    account = Account(f"{scope}/{kind}", kind, limit, scope)
    account.left = 0
    return account


def lines(name: str, accounts: list[Account]) -> str:
    tightest = min(accounts, key=lambda account: account.remaining(0.0))
    left, limit = tightest.remaining(0.0), tightest.limit
    reset = duration(ceil((limit - left) * 60_000 / limit))
    return (
        f"x-ratelimit-limit-{name}: {limit}\r\nx-ratelimit-remaining-{name}: {left}\r\n"
        f"x-ratelimit-reset-{name}: {reset}\r\n"
    )


@given(st.lists(LEFT, min_size=1, max_size=6))
def test_what_is_told_is_what_the_tightest_scope_has_now(seen: list[list[int]]):
    requests = [rate("rpm", 60, "key:a"), rate("rpm", 100, "endpoint:b")]
    tokens = [rate("tpm", 100, "key:a"), rate("tpm", 100, "endpoint:b")]
    told = RateHeaders(Plan([*requests, *tokens]))

    for left in seen:
        for account, available in zip([*requests, *tokens], left, strict=True):
            account.available = float(available)
        assert told.lines(0.0) == lines("requests", requests) + lines("tokens", tokens)


def test_who_has_no_rate_is_told_of_none():
    budget = Account("key:a/budget", "budget", 100, "key:a")

    assert RateHeaders(Plan([budget])).lines(0.0) == ""


def test_what_is_gone_of_a_large_rate_comes_back_in_time_for_who_waits():
    account = rate("tpm", 7, "key:a")
    account.available = 4.0

    assert "x-ratelimit-reset-tokens: 26s\r\n" in RateHeaders(Plan([account])).lines(0.0)
