"""Requests of the load test over HTTP: chat completions of generated prompts, streamed or not."""

import json
import socket
import time
from collections.abc import Sequence
from itertools import pairwise
from random import Random
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from pilothouse.cli.client import Server, error_of
from pilothouse.cli.load import OK, Answer
from pilothouse.domain.errors import ServerUnreachable
from pilothouse.kit.http1.client import Client, Exchange, HttpFailure, request_bytes
from pilothouse.kit.http1.peer import Address, Timeouts
from pilothouse.kit.http1.sweep import Sweeper
from pilothouse.kit.sse import EventParser, EventTooLarge

MAX_ANSWER_BYTES = 16 * 1024 * 1024
_WORDS = ["harbour", "light", "wind", "keel", "anchor", "tide", "sail", "chart", "star", "signal", "north"]


class Question(Struct, frozen=True, kw_only=True):
    """What every request asks."""

    endpoint: str
    prompt_bytes: int = 64
    max_tokens: int = 32
    stream: bool = False
    timeout_s: float = 120.0


class _Delta(Struct, frozen=True):
    content: str | None = None


class _Choice(Struct, frozen=True):
    delta: _Delta = _Delta()


class _Cached(Struct, frozen=True):
    cached_tokens: int = 0


class _Usage(Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Cached | None = None

    @property
    def computed(self) -> int:
        """Tokens of the prompt that the engine did not have already."""
        cached = self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else 0
        return max(self.prompt_tokens - cached, 0)


class _Event(Struct, frozen=True):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: dict[str, object] | None = None


_decode_event = msgspec.json.Decoder(_Event).decode


def prompt(number: int, size_bytes: int) -> str:
    """A text of that size which no other number has, from its beginning on: no cache helps."""
    random = Random(number)  # noqa: S311 - load, no secret
    text = f"{number}:"
    while len(text) < size_bytes:
        text += " " + random.choice(_WORDS)
    return text[: max(size_bytes, 1)]


class HttpTransport:
    """Chat completions on one server."""

    def __init__(self, server: Server, question: Question, *, address: Address, sweeper: Sweeper) -> None:
        self._question = question
        self._client = Client(address, sweeper, tls=server.tls_context(), max_idle=4096, max_idle_s=60.0)
        self._path = f"{server.path_prefix}/v1/chat/completions"
        self._host = urlsplit(server.url).netloc
        key = f"authorization: Bearer {server.api_key}\r\n" if server.api_key else ""
        self._headers = f"content-type: application/json\r\n{key}".encode()
        self._timeouts = Timeouts(first_byte_s=question.timeout_s, idle_s=question.timeout_s)

    def close(self) -> None:
        self._client.close()

    async def ask(self, number: int) -> Answer:
        question = self._question
        body: dict[str, object] = {
            "model": question.endpoint,
            "messages": [{"role": "user", "content": prompt(number, question.prompt_bytes)}],
            "max_tokens": question.max_tokens,
        }
        if question.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        data = request_bytes("POST", self._path, self._host, self._headers, msgspec.json.encode(body))
        try:
            exchange = await self._client.request(data, self._timeouts, total_s=question.timeout_s)
        except HttpFailure as exc:
            return _ended("timeout" if exc.timed_out else f"{exc.stage}_failed")
        try:
            if exchange.status >= 400:
                return _ended(_code_of(await exchange.read_all(MAX_ANSWER_BYTES), exchange.status))
            return await (_streamed(exchange) if question.stream else _whole(exchange))
        except HttpFailure as exc:
            return _ended("timeout" if exc.timed_out else "cut")
        except (EventTooLarge, msgspec.DecodeError):
            return _ended("nonsense")
        finally:
            exchange.release()


async def _whole(exchange: Exchange) -> Answer:
    event = _decode_event(await exchange.read_all(MAX_ANSWER_BYTES))
    return _ended(OK, usage=event.usage or _Usage())


async def _streamed(exchange: Exchange) -> Answer:
    parser = EventParser()
    times: list[float] = []
    usage = _Usage()
    is_done = False
    while data := await exchange.read():
        now = time.perf_counter()
        for text in parser.feed(data):
            if text == b"[DONE]":
                is_done = True
                continue
            event = _decode_event(text)
            if event.error is not None:
                return _ended(str(event.error.get("code") or "error"), times=times)
            if event.usage:
                usage = event.usage
            if any(choice.delta.content for choice in event.choices):
                times.append(now)
    return _ended(OK if is_done else "cut", times=times, usage=usage)


def _ended(code: str, *, times: Sequence[float] = (), usage: _Usage = _Usage()) -> Answer:  # noqa: B008 - frozen
    return Answer(
        code=code,
        ended_s=time.perf_counter(),
        first_s=times[0] if times else None,
        prompt_tokens=usage.computed,
        tokens=usage.completion_tokens or len(times),
        gaps_s=tuple(after - before for before, after in pairwise(times)),
    )


def _code_of(body: bytes, status: int) -> str:
    try:
        found = json.loads(body)
    except ValueError:
        return f"status_{status}"
    return error_of(found, status).code


def resolve(host: str, port: int, *, tls: bool) -> Address:
    """
    The first address of a host.

    Raises:
        ServerUnreachable: It has none.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise ServerUnreachable(f"{host} cannot be resolved: {exc}. fix: check the URL") from exc
    return Address(host=str(found[0][4][0]), port=port, tls=tls, server_name=host)
