"""
Windows of the week in which other bounds hold: `replicas.schedule`.

Pure, and in UTC: whoever runs it anywhere reads the same plan from the same time.
"""

from collections.abc import Sequence

from pilothouse.domain.errors import InvalidRequest
from pilothouse.domain.spec import ScheduleWindow

DAY_S = 86_400
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FIRST_DAY = 3
"""1970-01-01 was a Thursday."""


def window_at(schedule: Sequence[ScheduleWindow], unix_s: float) -> ScheduleWindow | None:
    """The first window that holds at that moment; one past midnight belongs to the day it began on."""
    day, second = divmod(int(unix_s), DAY_S)
    today = (day + _FIRST_DAY) % 7
    for window in schedule:
        begins, ends = parse_hours(window.hours, param="hours")
        if ends > begins:
            holds = _DAYS[today] in window.days and begins <= second < ends
        else:
            holds = (_DAYS[today] in window.days and second >= begins) or (
                _DAYS[today - 1] in window.days and second < ends
            )
        if holds:
            return window
    return None


def parse_hours(text: str, *, param: str) -> tuple[int, int]:
    """
    Seconds of the day of a written span such as `08:00-18:30`; the end may be the next day's.

    Raises:
        InvalidRequest: It is no such span.
    """
    begins, dash, ends = text.partition("-")
    span = _second(begins), _second(ends)
    if not dash or None in span or span[0] == DAY_S or span[0] == span[1]:
        raise InvalidRequest(
            f"{param}: {text[:32]!r} is not a span of the day; write HH:MM-HH:MM, such as 08:00-18:00 "
            "(UTC), with 24:00 for the day's end",
            param=param,
        )
    return span[0] or 0, span[1] or 0


def _second(text: str) -> int | None:
    hour, colon, minute = text.partition(":")
    if not (colon and len(hour) == len(minute) == 2 and hour.isdecimal() and minute.isdecimal()):
        return None
    second = int(hour) * 3600 + int(minute) * 60
    return second if int(minute) < 60 and second <= DAY_S else None
