"""
The JSON Schema of spec files, for editors: shapes from the types, texts from under their fields.

The one idea: nobody keeps it by hand, so that it says what the reader does.
"""

import ast
import inspect
import itertools
import sys
import textwrap
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from pilothouse.domain import limits
from pilothouse.domain import spec as shapes
from pilothouse.domain.options import EngineOptions, option_faults
from pilothouse.domain.spec import DeploymentSpec, Spec

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def spec_schema(engines: Mapping[str, type[EngineOptions]]) -> dict[str, Any]:
    """
    The schema, with the meaning of each field as its description.

    Args:
        engines: What `engine_options` may hold, by engine.
    """
    roots, kinds = msgspec.json.schema_components((Spec, *engines.values()), ref_template="#/$defs/{name}")
    classes = {kind.__name__: kind for kind in engines.values()} | vars(shapes) | vars(limits)
    for shape in engines.values():  # and what its fields are made of, which its module knows by name
        classes = vars(sys.modules[shape.__module__]) | classes
    for name, kind in kinds.items():
        texts = field_texts(classes[name])
        for field, facts in kind.get("properties", {}).items():
            if field in texts:
                # Beside a reference a description is fine since draft 2019-09.
                facts["description"] = texts[field]
        if kind.get("required") == []:
            del kind["required"]
    kinds["DeploymentSpec"]["allOf"] = [
        _options_of(engine, shape, root)
        for (engine, shape), root in zip(engines.items(), roots[1:], strict=True)
    ]
    return {"$schema": DIALECT, "title": "Pilothouse spec file", **roots[0], "$defs": kinds}


def field_texts(kind: type[Struct]) -> dict[str, str]:
    """The text under each field, inherited ones included."""
    found = {}
    for owner in reversed(kind.__mro__):
        if owner is Struct or not issubclass(owner, Struct):
            continue
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        body = node.body if isinstance(node, ast.ClassDef) else []
        for field, below in itertools.pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            ):
                found[field.target.id] = " ".join(below.value.value.split())
    return found


def _options_of(engine: str, shape: type[EngineOptions], reference: dict[str, Any]) -> dict[str, Any]:
    """What `engine_options` may hold where `engine` is this one, said or by default."""
    condition: dict[str, Any] = {"properties": {"engine": {"const": engine}}}
    if engine != DeploymentSpec().engine:
        condition["required"] = ["engine"]
    then: dict[str, Any] = {"properties": {"engine_options": reference}}
    if option_faults(shape, {}):  # something has to be given, so there have to be options
        then["required"] = ["engine_options"]
    return {"if": condition, "then": then}
