"""
Ends an answer before a stop text, for engines that cannot.

The one idea: hold back what may be the beginning of a stop text, and nothing else.
"""

from collections.abc import Sequence


class StopCutter:
    """Of one choice. `has_stopped` once a stop text came."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.has_stopped = False

    def feed(self, text: str) -> str:
        """What may be said now; after a stop text, nothing."""
        if not self._stops:
            return text
        if self.has_stopped:
            return ""
        held = self._held + text
        places = [place for stop in self._stops if (place := held.find(stop)) >= 0]
        if places:
            self.has_stopped, self._held = True, ""
            return held[: min(places)]
        keep = max((_overlap(held, stop) for stop in self._stops), default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def close(self) -> str:
        """What was held back and is no stop text after all."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How many last characters of `text` begin `stop`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
