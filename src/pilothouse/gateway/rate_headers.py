"""
The `x-ratelimit-*` lines of an answer: what the caller has left of his rates.

Of several scopes the tightest speaks. Lines are written anew where a number changed.
"""

from pilothouse.domain.ledger import Account, Plan


class _Rate:
    """One rate, and the lines that tell of it."""

    __slots__ = ("account", "begins", "limit", "middle")

    def __init__(self, account: Account, name: str) -> None:
        self.account = account
        self.limit = account.limit
        self.begins = f"x-ratelimit-limit-{name}: {account.limit}\r\nx-ratelimit-remaining-{name}: "
        self.middle = f"\r\nx-ratelimit-reset-{name}: "

    def lines(self, remaining: int) -> str:
        # A rate refills in a minute, so what is gone takes its part of one to come back.
        reset = duration(-(-60_000 * (self.limit - remaining) // self.limit))
        return f"{self.begins}{remaining}{self.middle}{reset}\r\n"


class _Rates:
    """The rates of one kind at all scopes."""

    __slots__ = ("_rates", "_remaining", "_tightest", "lines")

    def __init__(self, accounts: tuple[Account, ...], name: str) -> None:
        self._rates = tuple([_Rate(account, name) for account in accounts])
        self._tightest: _Rate | None = None
        self._remaining = 0
        self.lines = ""
        """Nothing where no rate is limited."""

    def look(self, now: float) -> bool:
        """Whether `lines` are others than before."""
        tightest: _Rate | None = None
        remaining = 0
        for rate in self._rates:
            there = rate.account.remaining(now)
            if tightest is None or there < remaining:
                tightest, remaining = rate, there
        if tightest is None or (tightest is self._tightest and remaining == self._remaining):
            return False
        self._tightest, self._remaining = tightest, remaining
        self.lines = tightest.lines(remaining)
        return True


class RateHeaders:
    """What is told of the accounts of one plan."""

    __slots__ = ("_lines", "_requests", "_tokens")

    def __init__(self, plan: Plan) -> None:
        self._requests = _Rates(plan.requests, "requests")
        self._tokens = _Rates(plan.tokens, "tokens")
        self._lines = ""

    def lines(self, now: float) -> str:
        """Complete ones, each with its CRLF. `now` as the accounts' times."""
        is_new = self._requests.look(now)
        if self._tokens.look(now) or is_new:
            self._lines = self._requests.lines + self._tokens.lines
        return self._lines


def duration(milliseconds: int) -> str:
    """As OpenAI writes it: `20ms`, `1s`, `6m0s`, `1h0m0s`; rounded up, so that waiting for it is enough."""
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds > 0 else "0s"
    seconds = -(-milliseconds // 1000)
    if seconds < 60:
        return f"{seconds}s"
    minutes, seconds = seconds // 60, seconds % 60
    hours, minutes = minutes // 60, minutes % 60
    return f"{hours}h{minutes}m{seconds}s" if hours else f"{minutes}m{seconds}s"
