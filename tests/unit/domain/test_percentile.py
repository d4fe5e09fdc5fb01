from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.percentile import bucket_percentile

BOUNDS = (0.1, 0.5, 1.0, 5.0)


def test_a_percentile_is_interpolated_within_its_bucket():
    assert bucket_percentile(BOUNDS, [0, 0, 100, 0, 0], 0.5) == 0.75
    assert bucket_percentile(BOUNDS, [90, 0, 10, 0, 0], 0.95) == 0.75


def test_what_lies_above_all_bounds_is_said_to_be_at_the_last():
    assert bucket_percentile(BOUNDS, [1, 0, 0, 0, 9], 0.95) == 5.0


def test_nothing_was_seen():
    assert bucket_percentile(BOUNDS, [0, 0, 0, 0, 0], 0.95) is None


@given(st.lists(st.integers(0, 50), min_size=5, max_size=5), st.floats(0.01, 0.99))
def test_as_many_as_asked_for_lie_below(counts, share):
    value = bucket_percentile(BOUNDS, counts, share)

    if value is not None:
        full = sum(count for bound, count in zip(BOUNDS, counts, strict=False) if bound < value)
        assert full <= share * sum(counts)
