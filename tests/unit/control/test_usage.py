import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.control.usage import month_bounds, month_of
from pilothouse.domain.errors import InvalidRequest


@pytest.mark.parametrize(
    ("month", "days"), [("2026-11", 30), ("2026-12", 31), ("2024-02", 29), ("2026-02", 28), ("2099-12", 31)]
)
def test_a_month_has_its_days(month: str, days: int):
    since, until = month_bounds(month)

    assert until - since == days * 86400
    assert time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(since)) == f"{month}-01 00:00:00"


@given(st.floats(min_value=946_684_800, max_value=4_102_444_799))
def test_every_moment_is_in_exactly_its_own_month(moment: float):
    since, until = month_bounds(month_of(moment))

    assert since <= moment < until


@pytest.mark.parametrize(
    "text", ["", "2026", "2026-00", "2026-13", "26-11", "2026-11\n", "٢٠٢٦-١١", "1999-12"]
)
def test_what_is_no_month_is_refused_with_an_example(text: str):
    with pytest.raises(InvalidRequest, match="such as 2026-11"):
        month_bounds(text)
