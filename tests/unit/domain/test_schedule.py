import pytest

from pilothouse.domain.errors import InvalidRequest
from pilothouse.domain.schedule import DAY_S, parse_hours, window_at
from pilothouse.domain.spec import ScheduleWindow

MONDAY = 4 * DAY_S
"""1970-01-05, midnight."""
OFFICE = ScheduleWindow(days=("mon", "tue"), hours="08:00-18:00", min=2, max=4)
NIGHT = ScheduleWindow(days=("fri",), hours="22:00-06:00", min=1, max=1)


@pytest.mark.parametrize(
    ("moment", "holds"),
    [
        (MONDAY + 8 * 3600, True),
        (MONDAY + 18 * 3600 - 1, True),
        (MONDAY + 18 * 3600, False),
        (MONDAY + 8 * 3600 - 1, False),
        (MONDAY + DAY_S + 9 * 3600, True),
        (MONDAY + 2 * DAY_S + 9 * 3600, False),
        (MONDAY + 7 * DAY_S + 9 * 3600, True),
    ],
)
def test_a_window_holds_on_its_days_from_its_beginning_to_before_its_end(moment, holds):
    assert (window_at([OFFICE], moment) is OFFICE) == holds


@pytest.mark.parametrize(
    ("moment", "holds"),
    [
        (MONDAY + 4 * DAY_S + 23 * 3600, True),
        (MONDAY + 5 * DAY_S + 5 * 3600, True),
        (MONDAY + 5 * DAY_S + 23 * 3600, False),
        (MONDAY + 4 * DAY_S + 5 * 3600, False),
    ],
)
def test_a_window_past_midnight_belongs_to_the_day_it_began_on(moment, holds):
    assert (window_at([NIGHT], moment) is NIGHT) == holds


def test_the_first_window_that_holds_counts():
    always = ScheduleWindow(min=0, max=1)

    assert window_at([OFFICE, always], MONDAY + 9 * 3600) is OFFICE
    assert window_at([OFFICE, always], MONDAY) is always


@pytest.mark.parametrize("text", ["", "8:00-18:00", "08:00", "08:00-25:00", "08:60-09:00", "24:00-08:00"])
def test_what_is_no_span_is_refused_with_an_example(text):
    with pytest.raises(InvalidRequest, match="08:00-18:00"):
        parse_hours(text, param="hours")
