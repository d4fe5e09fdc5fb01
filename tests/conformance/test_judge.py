import pytest

from pilothouse.adapters.judges.rules import RuleJudge
from pilothouse.domain.spec import JudgeSpec
from pilothouse.testing.conformance_judge import JudgeConformance
from pilothouse.testing.scripted_judge import ScriptedJudge

ORDER = {
    "type": "object",
    "required": ["id", "lines"],
    "properties": {
        "id": {"type": "integer", "minimum": 1},
        "lines": {"type": "array", "minItems": 1, "items": {"type": "string"}},
        "state": {"enum": ["open", "paid"]},
    },
    "additionalProperties": False,
}

RULES = {
    "exact": (JudgeSpec(kind="exact", text="Paris"), " paris\n", "Paris, France"),
    "contains": (JudgeSpec(kind="contains", text="paris"), "It is Paris.", "It is Rome."),
    "contains_case": (JudgeSpec(kind="contains", text="Paris", ignore_case=False), "Paris", "paris"),
    "regex": (JudgeSpec(kind="regex", text=r"^\d{4}$"), "2026", "26"),
    "json_schema": (
        JudgeSpec(kind="json_schema", json_schema=ORDER),
        '```json\n{"id": 7, "lines": ["a"], "state": "paid"}\n```',
        '{"id": 0, "lines": ["a"]}',
    ),
    "refusal": (
        JudgeSpec(kind="refusal"),
        "Sorry is a word of Old English.",
        "I'm sorry, but I can't help with that.",
    ),
    "length": (JudgeSpec(kind="length", max_chars=20), "short", "long " * 10),
}


class TestScriptedJudge(JudgeConformance):
    @pytest.fixture
    def judge(self) -> ScriptedJudge:
        return ScriptedJudge("told", {"yes": 1.0})

    @pytest.fixture
    def good(self) -> str:
        return "yes"

    @pytest.fixture
    def bad(self) -> str:
        return "no"


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
class TestRuleJudge(JudgeConformance):
    @pytest.fixture
    def judge(self, rule: tuple[JudgeSpec, str, str]) -> RuleJudge:
        return RuleJudge("rule", rule[0])

    @pytest.fixture
    def good(self, rule: tuple[JudgeSpec, str, str]) -> str:
        return rule[1]

    @pytest.fixture
    def bad(self, rule: tuple[JudgeSpec, str, str]) -> str:
        return rule[2]
