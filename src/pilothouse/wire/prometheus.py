"""Prometheus' text format (version 0.0.4), read as far as an engine's load needs it."""

import math
from collections.abc import Collection


def samples(text: str, names: Collection[str]) -> dict[str, list[float]]:
    """
    The samples of each name, whatever their labels.

    A name without a sample is left out; a line that cannot be read is no sample, and neither is NaN.
    """
    found: dict[str, list[float]] = {}
    for line in text.splitlines():
        name = line.partition("{")[0] if "{" in line else line.partition(" ")[0]
        if name in names:
            try:
                value = float(line.rpartition("}")[2].split()[0] if "{" in line else line.split()[1])
            except (ValueError, IndexError):
                continue
            if math.isfinite(value):
                found.setdefault(name, []).append(value)
    return found
