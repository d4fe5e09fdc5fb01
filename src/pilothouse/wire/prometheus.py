"""Prometheus' text format (version 0.0.4), read as far as an engine's load needs it."""

import math
from collections.abc import Collection


def sums(text: str, names: Collection[str]) -> dict[str, float]:
    """
    The samples of each name added up over all of their labels.

    A name without a sample is left out; a line that cannot be read is no sample, and neither is NaN.
    """
    found: dict[str, float] = {}
    for line in text.splitlines():
        name = line.partition("{")[0] if "{" in line else line.partition(" ")[0]
        if name in names:
            try:
                value = float(line.rpartition("}")[2].split()[0] if "{" in line else line.split()[1])
            except (ValueError, IndexError):
                continue
            if math.isfinite(value):
                found[name] = found.get(name, 0.0) + value
    return found
