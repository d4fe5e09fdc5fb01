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
    ],
)
def test_what_nothing_can_meet_is_found_with_its_place(schema: Any, path: str, why: str) -> None:
    found = fault_of_schema(schema)

    assert found is not None
    assert found[0] == path
    assert why in found[1]


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
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "items", "properties", "anyOf", "maxLength", "minLength", "$defs", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_whatever_it_is_given_it_comes_to_an_end(schema: Any) -> None:
    fault_of_schema(schema)
