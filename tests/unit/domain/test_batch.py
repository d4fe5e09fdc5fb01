"""Which way a batch goes, whatever happens in whichever order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.batch import ENDED, NEXT, Batch, cancel, close, move, why_unasked
from pilothouse.domain.errors import Conflict
from pilothouse.testing.conformance_batches import make_batch

STATUSES = st.sampled_from(sorted(NEXT))
STEPS = st.lists(st.one_of(STATUSES, st.sampled_from(["cancel", "close"])), max_size=30)


def stepped(batch: Batch, step: str, now: float) -> Batch:
    try:
        if step == "cancel":
            return cancel(batch, now)
        return close(batch, now) if step == "close" else move(batch, step, now)  # type: ignore[arg-type]
    except Conflict:
        return batch


@given(STEPS)
def test_a_batch_goes_only_the_published_ways_and_ends_once(steps):
    batch = make_batch("b")
    for now, step in enumerate(steps, start=2):
        after = stepped(batch, step, float(now))

        assert after.status == batch.status or after.status in NEXT[batch.status]
        if batch.has_ended:
            assert after == batch
        assert batch.times.items() <= after.times.items()
        batch = after
    assert len(ENDED & batch.times.keys()) == batch.has_ended
    assert list(batch.times.values()) == sorted(batch.times.values())


@pytest.mark.parametrize(
    ("status", "ended"),
    [("cancelling", "cancelled"), ("finalizing", "completed"), ("in_progress", "expired")],
)
def test_it_ends_as_it_was_going_to(status, ended):
    assert close(make_batch("b", status=status), 2.0).status == ended


def test_its_lines_are_asked_until_it_is_cancelled_or_its_time_is_over():
    batch = make_batch("b", status="in_progress", expires_at=5.0)

    assert why_unasked(batch, 4.9) == ""
    assert why_unasked(batch, 5.0) == "batch_expired"
    assert why_unasked(cancel(batch, 3.0), 9.0) == "batch_cancelled"
    assert cancel(cancel(batch, 3.0), 4.0).times == {"cancelling": 3.0}
