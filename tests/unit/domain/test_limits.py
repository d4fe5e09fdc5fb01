import calendar
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.errors import InvalidRequest
from pilothouse.domain.limits import (
    LimitChange,
    Limits,
    LimitWords,
    budget_id,
    budget_scope,
    format_usd,
    limits_of,
    parse_budget,
    period_bounds,
    words_of,
)
from pilothouse.domain.price import Price, PriceFile, PriceRow, TokenPrices


@pytest.mark.parametrize(
    ("text", "micro_usd", "period"),
    [
        ("10usd/month", 10_000_000, "month"),
        ("2.50USD/day", 2_500_000, "day"),
        ("0.000001 usd/week", 1, "week"),
    ],
)
def test_a_budget_is_dollars_and_a_period(text: str, micro_usd: int, period: str) -> None:
    assert parse_budget(text, param="budget") == (micro_usd, period)


@pytest.mark.parametrize(
    "text", ["10", "usd/month", "-1usd/day", "0usd/day", "1.0000001usd/day", "1eur/day", "1usd/year"]
)
def test_what_is_no_budget_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidRequest, match="10usd/month"):
        parse_budget(text, param="budget")


@given(
    st.builds(
        Limits,
        rpm=st.integers(0, 10**12),
        tpm=st.integers(0, 10**12),
        parallel=st.integers(0, 10**12),
        budget_micro_usd=st.integers(1, 10**17),
        budget_period=st.sampled_from(["day", "week", "month"]),
    )
)
def test_limits_are_read_back_from_their_words(limits: Limits) -> None:
    assert limits_of(words_of(limits)) == limits


def test_a_change_leaves_what_it_does_not_name() -> None:
    limits = limits_of(LimitWords(rpm=5, budget="1usd/day"))

    changed = LimitChange(rpm=0, tpm=7).of(limits)

    assert words_of(changed) == LimitWords(tpm=7, budget="1usd/day")


@given(st.integers(0, 4_000_000_000), st.sampled_from(["day", "week", "month"]))
def test_periods_follow_one_another_without_a_gap(now: int, period: str) -> None:
    begins, ends = period_bounds(now, period)

    assert begins <= now < ends
    assert period_bounds(ends, period)[0] == ends
    assert period_bounds(begins - 1, period)[1] == begins if begins else True


def test_a_week_begins_on_monday_and_a_month_on_its_first() -> None:
    thursday = calendar.timegm((2026, 12, 31, 12, 0, 0))

    assert period_bounds(thursday, "week")[0] == calendar.timegm((2026, 12, 28, 0, 0, 0))
    assert period_bounds(thursday, "month")[1] == calendar.timegm((2027, 1, 1, 0, 0, 0))


def test_a_budget_account_names_its_scope_and_its_period() -> None:
    begins = calendar.timegm((2026, 11, 1, 0, 0, 0))

    scope = budget_scope(budget_id("team:research/subject:ab12", "month", begins))

    assert scope is not None
    assert (scope.team, scope.subject_hash, scope.key_id, scope.endpoint) == ("research", "ab12", None, None)
    assert (scope.since, scope.until) == (begins, calendar.timegm((2026, 12, 1, 0, 0, 0)))
    assert budget_scope("team:research|rpm") is None


@pytest.mark.parametrize(("micro_usd", "text"), [(10_000_000, "10"), (2_500_000, "2.50"), (12, "0.000012")])
def test_money_is_written_exactly(micro_usd: int, text: str) -> None:
    assert format_usd(micro_usd) == text


def test_a_cost_is_rounded_up_once() -> None:
    price = Price(input=150_000, output=600_000, cached=75_000)

    assert price.cost_micro_usd(1000, 500, 400) == 420  # 600 * 0.15 + 400 * 0.075 + 500 * 0.6
    assert price.cost_micro_usd(1, 0) == 1


@given(
    st.builds(Price, *[st.integers(0, 10**9)] * 3),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
)
def test_no_request_costs_more_than_its_bound(
    price: Price, bound_in: int, bound_out: int, used_in: int, used_out: int, cached: int
) -> None:
    used_in, used_out = min(used_in, bound_in), min(used_out, bound_out)

    assert price.cost_micro_usd(used_in, used_out, cached) <= price.bound_micro_usd(bound_in, bound_out)


def test_a_deployments_own_price_goes_before_its_models() -> None:
    prices = TokenPrices(
        PriceFile(
            as_of="2026-01-01",
            models={"m": PriceRow(input_usd=Decimal("0.15"), output_usd=Decimal("0.6"))},
            deployments={"d": PriceRow(output_usd=Decimal(1))},
        )
    )

    assert prices.of("other", "m") == Price(150_000, 600_000, 150_000)
    assert prices.of("d", "m") == Price(0, 1_000_000, 0)
    assert prices.of("other", "unknown") is None
