"""
The part of JSON Schema that answers are checked by; `domain.judging` names it and refuses the rest.

Source: JSON Schema, draft 2020-12, validation vocabulary.
"""

from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]

_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: (
        isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    ),
}


def fault_of(value: Any, schema: Schema, at: str = "$") -> str:
    """What is wrong with the value first, or ""."""
    types = schema.get("type")
    if types is not None:
        allowed = types if isinstance(types, list) else [types]
        if not any(_TYPES[one](value) for one in allowed):
            return f"{at} is not of type {' or '.join(allowed)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{at} is none of the allowed values"
    if "const" in schema and value != schema["const"]:
        return f"{at} is not the constant"
    return _bounds(value, schema, at) or _inside(value, schema, at)


def _bounds(value: Any, schema: Schema, at: str) -> str:
    if _TYPES["number"](value):
        size, low, high = value, schema.get("minimum"), schema.get("maximum")
    elif isinstance(value, str):
        size, low, high = len(value), schema.get("minLength"), schema.get("maxLength")
    elif isinstance(value, list):
        size, low, high = len(value), schema.get("minItems"), schema.get("maxItems")
    else:
        return ""
    if (low is not None and size < low) or (high is not None and size > high):
        return f"{at} is out of its bounds"
    return ""


def _inside(value: Any, schema: Schema, at: str) -> str:
    if isinstance(value, list) and "items" in schema:
        faults = (fault_of(one, schema["items"], f"{at}[{i}]") for i, one in enumerate(value))
        return next((fault for fault in faults if fault), "")
    if not isinstance(value, dict):
        return ""
    known: dict[str, Schema] = schema.get("properties", {})
    missing = [name for name in schema.get("required", []) if name not in value]
    if missing:
        return f"{at}.{missing[0]} is missing"
    if schema.get("additionalProperties") is False and (more := sorted(value.keys() - known.keys())):
        return f"{at}.{more[0]} is not allowed"
    faults = (fault_of(value[name], one, f"{at}.{name}") for name, one in known.items() if name in value)
    return next((fault for fault in faults if fault), "")
