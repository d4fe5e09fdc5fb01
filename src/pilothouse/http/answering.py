"""Answers that no engine has a part in: JSON, typed errors, and the server's own refusals."""

from collections.abc import Callable

from pilothouse.domain.errors import InvalidRequest, Overloaded, PilothouseError, RequestTooLarge
from pilothouse.kit.http1.message import closing_response
from pilothouse.kit.http1.responder import Responder
from pilothouse.kit.ids import new_id
from pilothouse.wire.anthropic import answers as anthropic
from pilothouse.wire.dialect import JSON
from pilothouse.wire.kserve_v2 import dialect as kserve
from pilothouse.wire.ollama import answers as ollama
from pilothouse.wire.openai import answers

_REFUSALS: dict[int, type[PilothouseError]] = {413: RequestTooLarge, 431: RequestTooLarge, 503: Overloaded}
_WRITERS: tuple[tuple[str, Callable[[PilothouseError], bytes]], ...] = (
    ("/v1/messages", anthropic.write_error),
    ("/api/", ollama.write_error),
    ("/v2/", kserve.write_error),
)


def send_json(responder: Responder, status: int, body: bytes) -> None:
    responder.send(status, _lines(), body)


def send_error(
    responder: Responder,
    error: PilothouseError,
    *,
    status: int | None = None,
    headers: bytes = b"",
    write: Callable[[PilothouseError], bytes] = answers.write_error,
) -> None:
    """
    Args:
        status: Where it is another than the error's own.
        headers: Lines with their CRLF.
        write: The error as the caller's protocol has it.
    """
    lines = _lines() + answers.error_headers(error) + headers
    responder.send(status or error.status, lines, write(error))


def refusal(status: int, text: str, path: str = "") -> bytes:
    """The answer to what never became a request, in the shape of its path's protocol."""
    error = _REFUSALS.get(status, InvalidRequest)(text)
    write = next((write for begin, write in _WRITERS if path.startswith(begin)), answers.write_error)
    return closing_response(status, _lines() + answers.error_headers(error), write(error))


def _lines() -> bytes:
    return (
        f"content-type: {JSON}\r\nx-request-id: {new_id('req_')}\r\nx-pilothouse-overhead-us: 0\r\n".encode()
    )
