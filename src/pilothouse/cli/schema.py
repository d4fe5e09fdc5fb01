"""
The JSON Schema of spec files, for editors: shapes from the types, texts from under their fields.

The one idea: nobody keeps it by hand, so that it says what the reader does.
"""

import ast
import inspect
from typing import Any

import msgspec

from pilothouse.domain import limits
from pilothouse.domain import spec as shapes
from pilothouse.domain.spec import Spec

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def spec_schema() -> dict[str, Any]:
    """The schema, with the meaning of each field as its description."""
    made = msgspec.json.schema(Spec)
    meanings = _meanings()
    for name, kind in made["$defs"].items():
        for field, facts in kind.get("properties", {}).items():
            if text := meanings.get((name, field)):
                # Beside a reference a description is fine since draft 2019-09.
                facts["description"] = text
        if kind.get("required") == []:
            del kind["required"]
    return {"$schema": DIALECT, "title": "Pilothouse spec file", **made}


def _meanings() -> dict[tuple[str, str], str]:
    """(class, field) -> the text under the field."""
    found = {}
    sources = [node for module in (shapes, limits) for node in ast.parse(inspect.getsource(module)).body]
    for node in sources:
        if not isinstance(node, ast.ClassDef):
            continue
        for field, below in zip(node.body, node.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            ):
                found[node.name, field.target.id] = " ".join(below.value.value.split())
    return found
