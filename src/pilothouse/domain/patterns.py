"""
How long a regular expression may take, before it is tried.

Python's `re` tries every way in which a pattern can lie on a text, and cannot be
stopped; somebody else's pattern could hold a process for years. So the ways are
counted from above: each repeat and each choice multiplies them.
"""

import re
from functools import lru_cache
from math import inf

MOST_CHARS = 1000
_SIGN = re.compile(r"\\[\s\S]|\[\^?\]?(?:\\[\s\S]|[^\]\\])*\]|\{\d*,?\d*\}|\(\?|[\s\S]")
"""An escape, a class, a count, the beginning of a group, or one character."""
_LARGE = 10**9
"""More of a count makes no difference."""


def ways(pattern: str, length: int) -> float:
    """
    At most so many ways to lie on a text of `length` characters.

    Infinite for a pattern of over `MOST_CHARS`, and where a repeated group repeats or chooses inside.
    """
    factor, degree = _shape(pattern)
    try:
        return factor * float(length + 1) ** degree
    except OverflowError:
        return inf


def may_take_forever(pattern: str) -> bool:
    """Whatever the text."""
    return ways(pattern, 0) == inf


class _Group:
    """What was read of a group: `factor` x (characters + 1) ^ `degree` ways, of the alternative under way."""

    def __init__(self) -> None:
        self.factor, self.degree = 1.0, 0
        self._others, self._most = 0.0, 0
        self.repeats = False

    @property
    def is_rich(self) -> bool:
        return self.repeats or self.factor > 1 or self.degree > 0

    @property
    def chooses(self) -> bool:
        return self._others > 0

    def begin_other(self) -> None:
        self._others += self.factor
        self._most = max(self._most, self.degree)
        self.factor, self.degree = 1.0, 0

    def close(self) -> None:
        self.factor += self._others
        self.degree = max(self._most, self.degree)

    def follow(self, inner: "_Group") -> None:
        self.factor *= inner.factor
        self.degree += inner.degree
        self.repeats = self.repeats or inner.repeats

    def repeat(self, sign: str) -> None:
        self.repeats = True
        least, comma, most = sign.strip("{}").partition(",")
        if comma and most:
            self.factor *= min(max(1, int(most) - int(least or 0) + 1), _LARGE)
        elif comma or sign in "*+":
            self.degree += 1


@lru_cache(maxsize=1024)
def _shape(pattern: str) -> tuple[float, int]:
    """Factor and degree, over all places where it may begin."""
    if len(pattern) > MOST_CHARS:
        return inf, 0
    groups = [_Group()]
    last: _Group | None = None
    """The group that ended right before."""
    for sign in _SIGN.findall(pattern):
        before, last = last, None
        if sign[0] == "(":
            groups.append(_Group())
        elif sign == ")" and len(groups) > 1:
            last = groups.pop()
            last.close()
            groups[-1].follow(last)
        elif sign == "|":
            groups[-1].begin_other()
        elif sign in "*+" or (sign[0] == "{" and len(sign) > 1):
            if before is not None and before.is_rich:
                return inf, 0
            groups[-1].repeat(sign)
        elif sign == "?":
            groups[-1].factor *= 2
    whole = groups[0]
    is_anchored = pattern.startswith(("^", r"\A")) and not whole.chooses
    whole.close()
    return whole.factor, whole.degree + (not is_anchored)
