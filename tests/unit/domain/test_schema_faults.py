from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.schema_faults import fault_of_schema

TEXT = {"type": "string", "minLength": 5, "maxLength": 2}


@pytest.mark.parametrize(
    ("schema", "path", "why"),
    [
        (TEXT, "$", "minLength 5 is above maxLength 2"),
        ({"type": "object", "properties": {"type": TEXT}}, "$.properties.type", "minLength"),
        ({"items": {"anyOf": [{}, {"minItems": 3, "maxItems": 1}]}}, "$.items.anyOf[1]", "minItems 3"),
        ({"$defs": {"a": {"minimum": 2, "maximum": 1.5}}}, "$.$defs.a", "minimum 2 is above maximum 1.5"),
        ({"additionalProperties": {"type": "wat"}}, "$.additionalProperties", "'wat' is no type of JSON"),
        ({"type": ["string", "nil"]}, "$", "'nil'"),
        ({"maxLength": -1}, "$", "maxLength is a count"),
        ({"maxItems": "many"}, "$", "maxItems is a count"),
        ({"minLength": 2**32 + 5, "maxLength": 2**33 + 2}, "$", "Length is a count, 0 to 2147483647"),
        ({"minLength": 5, "maxLength": 2**32 + 1}, "$", "maxLength is a count"),
    ],
)
def test_what_nothing_can_meet_is_found_with_its_place(schema: Any, path: str, why: str) -> None:
    found = fault_of_schema(schema)

    assert found is not None
    assert found[0] == path
    assert why in found[1]


@pytest.mark.parametrize(
    "pattern",
    [
        "^a{5,2}$",
        "^a{ +5x, 2y}$",
        "^a{0000000000005,2}$",
        "^a{5{,2}$",
        "^a{1,2}(b{1,3}c){7,3}$",
        "^[]a{5,2}$",
    ],
)
def test_counts_of_a_pattern_that_contradict_each_other_are_found(pattern: str) -> None:
    found = fault_of_schema({"items": {"pattern": pattern}})

    assert found is not None
    assert found[0] == "$.items"
    assert "its pattern repeats at least" in found[1]


@pytest.mark.parametrize(
    "pattern",
    ["^a{2,5}$", "^a{5,}$", "^a{5}$", "^a{,2}$", "^[a-z]{1,9}-[0-9]{10,10}$", "{}", "},1}", "{5", "{a,1}"],
)
def test_counts_of_a_pattern_that_can_be_met_are_left_alone(pattern: str) -> None:
    assert fault_of_schema({"type": "string", "pattern": pattern}) is None


@pytest.mark.parametrize(
    ("reference", "beside"),
    [
        ("#/x", {"x": TEXT}),
        ("#/default", {"default": TEXT}),
        ("#/a~1b", {"a/b": TEXT}),
        ("#/a~1b", {"a~1b": TEXT, "a/b": {}}),
        ("#/enum/0", {"enum": [TEXT]}),
        ("#/enum/+0x", {"enum": [TEXT]}),
        ("#/enum/-18446744073709551615", {"enum": [1, TEXT]}),
        ("#/x/y", {"x": {"y": {"$ref": "#/z"}}, "z": TEXT}),
    ],
)
def test_a_reference_is_followed_to_any_place(reference: str, beside: dict[str, Any]) -> None:
    found = fault_of_schema({"properties": {"a": {"$ref": reference}}, **beside})

    assert found is not None
    assert "minLength 5 is above maxLength 2" in found[1]


def test_references_that_go_round_or_nowhere_come_to_an_end() -> None:
    schema = {"a": {"$ref": "#/b"}, "b": {"$ref": "#/a"}, "items": {"$ref": "#/a"}, "enum": [1]}
    there = [{"$ref": place} for place in ("#/none/x", "#/enum/9", "#/enum/" + "1" * 5000, "#other", "#")]

    assert fault_of_schema({**schema, "allOf": there}) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"type": {"type": "string"}, "maxLength": {"type": "integer"}}},
        {"enum": [{"type": "wat", "minLength": 9, "maxLength": 1}]},
        {"const": TEXT, "default": TEXT},
        {"type": "string", "minLength": 2, "maxLength": 2},
        {"items": [{"type": "null"}], "not": True},
        True,
        None,
    ],
)
def test_what_can_be_met_is_left_alone(schema: Any) -> None:
    assert fault_of_schema(schema) is None


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["#/x", "#/items/0", "{5,2}"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "items", "properties", "anyOf", "maxLength", "minLength", "$defs", "pattern", "$ref"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_whatever_it_is_given_it_comes_to_an_end(schema: Any) -> None:
    fault_of_schema(schema)
