"""Durations as people write them: `30d`, `12h`, `90s`, `never`."""

import re

from pilothouse.domain.errors import InvalidRequest

_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_SHAPE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h|d|w)")
LONGEST_S = 100 * 365 * 86400.0
"""A hundred years: beyond it somebody meant `never`, or mistyped."""


def parse_duration_s(text: str, *, param: str) -> float | None:
    """
    Seconds of a written duration; None for `never`.

    Args:
        param: Name of the field it stands in, for the message.

    Raises:
        InvalidRequest: Not a number with a unit, zero, or over a hundred years.
    """
    if text == "never":
        return None
    found = _SHAPE.fullmatch(text)
    value = float(found[1]) * _UNIT_S[found[2]] if found else 0.0
    if not 0 < value <= LONGEST_S:
        shown = text if len(text) <= 32 else text[:32] + "..."
        raise InvalidRequest(
            f"{param}: {shown!r} is not a duration; write a number with ms, s, m, h, d or w, "
            "such as 30d or 12h, or never",
            param=param,
        )
    return value
