"""Answers against schemas: as the published validator says it, and never without an end."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pilothouse.domain.json_schema import TooLong, fault_of

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-4, 4)
    | st.sampled_from([0.5, 1.0, -2.0])
    | st.text("ab1", max_size=3),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.sampled_from("abc"), children, max_size=3)
    ),
    max_leaves=5,
)
TYPES = st.sampled_from(["object", "array", "string", "boolean", "null", "number", "integer"])
SIZES = st.integers(0, 3)


def _schemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3)
    words = {
        "type": TYPES | st.lists(TYPES, min_size=1, max_size=2, unique=True),
        "enum": st.lists(VALUES, min_size=1, max_size=3),
        "const": VALUES,
        "minimum": st.integers(-3, 3),
        "exclusiveMaximum": st.integers(-3, 3),
        "multipleOf": st.sampled_from([1, 2, 0.5]),
        "minLength": SIZES,
        "maxItems": SIZES,
        "minProperties": SIZES,
        "pattern": st.sampled_from(["^a", "b$", "[0-9]"]),
        "uniqueItems": st.booleans(),
        "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
        "patternProperties": st.dictionaries(st.sampled_from(["^a", "b"]), inner, max_size=1),
        "propertyNames": inner,
        "required": st.lists(st.sampled_from("abc"), max_size=2, unique=True),
        "additionalProperties": inner,
        "items": inner,
        "prefixItems": several,
        "anyOf": several,
        "oneOf": several,
        "allOf": several,
        "not": inner,
        "if": inner,
        "then": inner,
        "else": inner,
    }
    return st.fixed_dictionaries({}, optional=words)


SCHEMAS = st.recursive(st.booleans(), _schemas, max_leaves=6)


@settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
@given(value=VALUES, schema=SCHEMAS)
def test_it_says_what_the_published_validator_says(value: Any, schema: Any) -> None:
    assert (fault_of(value, schema) == "") == Draft202012Validator(schema).is_valid(value)


@settings(deadline=None, max_examples=200)
@given(
    value=VALUES, schema=st.dictionaries(st.sampled_from(["type", "items", "not", "$ref", "enum"]), VALUES)
)
def test_a_schema_that_is_none_fails_nothing_but_the_value(value: Any, schema: Any) -> None:
    try:
        assert isinstance(fault_of(value, schema), str)
    except TooLong:
        pass


def test_a_form_is_found_where_it_is_named() -> None:
    schema = {"$defs": {"n/a": {"type": "integer"}}, "items": {"$ref": "#/$defs/n~1a"}}

    assert fault_of([1, 2], schema) == ""
    assert fault_of([1, "x"], schema) == "$[1] is not of type integer"


def test_the_place_of_a_fault_is_said() -> None:
    schema = {"properties": {"a": {"type": "array", "items": {"required": ["b"]}}}}

    assert fault_of({"a": [{"b": 1}, {}]}, schema) == "$.a[1].b is missing"


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#/x"}], "x": {"anyOf": [{"$ref": "#/x"}]}},
    ],
)
def test_a_schema_without_an_end_is_given_up(schema: Any) -> None:
    with pytest.raises(TooLong):
        fault_of([1] * 100, schema)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("^(a+)+$", "a" * 60 + "!"),
        ("^((a+))+$", "a" * 60 + "!"),
        ("^((a|b)c?)*$", "ac" * 30 + "!"),
        ("a?" * 40 + "a" * 40, "a" * 39),
        ("(a|aa)" * 40 + "$", "a" * 60 + "!"),
        (".*.*.*.*b", "a" * 2000),
        ("^" + "a{0,99}" * 9 + "b", "a" * 2000),
    ],
)
def test_a_pattern_that_could_take_forever_is_not_tried(pattern: str, text: str) -> None:
    assert fault_of(text, {"pattern": pattern}) == ""


@pytest.mark.parametrize(
    "pattern",
    [
        r"^\d{4}-\d{2}-\d{2}$",
        r"^[^@\s]+@[^@\s]+\.[^@\s]+$",
        r"^(red|green|blue)$",
        r"^\+?[0-9]{7,15}$",
        "[0-9]+",
        r"^https?://[^\s/]+(/[a-z]*)?$",
    ],
)
def test_a_usual_pattern_is_tried(pattern: str) -> None:
    assert fault_of("! " * 20, {"pattern": pattern}) == "$ does not match its pattern"


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        (["z"] * 40_000, {"items": {"enum": [*map(str, range(3000)), "z"]}}),
        (["z"] * 40_000, {"items": {"not": {"const": [[1] * 100] * 100}}}),
        ([{}] * 1000, {"items": {"not": {"required": [*map(str, range(3000))]}}}),
        ([{"z": 1}] * 1000, {"items": {"patternProperties": {f"[0-{i}]+q": True for i in range(999)}}}),
        (["a" * 90] * 1000, {"items": {"not": {"pattern": ".*.*b$"}}}),
    ],
)
def test_a_schema_with_too_much_to_compare_is_given_up(value: Any, schema: Any) -> None:
    with pytest.raises(TooLong):
        fault_of(value, schema)
