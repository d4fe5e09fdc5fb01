"""
Schemas that no value can meet by their own words: found before an engine is asked to hold an answer to one.

Not every such schema is found, for that is as hard as any question; those are that an engine
cannot be trusted with. llama.cpp's grammar for a text of at least 5 and at most 2 letters
never ends: it took 17 GB in a minute, and no deadline reached it. So it is looked for as
llama.cpp reads a schema: counts of 32 bits, counts in a pattern, references to any place.
"""

import re
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
_MOST = 2**31 - 1
_OPENING = re.compile(r"\{\s*\+?(\d+)", re.ASCII)
_CLOSING = re.compile(r"\s*\+?(\d+)", re.ASCII)
_PLACE = re.compile(r"\s*([+-]?)0*(\d{0,20})", re.ASCII)
_ONE = (
    *("items", "contains", "additionalProperties", "unevaluatedItems", "unevaluatedProperties"),
    *("propertyNames", "not", "if", "then", "else"),
)
_SEVERAL = ("prefixItems", "anyOf", "oneOf", "allOf", "items")
_NAMED = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")


def fault_of_schema(schema: Any) -> tuple[str, str] | None:
    """The path of the first schema that cannot be met, from `$` on, and why not; None where there is none."""
    waiting: list[tuple[str, Any]] = [("$", schema)]
    seen: set[int] = set()
    while waiting:
        path, one = waiting.pop()
        if not isinstance(one, Mapping) or id(one) in seen:
            continue
        seen.add(id(one))
        if fault := _fault(one):
            return path, fault
        waiting.extend(_within(path, one))
        reference = one.get("$ref")
        if isinstance(reference, str) and reference.startswith("#/"):
            waiting.extend((reference, target) for target in _led_to(schema, reference))
    return None


def _fault(schema: Mapping[str, Any]) -> str:
    kinds = schema.get("type", [])
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if not isinstance(kind, str) or kind not in KINDS:
            return f"{str(kind)[:40]!r} is no type of JSON; it is one of {', '.join(sorted(KINDS))}"
    for name in _COUNTS & schema.keys():
        if not _is_number(schema[name]) or not 0 <= schema[name] <= _MOST:
            return f"{name} is a count, 0 to {_MOST}; leave it out where nothing is to be bounded"
    for least, most in _BOUNDS:
        low, high = schema.get(least), schema.get(most)
        if _is_number(low) and _is_number(high) and low > high:
            return f"{least} {low} is above {most} {high}, which nothing can meet"
    if isinstance(pattern := schema.get("pattern"), str) and "{" in pattern:
        return _fault_of_pattern(pattern)
    return ""


def _fault_of_pattern(pattern: str) -> str:
    """
    Of its counts, wherever they stand: readers do not agree on where a class or a count ends.

    As C reads a number: signs and space before it, and anything behind it, are passed over.
    """
    for piece in pattern.split("}")[:-1]:
        before, _, behind = piece.rpartition(",")
        most = _CLOSING.match(behind)
        if most is None:
            continue
        for least in _OPENING.findall(before, before.rfind(",") + 1):
            if _size(least) > _size(most[1]):
                return f"its pattern repeats at least {least[:20]} and at most {most[1][:20]} times"
    return ""


def _size(digits: str) -> tuple[int, str]:
    """In the order of the numbers, however long they are."""
    bare = digits.lstrip("0")
    return len(bare), bare


def _led_to(root: Any, reference: str) -> Iterator[Any]:
    """What is there, as the standard reads the steps and as llama.cpp does, to which `~1` is no escape."""
    plain = reference.split("/")[1:]
    escaped = [step.replace("~1", "/").replace("~0", "~") for step in plain]
    for steps in (plain, escaped):
        found = root
        for step in steps:
            found = _member(found, step)
        yield found


def _member(whole: Any, step: str) -> Any:
    """None where there is none. A place in a list is read as C reads a number, `0x` and `+0` as 0."""
    if isinstance(whole, Mapping):
        return whole.get(step)
    place = _PLACE.match(step)
    if not isinstance(whole, list) or place is None:
        return None
    at = int(place[1] + (place[2] or "0")) % 2**64
    return whole[at] if at < len(whole) else None


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
