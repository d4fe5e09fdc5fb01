"""
Usage: what requests consumed, added up by the minute.

Only arithmetic lives here. A rollup names no person: usage by subject is read
from the records themselves, for as long as those are kept.
"""

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from pilothouse.domain.record import FOUND, InferenceRecord

UsageBy = Literal["team", "key", "endpoint", "subject"]


class Sums(Struct, frozen=True, kw_only=True):
    """Totals of some requests. They add up, in any order, to the same."""

    requests: int = 0
    errors: int = 0
    """Requests whose code is not "ok"."""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_micro_usd: int = 0
    duration_ms: float = 0.0

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            requests=self.requests + other.requests,
            errors=self.errors + other.errors,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            cost_micro_usd=self.cost_micro_usd + other.cost_micro_usd,
            duration_ms=self.duration_ms + other.duration_ms,
        )


class RollupKey(Struct, frozen=True, kw_only=True):
    """What one rollup row is about. `minute` is the Unix second at which the minute starts."""

    minute: int
    team: str
    key_id: str
    endpoint: str
    deployment: str
    code: str


class UsageLine(Struct, frozen=True, kw_only=True):
    """One line of a usage report: the group's value, its totals, and whose it is ("": several teams')."""

    group: str
    team: str
    sums: Sums


def minute_of(time_s: float) -> int:
    """Unix second at which the minute of `time_s` starts."""
    return int(time_s // 60) * 60


def rollup_key(record: InferenceRecord) -> RollupKey:
    """The rollup row that counts this record."""
    return RollupKey(
        minute=minute_of(record.time),
        team=record.team,
        key_id=record.key_id,
        endpoint=record.endpoint,
        deployment=record.deployment,
        code=record.code,
    )


def sums_of(record: InferenceRecord) -> Sums:
    """The totals of a single request. One that a cache answered consumed no token, whatever it was shown."""
    is_used = record.cache not in FOUND
    return Sums(
        requests=1,
        errors=0 if record.code == "ok" else 1,
        input_tokens=record.input_tokens if is_used else 0,
        output_tokens=record.output_tokens if is_used else 0,
        cached_tokens=record.cached_tokens if is_used else 0,
        cost_micro_usd=record.cost_micro_usd,
        duration_ms=record.duration_ms,
    )


def roll_up(records: Iterable[InferenceRecord]) -> dict[RollupKey, Sums]:
    """
    Add records up by minute and everything that usage is asked for by.

    Each record is counted exactly once: the sum over all rows has as many
    requests as there were records. Shadows are nobody's use.
    """
    rows: dict[RollupKey, Sums] = {}
    for record in records:
        if record.shadow_of:
            continue
        key = rollup_key(record)
        sums = sums_of(record)
        rows[key] = rows[key] + sums if key in rows else sums
    return rows
