from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.domain.usage import Sums, minute_of, roll_up, sums_of
from pilothouse.testing.examples import make_record

numbers = st.integers(0, 10**9)
records = st.builds(
    lambda n, time, team, code, tokens, cost: make_record(
        str(n), time=time, team=team, code=code, input_tokens=tokens, cost_micro_usd=cost
    ),
    numbers,
    st.floats(0, 4e9),
    st.sampled_from(["red", "blue"]),
    st.sampled_from(["ok", "internal"]),
    numbers,
    numbers,
)


@given(st.lists(records))
@settings(deadline=None)
def test_every_record_is_counted_once_whatever_the_grouping(rows):
    total = sum(roll_up(rows).values(), Sums())

    assert total.requests == len(rows)
    assert total.errors == sum(row.code != "ok" for row in rows)
    assert total.input_tokens == sum(row.input_tokens for row in rows)
    assert total.cost_micro_usd == sum(row.cost_micro_usd for row in rows)


@given(st.lists(records), st.integers(0, 20))
@settings(deadline=None)
def test_rolling_up_in_two_batches_gives_the_same_as_in_one(rows, at):
    first, second = roll_up(rows[:at]), roll_up(rows[at:])
    merged = {key: first.get(key, Sums()) + second.get(key, Sums()) for key in first | second}

    assert merged == roll_up(rows)


@given(st.lists(records, min_size=1))
@settings(deadline=None)
def test_a_rollup_holds_only_records_of_its_minute_team_and_code(rows):
    for key, sums in roll_up(rows).items():
        mine = [r for r in rows if (minute_of(r.time), r.team, r.code) == (key.minute, key.team, key.code)]
        assert sums == reduce(Sums.__add__, (sums_of(r) for r in mine))


@pytest.mark.parametrize(("time", "minute"), [(0, 0), (59.999, 0), (60, 60), (1e9, 999_999_960)])
def test_a_minute_is_named_by_its_first_second(time, minute):
    assert minute_of(time) == minute
