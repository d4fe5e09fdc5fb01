"""
Whether a judge's rule makes sense, before an answer is scored by it.
"""

import re
from collections.abc import Iterator
from typing import Any

from pilothouse.domain.patterns import MOST_CHARS, may_take_forever
from pilothouse.domain.spec import JudgeSpec

SCHEMA_WORDS = frozenset(
    {
        "type", "enum", "const", "properties", "required", "items", "additionalProperties",
        "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems",
        "title", "description", "$schema",
    }
)  # fmt: skip
"""The part of JSON Schema that is known; another word is refused, for it would be passed over."""
SCHEMA_TYPES = frozenset({"object", "array", "string", "boolean", "null", "number", "integer"})
_MOST_DEPTH = 16


def judge_faults(spec: JudgeSpec) -> Iterator[str]:
    """Each fault with its field and the fix."""
    if spec.kind in ("exact", "contains", "regex") and not spec.text:
        yield f"text: a judge of kind {spec.kind} needs one"
    if spec.kind == "regex":
        yield from _pattern_faults(spec.text)
    if spec.kind == "json_schema":
        yield from _schema_faults(spec.json_schema, "json_schema", 0)
    if spec.kind == "length" and not 0 <= spec.min_chars <= spec.max_chars:
        yield f"min_chars: {spec.min_chars} and max_chars {spec.max_chars} are no range"


def _pattern_faults(text: str) -> Iterator[str]:
    if len(text) > MOST_CHARS:
        yield f"text: a pattern has at most {MOST_CHARS} characters"
        return
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as exc:
        yield f"text: it is no pattern of Python's re: {exc}"
        return
    if may_take_forever(text):
        yield "text: a repeated group that repeats or chooses inside can take forever; write it without"


def _schema_faults(schema: Any, at: str, depth: int) -> Iterator[str]:
    if not isinstance(schema, dict) or depth > _MOST_DEPTH:
        yield f"{at}: an object of at most {_MOST_DEPTH} levels is needed"
        return
    for word in sorted(schema.keys() - SCHEMA_WORDS):
        yield f"{at}.{word[:64]}: not known; there are: {', '.join(sorted(SCHEMA_WORDS))}"
    types = schema.get("type", [])
    for one in types if isinstance(types, list) else [types]:
        if one not in SCHEMA_TYPES:
            yield f"{at}.type: {str(one)[:64]!r} is none of {', '.join(sorted(SCHEMA_TYPES))}"
    for word, kind in (("properties", dict), ("required", list), ("enum", list)):
        if word in schema and not isinstance(schema[word], kind):
            yield f"{at}.{word}: it is not of the right type"
            return
    for word in ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"):
        if not isinstance(schema.get(word, 0), int | float):
            yield f"{at}.{word}: it is not a number"
    for name, inner in schema.get("properties", {}).items():
        yield from _schema_faults(inner, f"{at}.properties.{name[:64]}", depth + 1)
    if "items" in schema:
        yield from _schema_faults(schema["items"], f"{at}.items", depth + 1)
