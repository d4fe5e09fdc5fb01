"""
Where an endpoint's requests may go: made once a snapshot, read by every request.

What is declared for an endpoint is turned here into what its requests need at
hand, so that the usual one (one deployment, nothing wrong) decides nothing.
"""

from collections.abc import Mapping

from pilothouse.domain.breaker import RetryBudget
from pilothouse.domain.routing import Split
from pilothouse.domain.snapshot import EndpointEntry
from pilothouse.gateway.permit import Places
from pilothouse.gateway.waiting import Terms
from pilothouse.kit.http1.peer import Timeouts


class EndpointRoutes:
    """
    Args:
        places: Those of every deployment that is known here.
        former: What the last snapshot had for this endpoint; its budgets go on.
    """

    __slots__ = (
        "_budgets",
        "_orders",
        "_split",
        "by_prefix",
        "cache",
        "demand",
        "entry",
        "hedge_after_s",
        "is_sealed",
        "is_sticky",
        "max_tokens",
        "name",
        "only",
        "shadow",
        "tasks",
        "team",
        "terms",
        "timeout_s",
        "timeouts",
    )

    def __init__(
        self, entry: EndpointEntry, places: Mapping[str, Places], former: "EndpointRoutes | None" = None
    ) -> None:
        routes = [(places[r.deployment], r.weight) for r in entry.routes if r.deployment in places]
        spare = [places[name] for name in entry.fallback if name in places]
        found = [place for place, _ in routes]
        self.entry = entry
        self.name, self.team, self.tasks = entry.name, entry.team, entry.tasks
        self.max_tokens, self.timeout_s = entry.max_tokens, entry.timeout_s
        self.cache = entry.cache
        self.is_sealed = entry.records == "sealed"
        """Prompts and answers are kept, sealed."""
        self.demand: int = former.demand if former else 0
        """Requests so far, whatever became of them."""
        self._split = Split([weight for _, weight in routes])
        self._orders = orders = [
            tuple(dict.fromkeys([*(found[at] for at in order), *spare])) for order in self._split.orders
        ] or [tuple(spare)]
        self.only = orders[0][0] if len(orders) == 1 and len(orders[0]) == 1 else None
        """The one deployment there is, where there is no choice."""
        self.shadow = places.get(entry.shadow.candidate) if entry.shadow is not None else None
        """Who gets copies of what was answered, unseen."""
        self.is_sticky = entry.sticky == "subject" and len(orders) > 1
        self.by_prefix = entry.balance == "prefix_affinity"
        self.hedge_after_s = entry.hedge_after_s
        self.terms = Terms(
            balance=entry.balance,
            queue_size=entry.queue_size,
            per_team=entry.queue_per_team,
            weights=entry.queue_weights,
        )
        self.timeouts = _timeouts(entry)
        self._budgets: dict[str, RetryBudget] = former._budgets if former else {}  # noqa: SLF001 - its own kind

    def order(self, draw: float) -> tuple[Places, ...]:
        """Deployments in the order in which they are tried, fallbacks last; empty where none is known."""
        return self._orders[self._split.drawn(draw)]

    # Retries: only teams that made use of one have a budget, so a request that needs none pays nothing.

    def note_request(self, team: str) -> None:
        if self._budgets and (budget := self._budgets.get(team)) is not None:
            budget.request()
            if budget.is_full:
                del self._budgets[team]

    def take_retry(self, team: str) -> bool:
        budget = self._budgets.get(team)
        if budget is None:
            budget = self._budgets[team] = RetryBudget(self.entry.retry_share)
        return budget.take()


def _timeouts(entry: EndpointEntry) -> Timeouts | None:
    """None where the engine's own are good enough."""
    given = {
        "connect_s": entry.connect_timeout_s,
        "first_byte_s": entry.first_byte_timeout_s,
        "idle_s": entry.idle_timeout_s,
    }
    known = {name: seconds for name, seconds in given.items() if seconds is not None}
    return Timeouts(**known) if known else None
