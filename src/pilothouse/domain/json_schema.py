"""
Whether a value holds to a JSON Schema: for answers that were asked for in a form, and for judges.

All of the validation vocabulary but `format`, `dependent*`, `unevaluated*`, `contains` and references
out of the schema, which are passed over as the standard allows. A pattern is tried only
where it cannot take long on the text at hand, and a schema only for as long as it is worth.

Source: JSON Schema, draft 2020-12, core and validation vocabularies.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, TypeGuard

from pilothouse.domain.patterns import ways

Schema = dict[str, Any]

_MOST_STEPS = 50_000
"""Comparisons of a part of the value with a part of the schema: some 50 ms."""
_WAYS_A_STEP = 40
"""Of a pattern, to lie on a text."""
_COMPILING = 100
"""Steps, for any pattern; each of its characters is one more."""
_MOST_DEPTH = 100


class TooLong(Exception):
    """The schema refers to itself without end, or has too many ways."""


def fault_of(value: Any, schema: Any) -> str:
    """
    What is wrong with the value first, or "".

    Raises:
        TooLong: It was not decided in a bounded time.
    """
    return next(_Check(schema).faults(value, schema, "$", 0), "")


class _Check:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._steps = 0.0
        self._patterns: dict[str, re.Pattern[str] | None] = {}
        self._allowed: dict[int, frozenset[Any]] = {}
        """What a list of the schema allows, by its `id`."""

    def _spend(self, steps: float) -> None:
        self._steps += steps
        if self._steps > _MOST_STEPS:
            raise TooLong

    def faults(self, value: Any, schema: Any, at: str, depth: int) -> Iterator[str]:
        self._spend(1)
        if depth > _MOST_DEPTH:
            raise TooLong
        if schema is False:
            yield f"{at} is not allowed"
        if not isinstance(schema, dict):
            return
        yield from self._of_its_kind(value, schema, at)
        yield from self._combined(value, schema, at, depth + 1)
        if isinstance(value, dict):
            yield from self._members(value, schema, at, depth + 1)
        elif isinstance(value, list):
            yield from self._elements(value, schema, at, depth + 1)

    def _holds(self, value: Any, schema: Any, depth: int) -> bool:
        return next(self.faults(value, schema, "", depth), None) is None

    def _combined(self, value: Any, schema: Schema, at: str, depth: int) -> Iterator[str]:
        if isinstance(reference := schema.get("$ref"), str) and reference.startswith("#"):
            yield from self.faults(value, self._at(reference), at, depth)
        for one in _list(schema, "allOf"):
            yield from self.faults(value, one, at, depth)
        if (ways := _list(schema, "anyOf")) and not any(self._holds(value, one, depth) for one in ways):
            yield f"{at} is of none of the allowed forms"
        if (ways := _list(schema, "oneOf")) and sum(self._holds(value, one, depth) for one in ways) != 1:
            yield f"{at} is not of exactly one of the allowed forms"
        if "not" in schema and self._holds(value, schema["not"], depth):
            yield f"{at} is of a form that is not allowed"
        if "if" in schema:
            branch = "then" if self._holds(value, schema["if"], depth) else "else"
            yield from self.faults(value, schema.get(branch), at, depth)

    def _at(self, reference: str) -> Any:
        """The part of the schema that a reference leads to; what is not there allows everything."""
        found = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            elif isinstance(found, dict):
                found = found.get(name)
            else:
                return None
        return found

    def _members(self, value: Schema, schema: Schema, at: str, depth: int) -> Iterator[str]:
        required = _list(schema, "required")
        self._spend(len(required))
        missing = [name for name in required if isinstance(name, str) and name not in value]
        if missing:
            yield f"{at}.{missing[0][:64]} is missing"
        known = _dict(schema, "properties")
        patterns = _dict(schema, "patternProperties")
        for name, one in value.items():
            place = f"{at}.{name[:64]}"
            named = [form for pattern, form in patterns.items() if self._lies_on(pattern, name) is True]
            if name in known:
                named.append(known[name])
            elif not named and "additionalProperties" in schema:
                named.append(schema["additionalProperties"])
            if "propertyNames" in schema:
                yield from self.faults(name, schema["propertyNames"], place, depth)
            for form in named:
                yield from self.faults(one, form, place, depth)

    def _elements(self, value: list[Any], schema: Schema, at: str, depth: int) -> Iterator[str]:
        first = _list(schema, "prefixItems")
        for i, one in enumerate(value):
            form = first[i] if i < len(first) else schema.get("items")
            yield from self.faults(one, form, f"{at}[{i}]", depth)
        if schema.get("uniqueItems") is True and len({self._key(one) for one in value}) < len(value):
            yield f"{at} has the same element twice"

    def _of_its_kind(self, value: Any, schema: Schema, at: str) -> Iterator[str]:
        """What needs no look inside."""
        types = schema.get("type")
        named = types if isinstance(types, list) else [types]
        allowed = [one for one in named if isinstance(one, str) and one in _TYPES]
        if allowed and not any(_TYPES[one](value) for one in allowed):
            yield f"{at} is not of type {' or '.join(allowed)}"
        if "enum" in schema and self._key(value) not in self._keys(_list(schema, "enum")):
            yield f"{at} is none of the allowed values"
        if "const" in schema and self._key(value) != self._key(schema["const"]):
            yield f"{at} is not the constant"
        if _is_out_of_bounds(value, schema):
            yield f"{at} is out of its bounds"
        if isinstance(value, str) and self._lies_on(schema.get("pattern"), value) is False:
            yield f"{at} does not match its pattern"

    def _lies_on(self, pattern: Any, text: str) -> bool | None:
        """None for what is no pattern, or one that could take too long on this text."""
        if not isinstance(pattern, str):
            return None
        steps = ways(pattern, len(text)) / _WAYS_A_STEP
        if steps > _MOST_STEPS:
            return None
        if pattern not in self._patterns:
            self._spend(_COMPILING + len(pattern))
            self._patterns[pattern] = _compiled(pattern)
        compiled = self._patterns[pattern]
        self._spend(steps)
        return None if compiled is None else compiled.search(text) is not None

    def _keys(self, values: list[Any]) -> frozenset[Any]:
        if id(values) not in self._allowed:
            self._allowed[id(values)] = frozenset(self._key(one) for one in values)
        return self._allowed[id(values)]

    def _key(self, value: Any, depth: int = 0) -> Any:
        """The same for values that JSON calls the same: 1 and 1.0 are, 1 and true are not."""
        self._spend(1)
        if depth > _MOST_DEPTH:
            raise TooLong
        if isinstance(value, dict):
            return ("object", frozenset((name, self._key(one, depth + 1)) for name, one in value.items()))
        if isinstance(value, list):
            return ("array", tuple([self._key(one, depth + 1) for one in value]))
        return (isinstance(value, bool), value)


def _is_out_of_bounds(value: Any, schema: Schema) -> bool:
    if _is_number(value):
        low, high = schema.get("minimum"), schema.get("maximum")
        above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
        step = schema.get("multipleOf")
        return (
            (_is_number(low) and value < low)
            or (_is_number(high) and value > high)
            or (_is_number(above) and value <= above)
            or (_is_number(below) and value >= below)
            or (_is_number(step) and step > 0 and abs(value / step - round(value / step)) > 1e-9)
        )
    if isinstance(value, str):
        least, most = schema.get("minLength"), schema.get("maxLength")
    elif isinstance(value, list):
        least, most = schema.get("minItems"), schema.get("maxItems")
    elif isinstance(value, dict):
        least, most = schema.get("minProperties"), schema.get("maxProperties")
    else:
        return False
    return (_is_number(least) and len(value) < least) or (_is_number(most) and len(value) > most)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": _is_number,
    "integer": lambda value: _is_number(value) and value == value // 1,
}


def _compiled(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return None


def _list(schema: Schema, word: str) -> list[Any]:
    found = schema.get(word)
    return found if isinstance(found, list) else []


def _dict(schema: Schema, word: str) -> Schema:
    found = schema.get(word)
    return found if isinstance(found, dict) else {}
