"""What the library cannot read from a handler for the document: errors, `If-Match`, the spec as a body."""

from typing import Any

import msgspec

from pilothouse.http.errors import ErrorObject

Json = dict[str, Any]

_ERROR = {"$ref": "#/components/responses/Error"}
_SPEC = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "description": "The spec, whole; `pilothouse spec --schema` prints its schema.",
            }
        }
    },
}
_REVISIONED = {
    ("/admin/v1/spec", "put"): True,
    ("/admin/v1/spec/{kind}/{name}", "delete"): False,
    ("/admin/v1/deployments/{name}/scale", "put"): False,
}
"""Operations that look at `If-Match`, and whether they must have it."""


def completed(document: Json) -> Json:
    """The document, with errors as they are sent, and what is read from the request itself."""
    _, schemas = msgspec.json.schema_components([ErrorObject], ref_template="#/components/schemas/{name}")
    components = document["components"]
    components["schemas"].update(schemas)
    components["responses"] = {
        "Error": {
            "description": "What is wrong, and what to do about it.",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorObject"}}},
        }
    }
    for item in document["paths"].values():
        for operation in item.values():
            operation["responses"].pop("400", None)  # the library's own shape, which is never sent
            operation["responses"]["default"] = _ERROR
    for (path, method), is_required in _REVISIONED.items():
        document["paths"][path][method].setdefault("parameters", []).append(
            _if_match(is_required=is_required)
        )
    document["paths"]["/admin/v1/spec"]["put"]["requestBody"] = _SPEC
    return document


def _if_match(*, is_required: bool) -> Json:
    return {
        "name": "If-Match",
        "in": "header",
        "required": is_required,
        "description": "The revision that the change was made from, or `*`; another one is a conflict (409).",
        "schema": {"type": "string"},
    }
