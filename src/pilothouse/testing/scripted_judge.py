"""A judge that says what it was told to: the fake of `ports.judge`."""

from collections.abc import Mapping

from pilothouse.ports.judge import Score


class ScriptedJudge:
    """
    Args:
        scores: By answer; any other is worth `otherwise`.
    """

    def __init__(self, name: str, scores: Mapping[str, float], *, otherwise: float = 0.0) -> None:
        self.name = name
        self._scores = scores
        self._otherwise = otherwise

    def score(self, answer: str) -> Score:
        value = self._scores.get(answer, self._otherwise)
        return Score(value, "" if value == 1.0 else "so it was told")
