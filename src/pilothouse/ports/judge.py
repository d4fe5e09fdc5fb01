"""
The Judge: what one answer is worth, by a rule.

Called off the request path, on the store's thread, so it must be quick; a text
longer than `MAX_CHARS` is judged by its beginning.
"""

from typing import Protocol

from msgspec import Struct

MAX_CHARS = 20_000


class Score(Struct, frozen=True):
    """0..1, and why it is not 1."""

    value: float
    reason: str = ""


class Judge(Protocol):
    @property
    def name(self) -> str:
        """What people call this rule; stays with every score."""
        ...

    def score(self, answer: str) -> Score:
        """Never raises, whatever the answer is."""
        ...
