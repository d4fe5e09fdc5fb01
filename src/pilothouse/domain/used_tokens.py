"""
The tokens of one answer. A plain class, which is compiled, as those of `domain.chunk` are.
"""

from typing import Final


class Usage:
    """
    Tokens as the engine counted them. Never changed.

    `cached` is the part of `input` that it did not compute again.
    """

    __slots__ = ("cached", "input", "output")

    def __init__(self, input: int = 0, output: int = 0, cached: int = 0) -> None:  # noqa: A002 - a field's name
        self.input: Final = input
        self.output: Final = output
        self.cached: Final = cached

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Usage)
            and self.input == other.input
            and self.output == other.output
            and self.cached == other.cached
        )

    def __hash__(self) -> int:
        return hash((self.input, self.output, self.cached))

    def __repr__(self) -> str:
        return f"Usage({self.input}, {self.output}, {self.cached})"
