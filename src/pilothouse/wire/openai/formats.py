"""
Whether an answer holds to the form that was asked for: `response_format`, and tools that are `strict`.

Engines that enforce a form keep to it by themselves; not all do, and none says so of
each schema. So every answer is looked at before it is called good. One that was
cut, refused or filtered says that itself, and is not looked at.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from pilothouse.domain.chat import Sampling
from pilothouse.domain.chunk import Delta
from pilothouse.domain.errors import AnswerUnfit, InvalidRequest
from pilothouse.domain.json_schema import TooLong, fault_of
from pilothouse.domain.schema_faults import fault_of_schema
from pilothouse.wire.openai import tools
from pilothouse.wire.openai.fields import sub_read


class _Form(Struct, forbid_unknown_fields=True):
    schema: Any = None
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class _Format(Struct):
    type: str
    json_schema: _Form | None = None


_decode = msgspec.json.Decoder(_Format).decode


def check_asked(sampling: Sampling) -> None:
    """
    Raises:
        InvalidRequest: Nothing can be in the form that is asked for.
    """
    if sampling.response_format is not None:
        form: _Format = sub_read(sampling.response_format, _decode, "response_format")
        if form.type == "json_schema" and form.json_schema is None:
            raise InvalidRequest(
                "response_format.json_schema is required with type json_schema",
                param="response_format.json_schema",
            )
        if form.json_schema is not None:
            _check_schema(form.json_schema.schema, "response_format")
    if sampling.tools is not None:
        for i, tool in enumerate(tools.decode(sampling.tools)):
            _check_schema(tool.function.parameters, f"tools[{i}]")


def _check_schema(schema: Any, field: str) -> None:
    if found := fault_of_schema(schema):
        raise InvalidRequest(f"{field}: the schema at {found[0][:200]}: {found[1]}", param=field)


def check(sampling: Sampling, choices: Sequence[Delta]) -> None:
    """
    Args:
        choices: One a choice, each with all of its text.

    Raises:
        AnswerUnfit: One of them is not what was asked for.
        InvalidRequest: The schema cannot be tried in a bounded time.
    """
    if sampling.tools is not None:
        _check_calls(sampling, choices)
    if sampling.response_format is None:
        return
    form = _decode(sampling.response_format)
    if form.type == "text":
        return
    schema = form.json_schema.schema if form.json_schema is not None else None
    for choice in choices:
        aside = choice.aside
        if choice.finish_reason not in (None, "stop") or (aside and (aside.tools or aside.refusal)):
            continue
        value = _value(choice.text, "response_format")
        if schema is None:
            if form.type == "json_object" and not isinstance(value, dict):
                raise _unfit("response_format", "it is no JSON object")
        elif fault := _fault(value, schema, "response_format"):
            raise _unfit("response_format", fault)


def _check_calls(sampling: Sampling, choices: Sequence[Delta]) -> None:
    called = [call for choice in choices if choice.aside for call in choice.aside.tools]
    if not called or sampling.tools is None or b'"strict"' not in bytes(sampling.tools):
        return
    strict = {
        tool.function.name: tool.function.parameters or {}
        for tool in tools.decode(sampling.tools)
        if tool.function.strict
    }
    finished = all(choice.finish_reason in (None, "stop", "tool_calls") for choice in choices)
    for call in called if finished else ():
        if call.name in strict:
            value = _value(call.arguments or "{}", "tools")
            if fault := _fault(value, strict[call.name], "tools"):
                raise _unfit("tools", f"the arguments of {call.name}: {fault}")


def _value(text: str, field: str) -> Any:
    try:
        return msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
        raise _unfit(field, "it is no JSON") from exc


def _fault(value: Any, schema: Any, field: str) -> str:
    try:
        return fault_of(value, schema)
    except TooLong as exc:
        raise InvalidRequest(
            f"{field}: the schema takes too long to try; it refers to itself or has too many ways",
            param=field,
        ) from exc


def _unfit(field: str, fault: str) -> AnswerUnfit:
    return AnswerUnfit(f"the model's answer is not in the form that {field} asks for: {fault}; ask again")
