"""
Limits as people declare them and as the ledger counts them; periods of budgets.

A limit of 0 is none. Money is integer millionths of a dollar. Budgets count
calendar periods in UTC: a day, a week that begins on Monday, or a month.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

from msgspec import Struct
from msgspec.structs import replace

from pilothouse.domain.errors import InvalidRequest

Period = Literal["day", "week", "month"]
DAY_S = 86_400
MOST = 10**12
"""Of requests, of tokens, and of dollars in a budget: more was mistyped."""
_BUDGET = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,6}))?\s?usd/(day|week|month)", re.IGNORECASE)


class Limits(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one scope may use."""

    rpm: int = 0
    """Requests a minute: so many at once, and a sixtieth of it back each second."""
    tpm: int = 0
    """Tokens a minute, of prompts and answers together; counted as `rpm`."""
    parallel: int = 0
    """Requests at the same time."""
    budget_micro_usd: int = 0
    """Money in one period."""
    budget_period: Period = "month"

    def __bool__(self) -> bool:
        return bool(self.rpm or self.tpm or self.parallel or self.budget_micro_usd)


class LimitWords(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Limits as they are written in a spec, a request or a command."""

    rpm: int = 0
    """Requests a minute; 0 is no limit."""
    tpm: int = 0
    """Tokens a minute, of prompts and answers together; 0 is no limit."""
    parallel: int = 0
    """Requests at the same time; 0 is no limit."""
    budget: str = ""
    """Money in a period, such as `10usd/month`, `2.50usd/day` or `100usd/week`; empty is no limit."""


class LimitChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What becomes of some limits; what is absent stays as it is."""

    rpm: int | None = None
    tpm: int | None = None
    parallel: int | None = None
    budget: str | None = None

    def of(self, limits: Limits, *, param: str = "limits") -> Limits:
        """
        The limits after the change.

        Raises:
            InvalidRequest: See `limits_of`.
        """
        given = {name: getattr(self, name) for name in self.__struct_fields__}
        kept = {name: value for name, value in given.items() if value is not None}
        return limits_of(replace(words_of(limits), **kept), param=param)


def limits_of(words: LimitWords, *, param: str = "limits") -> Limits:
    """
    Raises:
        InvalidRequest: A negative or absurd number, or a budget that cannot be read.
    """
    for name in ("rpm", "tpm", "parallel"):
        value = getattr(words, name)
        if not 0 <= value <= MOST:
            raise InvalidRequest(
                f"{param}.{name}: {value} is not within 0..{MOST}; 0 is no limit", param=f"{param}.{name}"
            )
    micro_usd, period = parse_budget(words.budget, param=f"{param}.budget") if words.budget else (0, "month")
    return Limits(
        rpm=words.rpm,
        tpm=words.tpm,
        parallel=words.parallel,
        budget_micro_usd=micro_usd,
        budget_period=_period(period),
    )


class HasLimits(Protocol):
    """What holds the four among others."""

    @property
    def rpm(self) -> int: ...
    @property
    def tpm(self) -> int: ...
    @property
    def parallel(self) -> int: ...
    @property
    def budget(self) -> str: ...


def spec_words(found: HasLimits) -> LimitWords:
    return LimitWords(rpm=found.rpm, tpm=found.tpm, parallel=found.parallel, budget=found.budget)


def words_of(limits: Limits) -> LimitWords:
    """The words that `limits_of` reads as these limits."""
    budget = format_budget(limits.budget_micro_usd, limits.budget_period) if limits.budget_micro_usd else ""
    return LimitWords(rpm=limits.rpm, tpm=limits.tpm, parallel=limits.parallel, budget=budget)


def parse_budget(text: str, *, param: str) -> tuple[int, Period]:
    """
    Millionths of a dollar, and the period.

    Raises:
        InvalidRequest: Not like `10usd/month`, or nothing at all.
    """
    found = _BUDGET.fullmatch(text.strip())
    micro_usd = int(found[1]) * 10**6 + int((found[2] or "0").ljust(6, "0")) if found else 0
    if found is None or not micro_usd:
        shown = text if len(text) <= 32 else text[:32] + "..."
        raise InvalidRequest(
            f"{param}: {shown!r} is no budget; write dollars and a period, such as 10usd/month, 2.50usd/day "
            "or 100usd/week, or leave it out",
            param=param,
        )
    return micro_usd, _period(found[3].lower())


def format_budget(micro_usd: int, period: Period) -> str:
    return f"{format_usd(micro_usd)}usd/{period}"


def format_usd(micro_usd: int) -> str:
    """Dollars, exactly, with cents where there are any: `10`, `2.50`, `0.000012`."""
    whole, rest = divmod(micro_usd, 10**6)
    if not rest:
        return str(whole)
    digits = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{whole}.{digits}"


def period_bounds(now: float, period: Period) -> tuple[int, int]:
    """First second of the period that `now` is in, and of the next one, in UTC."""
    today = int(now // DAY_S) * DAY_S
    if period == "day":
        return today, today + DAY_S
    if period == "week":  # 1970-01-01 was a Thursday
        monday = today - (today // DAY_S + 3) % 7 * DAY_S
        return monday, monday + 7 * DAY_S
    first = datetime.fromtimestamp(today, UTC).replace(day=1)
    following = (first + timedelta(days=32)).replace(day=1)
    return int(first.timestamp()), int(following.timestamp())


def account_id(scope: str, kind: str) -> str:
    """Name of the account of a scope's rate or slots."""
    return f"{scope}|{kind}"


def budget_id(scope: str, period: Period, begins: int) -> str:
    """Name of the account of a scope's budget in one period."""
    return f"{scope}|budget|{period}|{begins}"


class BudgetScope(Struct, frozen=True, kw_only=True):
    """Whose money a budget's account counts, and since when (Unix seconds)."""

    key_id: str | None = None
    team: str | None = None
    endpoint: str | None = None
    subject_hash: str | None = None
    since: int = 0
    until: int = 0


def budget_scope(name: str) -> BudgetScope | None:
    """Read an account's name back; None when it is none of a budget."""
    scope, _, rest = name.partition("|budget|")
    period, _, begins = rest.partition("|")
    if not begins.isdigit():
        return None
    first, _, subject = scope.partition("/subject:")
    kind, _, value = first.partition(":")
    since = int(begins)
    return BudgetScope(
        key_id=value if kind == "key" else None,
        team=value if kind == "team" else None,
        endpoint=value if kind == "endpoint" else None,
        subject_hash=subject or None,
        since=since,
        until=period_bounds(since, _period(period))[1],
    )


def scopes_of(*, key_id: str, team: str, endpoint: str, subject_hash: str) -> list[str]:
    """All scopes that a request counts for."""
    scopes = [f"key:{key_id}", f"team:{team}", f"endpoint:{endpoint}"]
    if subject_hash:
        scopes += [f"team:{team}/subject:{subject_hash}", f"endpoint:{endpoint}/subject:{subject_hash}"]
    return scopes


def _period(text: str) -> Period:
    if text == "day":
        return "day"
    return "week" if text == "week" else "month"
