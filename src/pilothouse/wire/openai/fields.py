"""
Fields of a request, and what becomes of each: carried, dropped as harmless, or refused by its name.

A good request is decoded once. Only one that does not decode is taken apart, to find
the field that is wrong and to leave away those that change no answer.
"""

import difflib
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from pilothouse.domain.errors import InvalidRequest, NotSupported, PilothouseError

NULL = Raw(b"null")
"""Of fields that are carried as they are: msgspec takes Raw alone, not in a union with None."""
_OF_A_NAME = "key` in `"
"""How msgspec says that it is not about a value of an object."""
_MISSING = re.compile(r"Object missing required field `([^`]+)`")
_encode = msgspec.json.Encoder().encode


class Fates(Struct, frozen=True, kw_only=True):
    """What becomes of the published fields of a protocol that its shapes do not have."""

    harmless: frozenset[str]
    """Change no answer of ours, and are dropped."""
    not_built: frozenset[str]
    """Refused with 501 unless they are null, which asks for nothing."""
    instead: Mapping[str, str] = {}
    """Of those that are refused: what to send in their place."""

    def drops(self, name: str, value: Raw) -> bool:
        return name in self.harmless or (name in self.not_built and bytes(value) == b"null")


def read_object(body: bytes, decode: Any, shape: type[Struct], fates: Fates) -> Any:
    """
    The request as `shape`, which `decode` makes.

    Raises:
        InvalidRequest: With the field in `param`.
        NotSupported: For a field of `fates.not_built`.
    """
    try:
        return decode(body)
    except msgspec.ValidationError as exc:
        return _read_again(body, shape, fates, exc)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidRequest("the request body is not valid JSON") from exc
    except RecursionError as exc:
        raise InvalidRequest("the request body is nested too deeply") from exc


def _read_again(body: bytes, shape: type[Struct], fates: Fates, cause: msgspec.ValidationError) -> Any:
    try:
        fields = msgspec.json.decode(body, type=dict[str, Raw])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise InvalidRequest("the request body must be a JSON object") from exc
    known = {name: value for name, value in fields.items() if not fates.drops(name, value)}
    for name in known:
        if name not in shape.__struct_fields__:
            raise _unknown(name, shape, fates) from cause
    if len(known) < len(fields):
        try:
            return msgspec.json.decode(_encode(known), type=shape)
        except msgspec.ValidationError as exc:
            cause = exc
    raise invalid(str(cause), "") from cause


def _unknown(name: str, shape: type[Struct], fates: Fates) -> PilothouseError:
    shown = name[:64]
    if name in fates.not_built:
        advice = fates.instead.get(name, "leave it out")
        return NotSupported(f"{shown} is not supported in this version; {advice}", param=shown)
    near = difflib.get_close_matches(name, shape.__struct_fields__, n=1)
    hint = f"; did you mean {near[0]}?" if near else "; leave it out"
    return InvalidRequest(f"unknown field {shown!r}{hint}", param=shown)


def sub_read(raw: Raw, decode: Any, name: str) -> Any:
    """Decode the field `name`; an error names the place in it."""
    try:
        return decode(raw)
    except msgspec.ValidationError as exc:
        raise invalid(str(exc), name) from exc
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise InvalidRequest(f"{name} is not valid JSON", param=name) from exc


def invalid(message: str, prefix: str) -> InvalidRequest:
    """Turn msgspec's "... - at `$.a[0]`" into an error that names the field."""
    text, found, path = message.partition(" - at `")
    if path.startswith(_OF_A_NAME):
        text, path = f"one of its names is wrong: {text}", path.removeprefix(_OF_A_NAME)
    place = prefix + path.rstrip("`").removeprefix("$") if found else prefix
    if missing := _MISSING.fullmatch(text):
        place, text = f"{place}.{missing[1]}", "is required"
    place = place.lstrip(".")
    return InvalidRequest(f"{place}: {text}" if place else text, param=place or None)
