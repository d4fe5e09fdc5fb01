import pytest

from pilothouse.domain.judging import judge_faults
from pilothouse.domain.spec import JudgeSpec


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        (JudgeSpec(kind="contains"), "text:"),
        (JudgeSpec(kind="regex", text="("), "no pattern"),
        (JudgeSpec(kind="regex", text="(a+)+$"), "forever"),
        (JudgeSpec(kind="regex", text="(a|aa)*b"), "forever"),
        (JudgeSpec(kind="regex", text="a" * 2000), "1000 characters"),
        (JudgeSpec(kind="length", min_chars=5, max_chars=1), "no range"),
        (JudgeSpec(kind="json_schema", json_schema={"oneOf": []}), "oneOf: not known"),
        (JudgeSpec(kind="json_schema", json_schema={"type": "text"}), "'text' is none of"),
        (JudgeSpec(kind="json_schema", json_schema={"items": {"minimum": "a"}}), "json_schema.items.minimum"),
        (JudgeSpec(kind="json_schema", json_schema={"properties": []}), "right type"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_with_its_place(spec: JudgeSpec, word: str):
    faults = list(judge_faults(spec))

    assert len(faults) == 1
    assert word in faults[0]


@pytest.mark.parametrize(
    "spec",
    [
        JudgeSpec(kind="refusal"),
        JudgeSpec(kind="regex", text=r"\((a|b)\)+ [0-9]{2,4}"),
        JudgeSpec(kind="json_schema", json_schema={"type": "object", "properties": {"a": {"type": "null"}}}),
    ],
)
def test_a_rule_that_makes_sense_is_taken(spec: JudgeSpec):
    assert list(judge_faults(spec)) == []
