"""The simple judges: exact, contains, regex, json_schema, refusal and length."""

import re
from collections.abc import Callable

import msgspec

from pilothouse.domain.json_schema import fault_of
from pilothouse.domain.spec import JudgeSpec
from pilothouse.ports.judge import MAX_CHARS, Score

_REFUSAL = re.compile(
    r"^\W*(i'?m sorry|i am sorry|sorry|unfortunately)?\W*(but )?\W*"
    r"(as an? (ai|language|large)|i (can'?t|cannot|can not|won'?t|am unable|am not able)|"
    r"i'?m (unable|not able)|i (must|have to) (decline|refuse))",
    re.IGNORECASE,
)
"""How models begin when they refuse, in English."""

Rule = Callable[[str], Score]
_GOOD = Score(1.0)


class RuleJudge:
    """`ports.judge.Judge` of one rule of the spec."""

    def __init__(self, name: str, spec: JudgeSpec) -> None:
        self.name = name
        self._rule = _RULES[spec.kind](spec)

    def score(self, answer: str) -> Score:
        return self._rule(answer[:MAX_CHARS])


def _exact(spec: JudgeSpec) -> Rule:
    wanted = _folded(spec.text.strip(), spec)
    return lambda answer: (
        _GOOD if _folded(answer.strip(), spec) == wanted else Score(0.0, "it is not the text")
    )


def _contains(spec: JudgeSpec) -> Rule:
    wanted = _folded(spec.text, spec)
    return lambda answer: (
        _GOOD if wanted in _folded(answer, spec) else Score(0.0, "it does not hold the text")
    )


def _regex(spec: JudgeSpec) -> Rule:
    pattern = re.compile(spec.text, re.IGNORECASE if spec.ignore_case else 0)
    return lambda answer: _GOOD if pattern.search(answer) else Score(0.0, "it does not match")


def _json_schema(spec: JudgeSpec) -> Rule:
    def rule(answer: str) -> Score:
        try:
            value = msgspec.json.decode(answer.strip().removeprefix("```json").strip("`").strip())
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return Score(0.0, "it is not JSON")
        fault = fault_of(value, spec.json_schema)
        return Score(0.0, fault) if fault else _GOOD

    return rule


def _refusal(_: JudgeSpec) -> Rule:
    return lambda answer: Score(0.0, "it refuses") if _REFUSAL.search(answer[:200]) else _GOOD


def _length(spec: JudgeSpec) -> Rule:
    def rule(answer: str) -> Score:
        length = len(answer.strip())
        if spec.min_chars <= length <= spec.max_chars:
            return _GOOD
        return Score(0.0, f"{length} characters are not within {spec.min_chars} and {spec.max_chars}")

    return rule


def _folded(text: str, spec: JudgeSpec) -> str:
    return text.casefold() if spec.ignore_case else text


_RULES: dict[str, Callable[[JudgeSpec], Rule]] = {
    "exact": _exact,
    "contains": _contains,
    "regex": _regex,
    "json_schema": _json_schema,
    "refusal": _refusal,
    "length": _length,
}
