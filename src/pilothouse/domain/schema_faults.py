"""
Schemas that no value can meet by their own words: found before an engine is asked to hold an answer to one.

Not every such schema is found, for that is as hard as any question; those are that an engine
cannot be trusted with. llama.cpp's grammar for a text of at least 5 and at most 2 letters
never ends: it took 17 GB in a minute, and no deadline reached it.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

KINDS = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_BOUNDS = (
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minContains", "maxContains"),
    ("minProperties", "maxProperties"),
    ("minimum", "maximum"),
)
_COUNTS = frozenset(name for pair in _BOUNDS[:-1] for name in pair)
_ONE = (
    *("items", "contains", "additionalProperties", "unevaluatedItems", "unevaluatedProperties"),
    *("propertyNames", "not", "if", "then", "else"),
)
_SEVERAL = ("prefixItems", "anyOf", "oneOf", "allOf", "items")
_NAMED = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")


def fault_of_schema(schema: Any) -> tuple[str, str] | None:
    """The path of the first schema that cannot be met, from `$` on, and why not; None where there is none."""
    waiting: list[tuple[str, Any]] = [("$", schema)]
    while waiting:
        path, one = waiting.pop()
        if not isinstance(one, Mapping):
            continue
        if fault := _fault(one):
            return path, fault
        waiting.extend(_within(path, one))
    return None


def _fault(schema: Mapping[str, Any]) -> str:
    kinds = schema.get("type", [])
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if not isinstance(kind, str) or kind not in KINDS:
            return f"{str(kind)[:40]!r} is no type of JSON; it is one of {', '.join(sorted(KINDS))}"
    for name in _COUNTS & schema.keys():
        if not _is_number(schema[name]) or schema[name] < 0:
            return f"{name} is a count, 0 or more"
    for least, most in _BOUNDS:
        low, high = schema.get(least), schema.get(most)
        if _is_number(low) and _is_number(high) and low > high:
            return f"{least} {low} is above {most} {high}, which nothing can meet"
    return ""


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _within(path: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in _ONE:
        if name in schema:
            yield f"{path}.{name}", schema[name]
    for name in _SEVERAL:
        if isinstance(given := schema.get(name), list):
            yield from ((f"{path}.{name}[{i}]", one) for i, one in enumerate(given))
    for name in _NAMED:
        if isinstance(named := schema.get(name), Mapping):
            yield from ((f"{path}.{name}.{key}", one) for key, one in named.items())
