"""
What an engine says at once: the steps of an answer as they come, or all of it.

These are made and read with every token. So they are plain classes, which are compiled
(`app.compiled`): there a field of theirs is read for nothing, and one of a struct is looked up.
"""

from typing import Final

from msgspec import Raw

from pilothouse.domain.chat import Aside
from pilothouse.domain.used_tokens import Usage


class Delta:
    """One step of one choice: text, something beside it, its end, or several of these. Never changed."""

    __slots__ = ("aside", "finish_reason", "index", "logprobs", "text")

    def __init__(
        self,
        text: str = "",
        index: int = 0,
        finish_reason: str | None = None,
        logprobs: Raw | None = None,
        aside: Aside | None = None,
    ) -> None:
        self.text: Final = text
        self.index: Final = index
        self.finish_reason: Final = finish_reason
        self.logprobs: Final = logprobs
        self.aside: Final = aside

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Delta)
            and self.text == other.text
            and self.index == other.index
            and self.finish_reason == other.finish_reason
            and self.logprobs == other.logprobs
            and self.aside == other.aside
        )

    def __hash__(self) -> int:
        return hash((self.text, self.index, self.finish_reason))

    def __repr__(self) -> str:
        return (
            f"Delta({self.text!r}, {self.index}, {self.finish_reason!r}, {self.logprobs!r}, {self.aside!r})"
        )


class Chunk:
    """Steps of choices, and at the end the usage. Never changed."""

    __slots__ = ("deltas", "usage")

    def __init__(self, deltas: tuple[Delta, ...] = (), usage: Usage | None = None) -> None:
        self.deltas: Final = deltas
        self.usage: Final = usage

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Chunk) and self.deltas == other.deltas and self.usage == other.usage

    def __hash__(self) -> int:
        return hash(self.deltas)

    def __repr__(self) -> str:
        return f"Chunk({self.deltas!r}, {self.usage!r})"
