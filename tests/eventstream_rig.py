"""Writes messages of `application/vnd.amazon.eventstream`, as a server does."""

import json
from struct import pack
from typing import Any
from zlib import crc32


def framed(headers: bytes, payload: bytes) -> bytes:
    prelude = pack(">II", 16 + len(headers) + len(payload), len(headers))
    data = prelude + pack(">I", crc32(prelude)) + headers + payload
    return data + pack(">I", crc32(data))


def header(name: str, value: str) -> bytes:
    known, said = name.encode(), value.encode()
    return pack(">B", len(known)) + known + pack(">BH", 7, len(said)) + said


def event(kind: str, payload: dict[str, Any]) -> bytes:
    heads = [(":event-type", kind), (":content-type", "application/json"), (":message-type", "event")]
    return framed(b"".join(header(*one) for one in heads), json.dumps(payload, ensure_ascii=False).encode())


def fault(kind: str, message: str) -> bytes:
    """An exception within a stream."""
    heads = [(":exception-type", kind), (":content-type", "application/json"), (":message-type", "exception")]
    return framed(b"".join(header(*one) for one in heads), json.dumps({"message": message}).encode())
