"""
Retention: contents end at their endpoint's `retain`, facts and figures later.

`periods` decides, from the spec alone; `Retention.sweep` erases in small
transactions, so that others get their turn, and then has the store leave no byte
behind. Facts (who asked which endpoint when, and what it cost) stay for 13
months, for yearly reports, and as long as their content does.
"""

from collections.abc import Callable

from msgspec import Struct

from pilothouse.domain.duration import parse_duration_s
from pilothouse.domain.spec import RecordsSpec, Spec
from pilothouse.ports.store import Store, UnitOfWork

_DAY_S = 86400.0
FACTS_S = 397 * _DAY_S
"""13 months: a month of last year can be compared with this year's."""
RESOURCES_S = 90 * _DAY_S

Step = Callable[[UnitOfWork], int]


class Periods(Struct, frozen=True, kw_only=True):
    """How long contents are kept, in seconds; None is for ever."""

    content_s: dict[str, float | None]
    """By endpoint."""
    otherwise_s: float | None
    """Endpoints that are not declared any more."""


class Swept(Struct, frozen=True, kw_only=True):
    """What one sweep erased. `is_done` says that nothing that is due is left."""

    contents: int = 0
    records: int = 0
    minutes: int = 0
    samples: int = 0
    feedback: int = 0
    is_done: bool = True


def periods(spec: Spec) -> Periods:
    """What a declaration says about contents. What it no longer names has the default period."""
    return Periods(
        content_s={
            name: parse_duration_s(endpoint.records.retain, param=f"endpoints.{name}.records.retain")
            for name, endpoint in spec.endpoints.items()
        },
        otherwise_s=parse_duration_s(RecordsSpec().retain, param="records.retain"),
    )


class Retention:
    """
    Args:
        batch: Rows a transaction.
        batches: Transactions a sweep and kind of row; what is left is the next one's.
    """

    def __init__(self, *, batch: int = 500, batches: int = 20) -> None:
        self._batch = batch
        self._batches = batches
        self._owes_scrub = True
        """Also at first: a sweep that was killed may have erased and not scrubbed."""

    def sweep(self, store: Store, kept: Periods, now: float) -> Swept:
        """
        Erase what is due. Runs on the store's thread.

        Raises:
            StoreUnavailable: What was erased so far stays erased; the next sweep goes on.
        """
        cutoffs = {name: _cutoff(now, period_s) for name, period_s in kept.content_s.items()}
        otherwise = _cutoff(now, kept.otherwise_s)
        batch = self._batch
        steps: dict[str, Step] = {
            "contents": lambda u: u.records.forget_content(cutoffs, otherwise=otherwise, limit=batch),
            "records": lambda u: u.records.forget(now - FACTS_S, limit=batch),
            "minutes": lambda u: u.usage.forget(now - FACTS_S, limit=batch),
            "feedback": lambda u: u.feedback.forget(now - FACTS_S, limit=batch),
            "samples": lambda u: u.resources.forget(now - RESOURCES_S, limit=batch),
        }
        erased = {name: self._erase(store, step) for name, step in steps.items()}
        if self._owes_scrub:
            store.scrub()
            self._owes_scrub = False
        return Swept(**erased, is_done=all(count < batch * self._batches for count in erased.values()))

    def _erase(self, store: Store, step: Step) -> int:
        erased = 0
        for _ in range(self._batches):
            with store.unit() as unit:
                count = step(unit)
            erased += count
            self._owes_scrub |= count > 0
            if count < self._batch:
                break
        return erased


def _cutoff(now: float, period_s: float | None) -> float:
    """Contents before it are due; nothing is older than the epoch."""
    return 0.0 if period_s is None else now - period_s
