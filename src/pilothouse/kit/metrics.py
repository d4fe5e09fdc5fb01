"""
Counters, gauges and histograms as plain numbers, and their Prometheus text.

The hot path touches a series it already holds; everything else (merging
processes, rendering) happens elsewhere. A family's series are bounded: beyond
the bound, new label values share one series named "other".

Source: the Prometheus text exposition format, version 0.0.4.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec

Kind = Literal["counter", "gauge", "most", "histogram"]
"""`most` is a gauge of one thing that each process sees for itself: together they say the most of them."""

DURATION_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
OVERHEAD_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1)
TOKEN_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
MAX_SERIES = 1000


_SeriesDump = tuple[tuple[str, ...], float, list[int]]
"""Labels, value, buckets."""
_FamilyDump = tuple[Kind, str, str, tuple[str, ...], tuple[float, ...], list[_SeriesDump]]
"""Kind, name, help, names of labels, bounds of buckets, series."""


class Series:
    """The numbers of one label set: `value` (a histogram's sum) and its counts per bucket."""

    __slots__ = ("bounds", "buckets", "value")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.value = 0.0
        self.buckets = [0] * (len(bounds) + 1) if bounds else []

    def inc(self, n: float = 1.0) -> None:
        self.value += n

    def set(self, value: float) -> None:
        self.value = value

    def observe(self, value: float) -> None:
        bounds, first, end = self.bounds, 0, len(self.bounds)
        while first < end:  # `bisect_left`, whose call costs more than its work
            middle = (first + end) // 2
            if bounds[middle] < value:
                first = middle + 1
            else:
                end = middle
        self.buckets[first] += 1
        self.value += value


class Family:
    """All series of one metric name."""

    def __init__(self, kind: Kind, name: str, help_text: str, labels: tuple[str, ...]) -> None:
        self.kind, self.name, self.help, self.label_names = kind, name, help_text, labels
        self.bounds: tuple[float, ...] = ()
        self.series: dict[tuple[str, ...], Series] = {}

    def labels(self, *values: str) -> Series:
        """The series of these label values, in the order of the family's labels."""
        found = self.series.get(values)
        if found is None:
            if len(values) != len(self.label_names):
                raise ValueError(f"{self.name} takes the labels {self.label_names}, got {values}")
            if len(self.series) >= MAX_SERIES:
                values = ("other",) * len(values)
                if values in self.series:
                    return self.series[values]
            found = self.series[values] = Series(self.bounds)
        return found

    def dump(self) -> _FamilyDump:
        every = [(labels, series.value, series.buckets) for labels, series in self.series.items()]
        return self.kind, self.name, self.help, self.label_names, self.bounds, every


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[_FamilyDump]).decode


class Registry:
    """The metrics of one process; `dump` and `merged` carry them to another."""

    def __init__(self) -> None:
        self.families: dict[str, Family] = {}

    def counter(self, name: str, help_text: str, labels: tuple[str, ...] = ()) -> Family:
        return self._family("counter", name, help_text, labels, ())

    def gauge(self, name: str, help_text: str, labels: tuple[str, ...] = ()) -> Family:
        return self._family("gauge", name, help_text, labels, ())

    def most(self, name: str, help_text: str, labels: tuple[str, ...] = ()) -> Family:
        return self._family("most", name, help_text, labels, ())

    def histogram(
        self, name: str, help_text: str, labels: tuple[str, ...], buckets: tuple[float, ...]
    ) -> Family:
        return self._family("histogram", name, help_text, labels, buckets)

    def _family(
        self, kind: Kind, name: str, help_text: str, labels: tuple[str, ...], bounds: tuple[float, ...]
    ) -> Family:
        family = self.families.get(name)
        if family is None:
            family = self.families[name] = Family(kind, name, help_text, labels)
            family.bounds = bounds
        return family

    def dump(self) -> bytes:
        """All numbers as they are now, for `merged` in another process."""
        return _encode([family.dump() for family in self.families.values()])

    @classmethod
    def merged(cls, dumps: Iterable[bytes]) -> "Registry":
        """One registry of all: their sums, counters and gauges alike, but for what is the most of them."""
        result = cls()
        for dump in dumps:
            for kind, name, help_text, label_names, bounds, every in _decode(dump):
                family = result._family(kind, name, help_text, label_names, bounds)
                for labels, value, buckets in every:
                    into = family.labels(*labels)
                    into.value = max(into.value, value) if kind == "most" else into.value + value
                    if len(buckets) == len(into.buckets):
                        into.buckets = [a + b for a, b in zip(into.buckets, buckets, strict=True)]
        return result

    def render(self) -> str:
        """The Prometheus text of everything."""
        lines: list[str] = []
        for family in self.families.values():
            lines.append(f"# HELP {family.name} {family.help}")
            lines.append(f"# TYPE {family.name} {'gauge' if family.kind == 'most' else family.kind}")
            for values, series in family.series.items():
                _render_series(lines, family, values, series)
        return "\n".join(lines) + "\n"


def _render_series(lines: list[str], family: Family, values: tuple[str, ...], series: Series) -> None:
    labels = ",".join(
        f'{name}="{_escaped(value)}"' for name, value in zip(family.label_names, values, strict=True)
    )
    if family.kind != "histogram":
        lines.append(
            f"{family.name}{{{labels}}} {_number(series.value)}"
            if labels
            else f"{family.name} {_number(series.value)}"
        )
        return
    comma = "," if labels else ""
    total = 0
    for bound, count in zip((*family.bounds, float("inf")), series.buckets, strict=True):
        total += count
        le = "+Inf" if bound == float("inf") else _number(bound)
        lines.append(f'{family.name}_bucket{{{labels}{comma}le="{le}"}} {total}')
    suffix = f"{{{labels}}}" if labels else ""
    lines.append(f"{family.name}_sum{suffix} {_number(series.value)}")
    lines.append(f"{family.name}_count{suffix} {total}")


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
