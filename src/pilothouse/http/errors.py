"""
Every failure of the admin API as the OpenAI error object, 404 and 500 included.

What a library says of a request is told as a message of ours; what went wrong
in our own code is logged under the request's id and told to nobody.
"""

from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import ExceptionHandlersMap, Scope
from msgspec import Struct

from pilothouse.domain.errors import Internal, InvalidRequest, NotFound, PilothouseError, RequestTooLarge
from pilothouse.http.plane import plane_of
from pilothouse.kit.ids import new_id

_LONGEST = 500


class ErrorBody(Struct, frozen=True, omit_defaults=True):
    message: str
    type: str
    param: str | None
    code: str
    faults: tuple[str, ...] = ()
    """Each thing that is wrong by itself, where there are several; a fault begins with its field."""


class ErrorObject(Struct, frozen=True):
    """`{"error": {...}}`, as the contract has it on every route."""

    error: ErrorBody


def error_object(error: PilothouseError) -> ErrorObject:
    faults = error.faults if isinstance(error, InvalidRequest) else ()
    return ErrorObject(ErrorBody(error.message, error.kind, error.param, error.code, faults))


def _answer(error: PilothouseError, *, status: int | None = None) -> Response[ErrorObject]:
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    if error.status == 401:
        headers["www-authenticate"] = 'Bearer realm="pilothouse"'
    return Response(
        error_object(error),
        status_code=status or error.status,
        headers=headers,
        media_type="application/json",
    )


def _ours(request: Request[Any, Any, Any], exc: PilothouseError) -> Response[ErrorObject]:
    if exc.level == "error":
        plane_of(request).log.failure("admin_request_failed", exc, **_where(request))
    return _answer(exc)


def _of_the_library(request: Request[Any, Any, Any], exc: HTTPException) -> Response[ErrorObject]:
    if isinstance(exc, ValidationException):
        return _answer(_invalid(exc))
    if exc.status_code == 404:
        return _answer(NotFound(f"there is nothing at {request.url.path[:100]}; see /admin/openapi.json"))
    if exc.status_code == 405:
        error = InvalidRequest(f"{request.method} is not allowed at {request.url.path[:100]}")
        return _answer(error, status=405)
    if exc.status_code == 413:
        return _answer(RequestTooLarge("the body is larger than 1 MiB"))
    if exc.status_code < 500:
        return _answer(InvalidRequest(exc.detail[:_LONGEST] or "the request cannot be understood"))
    return _defect(request, exc)


def _invalid(exc: ValidationException) -> InvalidRequest:
    """The fields at fault and what is wrong with them; never their values."""
    faults = []
    for fault in exc.extra if isinstance(exc.extra, list) else []:
        message = str(fault.get("message", "")) if isinstance(fault, dict) else str(fault)
        key = str(fault.get("key", "")) if isinstance(fault, dict) else ""
        faults.append((key, message))
    if not faults:
        return InvalidRequest("the request does not have the form of /admin/openapi.json")
    text = "; ".join(f"{key}: {message}" if key else message for key, message in faults)
    return InvalidRequest(text[:_LONGEST], param=faults[0][0] or None)


def _too_deep(request: Request[Any, Any, Any], exc: RecursionError) -> Response[ErrorObject]:  # noqa: ARG001
    return _answer(InvalidRequest("the body is nested too deeply"))


def _malformed(request: Request[Any, Any, Any], exc: msgspec.MsgspecError) -> Response[ErrorObject]:  # noqa: ARG001
    return _answer(InvalidRequest(f"the body is not what is expected here: {exc}"[:_LONGEST]))


def _defect(request: Request[Any, Any, Any], exc: Exception) -> Response[ErrorObject]:
    where = _where(request)
    plane_of(request).log.failure("admin_defect", exc, **where)
    return _answer(Internal(f"a defect of Pilothouse; the log has it under {where['request_id']}"))


def request_id_of(scope: Scope) -> str:
    """The id of this request, made at the first asking."""
    state = scope.setdefault("state", {})
    made: str = state.setdefault("request_id", "") or new_id("req_")
    state["request_id"] = made
    return made


def _where(request: Request[Any, Any, Any]) -> dict[str, object]:
    return {
        "request_id": request_id_of(request.scope),
        "method": request.method,
        "path": request.url.path[:100],
    }


EXCEPTION_HANDLERS: ExceptionHandlersMap = {
    PilothouseError: _ours,
    HTTPException: _of_the_library,
    RecursionError: _too_deep,
    msgspec.MsgspecError: _malformed,
    Exception: _defect,
}
