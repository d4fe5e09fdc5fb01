import pytest

from pilothouse.adapters.judges.rules import RuleJudge
from pilothouse.domain.json_schema import fault_of
from pilothouse.domain.spec import JudgeSpec


@pytest.mark.parametrize(
    "answer",
    [
        "I cannot help with that request.",
        "I can't do this.",
        "As an AI language model, I do not have opinions.",
        "Unfortunately, I am unable to answer.",
        "I'm not able to share that.",
        "I must decline.",
    ],
)
def test_a_refusal_is_known_by_its_beginning(answer: str):
    assert RuleJudge("r", JudgeSpec(kind="refusal")).score(answer).value == 0.0


@pytest.mark.parametrize(
    "answer",
    ["The sky is blue.", "You cannot divide by zero.", "She said: I can't come.", "Sure, here it is."],
)
def test_an_answer_that_only_speaks_of_refusing_is_none(answer: str):
    assert RuleJudge("r", JudgeSpec(kind="refusal")).score(answer).value == 1.0


@pytest.mark.parametrize(
    ("value", "schema", "fault"),
    [
        (1, {"type": "integer"}, ""),
        (1.0, {"type": "integer"}, ""),
        (1.5, {"type": "integer"}, "$ is not of type integer"),
        (True, {"type": "number"}, "$ is not of type number"),
        (None, {"type": ["string", "null"]}, ""),
        ("abc", {"maxLength": 2}, "$ is out of its bounds"),
        ([1, "a"], {"items": {"type": "number"}}, "$[1] is not of type number"),
        ({"a": {"b": 1}}, {"properties": {"a": {"required": ["c"]}}}, "$.a.c is missing"),
        ({"a": 1, "b": 2}, {"properties": {"a": {}}, "additionalProperties": False}, "$.b is not allowed"),
        ("x", {"enum": ["a", "b"]}, "$ is none of the allowed values"),
        (2, {"const": 3}, "$ is not the constant"),
        ({"anything": 1}, {}, ""),
    ],
)
def test_a_schema_is_checked_and_the_first_fault_named(value, schema, fault):
    assert fault_of(value, schema) == fault
