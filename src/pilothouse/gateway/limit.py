"""
Limits and budgets of a request: reserve before anything is done, settle when it ended.

The accounts that a caller's requests go through are looked up once for each key
and endpoint, and kept until the next snapshot. A refusal is a value until the
last line of `more`, where it becomes the caller's error.
"""

import time
from collections.abc import Iterator
from typing import Final

from pilothouse.domain.errors import BudgetExceeded, Overloaded, PilothouseError, RateLimitExceeded
from pilothouse.domain.leasing import Kind
from pilothouse.domain.ledger import Account, Book, Plan, Reservation, Shortage
from pilothouse.domain.limits import Limits, account_id, budget_id, budget_scope, format_usd, period_bounds
from pilothouse.domain.price import BYTES_PER_TOKEN, TEMPLATE_TOKENS, Price
from pilothouse.domain.principal import Principal
from pilothouse.domain.snapshot import EndpointEntry, Snapshot
from pilothouse.gateway.call import Call
from pilothouse.gateway.leases import Leases
from pilothouse.gateway.rate_headers import RateHeaders
from pilothouse.gateway.route import EndpointRoutes

WAIT_S = 0.1
"""How long a request that would be refused waits for the pools: memory of another process, not a database."""
FIRST_WAIT_S = 1.0
"""As long where the pools have said nothing of a limit yet: to call it used up would be a guess."""
MOST_PLANS = 20_000
"""Of one snapshot; beyond it all are looked up anew."""
_BYTES_PER_TOKEN: Final = BYTES_PER_TOKEN
_TEMPLATE_TOKENS: Final = TEMPLATE_TOKENS
_monotonic: Final = time.monotonic
_WORDS: dict[Kind, str] = {
    "rpm": "requests a minute",
    "tpm": "tokens a minute",
    "parallel": "parallel requests",
}


class _Limited:
    """The plan of one caller at one endpoint, and what he is told of it."""

    __slots__ = ("plan", "told")

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.told = RateHeaders(plan)


_EMPTY: Final = _Limited(Plan(()))


class Limiter:
    """Owns no lease: those are `Leases`. `is_on` is False while no limit and no price is in force."""

    def __init__(self, book: Book, leases: Leases) -> None:
        self.is_on = False
        self._book = book
        self._leases = leases
        leases.on_forgotten = self._look_up_anew
        self._snapshot = Snapshot()
        self._limited = False
        self._by_subject = False
        self._plans: dict[tuple[str, str, str], _Limited] = {}
        self._prices: dict[str, Price] = {}
        self._dearest: dict[str, tuple[Price, ...]] = {}

    def apply(self, snapshot: Snapshot) -> None:
        """From now on these limits and prices hold; reservations that are open are settled as they are."""
        self._snapshot = snapshot
        self._plans = {}
        self._prices = {d.name: d.price for d in snapshot.deployments.values() if d.price is not None}
        self._dearest = {
            endpoint.name: tuple(
                [
                    self._prices[name]
                    for name in (*(route.deployment for route in endpoint.routes), *endpoint.fallback)
                    if name in self._prices
                ]
            )
            for endpoint in snapshot.endpoints.values()
        }
        keys, teams, endpoints = snapshot.keys.values(), snapshot.teams.values(), snapshot.endpoints.values()
        self._by_subject = any(t.per_subject for t in teams) or any(e.per_subject for e in endpoints)
        self._limited = (
            self._by_subject
            or any(key.limits for key in keys)
            or any(team.limits for team in teams)
            or any(endpoint.limits for endpoint in endpoints)
        )
        self.is_on = self._limited or bool(self._prices)

    async def more(self, shortage: Shortage, call: Call) -> None:
        """
        Ask the pools for what is short, and reserve it if it comes soon.

        Raises:
            RateLimitExceeded, BudgetExceeded: A limit is used up; the message says whose and which.
            Overloaded: What grants limits is out of reach, and nothing is left of what it granted.
        """
        short: Shortage | None = shortage
        now = _monotonic()
        is_first = shortage.account.left is None and not self._leases.is_closed
        ends = now + (FIRST_WAIT_S if is_first else WAIT_S)
        while short is not None and not self._leases.is_lost and now < ends and short.may_wait(now):
            self._book.want(short)
            await self._leases.answered(ends - now)
            if call.routes is None or call.principal is None:  # who is short has come by both
                return
            short = self.reserve(call, call.routes, call.principal)
            now = _monotonic()
        if short is not None:
            raise self._refusal(short, now)

    def _look_up_anew(self) -> None:
        self._plans = {}

    def settle(self, call: Call) -> None:
        """Put what was used in the place of what was reserved; give the call its cost. Once for each call."""
        usage = call.usage
        if call.cache in ("hit", "semantic"):
            tokens = cost = 0
        else:
            input_tokens, output_tokens = usage.input, usage.output
            if not input_tokens and (output_tokens or (call.code == "client_closed" and call.replica)):
                # It was cut before the engine told its count: the prompt was computed all the same.
                input_tokens = -(-_prompt_bytes(call) // _BYTES_PER_TOKEN)
            price = self._prices.get(call.deployment)
            tokens = input_tokens + output_tokens
            cost = price.cost_micro_usd(input_tokens, output_tokens, usage.cached) if price is not None else 0
        call.cost_micro_usd = cost
        if call.reservation is not None:
            call.life = self._leases.life
            self._book.settle(call.reservation, tokens, cost)
            if self._book.asks:
                self._leases.nudge()

    def reserve(self, call: Call, routes: EndpointRoutes, principal: Principal) -> Shortage | None:
        """Reserve for this call, at all scopes or at none; what is short then is for `more`."""
        if not self._limited:
            return None
        subject = call.subject_hash if self._by_subject else ""
        limited = self._plans.get((principal.key_id, routes.name, subject))
        if limited is None or not limited.plan.begins <= call.created_at < limited.plan.ends:
            limited = self._plan(principal, routes.entry, subject, call.created_at)
        if limited is _EMPTY:
            return None
        plan = limited.plan
        tokens = cost = 0
        if plan.tokens or plan.costs:
            prompt, answer = bounds(call, routes)
            tokens = prompt + answer
            if plan.costs:
                for price in self._dearest[routes.name]:
                    bound = price.bound_micro_usd(prompt, answer)
                    if bound > cost:
                        cost = bound
        now = _monotonic()
        made = self._book.reserve(plan, tokens, cost, now=now, expires=now + routes.timeout_s)
        call.limit_headers = limited.told.lines(now)
        if isinstance(made, Reservation):
            call.reservation = made
            if self._book.asks:
                self._leases.nudge()
            return None
        return made

    def _plan(self, principal: Principal, endpoint: EndpointEntry, subject: str, now: float) -> _Limited:
        if len(self._plans) >= MOST_PLANS:
            self._plans = {}
        begins, ends = 0.0, float("inf")
        accounts: list[Account] = []
        for scope, limits in self._scopes(principal, endpoint, subject):
            rates: tuple[tuple[Kind, int], ...] = (
                ("rpm", limits.rpm),
                ("tpm", limits.tpm),
                ("parallel", limits.parallel),
            )
            for kind, limit in rates:
                if limit:
                    accounts.append(self._account(account_id(scope, kind), kind, limit, scope))
            if limits.budget_micro_usd:
                since, until = period_bounds(now, limits.budget_period)
                begins, ends = max(begins, since), min(ends, until)
                name = budget_id(scope, limits.budget_period, since)
                accounts.append(self._account(name, "budget", limits.budget_micro_usd, scope))
        limited = _Limited(Plan(accounts, begins=begins, ends=ends)) if accounts else _EMPTY
        self._plans[(principal.key_id, endpoint.name, subject)] = limited
        return limited

    def _scopes(
        self, principal: Principal, endpoint: EndpointEntry, subject: str
    ) -> Iterator[tuple[str, Limits]]:
        key = self._snapshot.keys.get(principal.key_id)
        if key is not None and key.limits:
            yield f"key:{key.id}", key.limits
        team = self._snapshot.teams.get(principal.team)
        if team is not None:
            if team.limits:
                yield f"team:{principal.team}", team.limits
            if subject and team.per_subject:
                yield f"team:{principal.team}/subject:{subject}", team.per_subject
        if endpoint.limits:
            yield f"endpoint:{endpoint.name}", endpoint.limits
        if subject and endpoint.per_subject:
            yield f"endpoint:{endpoint.name}/subject:{subject}", endpoint.per_subject

    def _account(self, name: str, kind: Kind, limit: int, scope: str) -> Account:
        return self._leases.account(name, lambda: Account(name, kind, limit, scope), limit)

    def _refusal(self, shortage: Shortage, now: float) -> PilothouseError:
        account, scope = shortage.account, shown(shortage.account.scope)
        is_out_of_reach = self._leases.is_closed or (self._leases.is_lost and not account.rate)
        if is_out_of_reach and not shortage.is_hopeless:
            return Overloaded(
                f"what grants the limits of {scope} is out of reach, and what it granted before is used up; "
                "try again",
                retry_after_s=2.0,
            )
        if account.kind == "budget":
            money = budget_scope(account.id)
            return BudgetExceeded(
                f"the budget of {scope} ({format_usd(account.limit)} USD) does not cover this request, which "
                f"may cost up to {format_usd(shortage.need)} USD; lower max_tokens or raise the budget",
                retry_after_s=max(1.0, money.until - time.time()) if money else None,
            )
        if shortage.is_hopeless:
            return RateLimitExceeded(
                f"this request may take {shortage.need} tokens, and the limit of {scope} is {account.limit} "
                "tokens a minute; lower max_tokens or shorten the prompt"
            )
        return RateLimitExceeded(
            f"the limit of {scope} is reached: {account.limit} {_WORDS[account.kind]}; try again later",
            retry_after_s=shortage.retry_after_s(now),
        )


def bounds(call: Call, routes: EndpointRoutes) -> tuple[int, int]:
    """The most tokens that the prompt and the answers can have: no token is shorter than a byte."""
    text = call.text
    if text is None:
        return len(call.request.body) + _TEMPLATE_TOKENS, 0
    wished = text.max_tokens
    most = routes.max_tokens if wished is None else wished
    return text.prompt_bytes + _TEMPLATE_TOKENS * text.prompts, most * text.choices


def shown(scope: str) -> str:
    """A scope in words; a person's hash is nobody's business."""
    first, _, subject = scope.partition("/subject:")
    kind, _, name = first.partition(":")
    return f"each subject of {kind} {name}" if subject else f"{kind} {name}"


def _prompt_bytes(call: Call) -> int:
    return call.text.prompt_bytes if call.text is not None else 0
