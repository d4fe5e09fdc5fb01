"""Percentiles of what was only counted by bucket."""

from collections.abc import Sequence


def bucket_percentile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """
    The value that `share` of the observations do not exceed.

    Args:
        bounds: Shape (n,). Upper bounds of the buckets, growing.
        counts: Shape (n + 1,). Observations of each; the last lie above all bounds.
        share: 0..1.

    Returns:
        Interpolated within the bucket; of those above all bounds only the last
        bound is known. None without observations.
    """
    total = sum(counts)
    if not total:
        return None
    rank, seen, low = share * total, 0, 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and seen + count >= rank:
            return low + (bound - low) * (rank - seen) / count
        seen, low = seen + count, bound
    return low
