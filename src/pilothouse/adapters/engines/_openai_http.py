"""
An engine behind an OpenAI-compatible HTTP API, llama.cpp's server included.

An answer that is an error becomes one of `domain.errors` here, as what went wrong on the
wire does in `_asking`; no text of the engine's reaches a caller.
"""

import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from pilothouse.adapters.engines._asking import TIMEOUTS, Asker, client_of, translated
from pilothouse.adapters.engines._attached import retry_after_s
from pilothouse.adapters.engines._openai_text import TextAsker, with_length
from pilothouse.adapters.engines._probing import PROBE, says_a_token
from pilothouse.domain.chat import Embeddings, EmbedRequest
from pilothouse.domain.chunk import Chunk
from pilothouse.domain.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineUnavailable,
    InvalidRequest,
    NotSupported,
    Overloaded,
    PilothouseError,
    UpstreamError,
)
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.status import Health, Load
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.http1.client import HttpFailure, request_bytes
from pilothouse.kit.http1.peer import Address, Timeouts
from pilothouse.kit.http1.sweep import Sweeper
from pilothouse.ports.engine import Chunks, EngineInfo, Placement
from pilothouse.wire.openai import outbound
from pilothouse.wire.openai.said import EngineFault
from pilothouse.wire.openai.too_long import too_long

MAX_WHOLE_BYTES = 64 * 1024 * 1024
_PATHS = {"chat": "/chat/completions", "completion": "/completions"}
_LOADING = "Loading model"
"""How llama.cpp's server says so."""
_TOO_LONG, _FILTERED = "context_length_exceeded", "content_filter"
"""How OpenAI and Azure say so."""
_OF_A_FORM = ("json schema", "grammar")
"""Words of llama.cpp and vLLM for a form that they cannot make an answer keep to."""
_NO_TEXT = "does not support logits"
"""llama.cpp's words for: this model gives vectors. It says so with status 500."""
_T = TypeVar("_T")


class OpenAIEngine:
    """
    Implements `ports.engine.Engine`.

    Args:
        info: `slots` where it is llama.cpp's server, and takes `id_slot` and `cache_prompt`.
        address: `unix:<path>`, or `http(s)://host[:port]/base`.
        credential: A header line that proves who asks, "" without one.
        query: What stands behind every path, from `?` on.
        pin: Resolves and checks the host of `address` before each connection.
        cohort: Requests are sent with the others of their stage.
    """

    def __init__(
        self,
        info: EngineInfo,
        address: str,
        *,
        model: str,
        credential: str = "",
        query: str = "",
        pin: Callable[[], Awaitable[str]] | None = None,
        cohort: Cohort | None = None,
    ) -> None:
        self.info = info
        self._model = model
        self._sweeper = Sweeper()
        self._root, self._base, where = parsed_address(address)
        self._client = client_of(where, self._sweeper, pin=pin, cohort=cohort)
        self._asker = Asker(self._client, info.name, self._refusal)
        self._writer = outbound.RequestWriter(model)
        line = f"{credential}\r\n" if credential else ""
        self._headers = f"content-type: application/json\r\n{line}".encode()
        self._heads = {
            kind: self._head("POST", f"{self._base}{path}{query}")
            for kind, path in (*_PATHS.items(), ("embed", "/embeddings"))
        } | {
            path: self._head("POST", self._root + path)
            for path in ("/apply-template", "/tokenize", "/detokenize")
        }
        self._text = TextAsker(
            self._asker, self._heads, self._writer, self._refusal_within, of_llama=info.slots
        )

    def stream(
        self,
        request: GenerateRequest,
        placement: Placement,
        *,
        deadline_s: float,
        timeouts: Timeouts | None = None,
    ) -> Chunks:
        return self._text.stream(request, placement, deadline_s, timeouts)

    def complete(
        self,
        request: GenerateRequest,
        placement: Placement,
        *,
        deadline_s: float,
        timeouts: Timeouts | None = None,
    ) -> Coroutine[Any, Any, Chunk]:
        return self._text.complete(request, placement, deadline_s, timeouts)

    def embed(
        self, request: EmbedRequest, *, deadline_s: float, timeouts: Timeouts | None = None
    ) -> Coroutine[Any, Any, Embeddings]:
        return self._asker.whole(
            self._post("embed", outbound.write_embed(request, model=self._model)),
            lambda data: outbound.read_vectors(data, count=len(request.inputs)),
            deadline_s=deadline_s,
            timeouts=timeouts,
        )

    async def count(self, request: GenerateRequest, *, deadline_s: float) -> int:
        """Implements `ports.engine.TokenCounter` where it is llama.cpp's server."""
        if not self.info.slots:
            raise NotSupported(f"the {self.info.name} engine does not say how many tokens a prompt has")
        until = time.monotonic() + deadline_s
        body = b"".join(self._writer.write(request, stream=False))
        prompt = await self._ask_aside("/apply-template", body, _Prompt, deadline_s=deadline_s)
        body = msgspec.json.encode({"content": prompt.prompt, "add_special": True, "parse_special": True})
        left_s = max(0.001, until - time.monotonic())
        return len((await self._ask_aside("/tokenize", body, _Tokens, deadline_s=left_s)).tokens)

    async def _ask_aside(self, path: str, body: bytes, shape: type[_T], *, deadline_s: float) -> _T:
        """A question that is none for an answer, outside of `/v1`."""

        def read(data: bytes) -> _T:
            try:
                return msgspec.json.decode(data, type=shape)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
                raise UpstreamError(f"the engine's answer to {path} cannot be read") from exc

        return await self._asker.whole(self._post(path, body), read, deadline_s=deadline_s, timeouts=None)

    async def load(self) -> Load:
        return await self._slots() if self.info.slots else Load()

    async def _slots(self) -> Load:
        """As llama.cpp's server tells it."""
        data = await self._get(f"{self._root}/slots", deadline_s=5.0)
        try:
            slots = msgspec.json.decode(data, type=list[_Slot])
        except msgspec.DecodeError as exc:
            raise UpstreamError("the engine's slots cannot be read") from exc
        at_work = [slot for slot in slots if slot.is_processing]
        places = sum(slot.n_ctx for slot in slots)
        used = sum(slot.n_prompt_tokens for slot in at_work)
        return Load(running=len(at_work), kv_used=min(1.0, used / places) if places else None)

    async def health(self, *, deadline_s: float) -> Health:
        """A token, or a vector from a model that says no text."""
        try:
            if await says_a_token(self.stream(PROBE, Placement(), deadline_s=deadline_s)):
                return Health(ok=True)
            return Health(ok=False, reason="the engine answered without a token")
        except (NotSupported, InvalidRequest):
            pass
        except PilothouseError as exc:
            return Health(ok=False, reason=exc.message)
        try:
            await self.embed(EmbedRequest(endpoint="", inputs=["Hello"]), deadline_s=deadline_s)
        except PilothouseError as exc:
            return Health(ok=False, reason=exc.message)
        return Health(ok=True)

    async def aclose(self) -> None:
        self._client.close()
        self._sweeper.stop_when_empty()

    def _post(self, kind: str, body: bytes) -> bytes:
        return with_length(self._heads[kind], [body])

    async def _get(self, target: str, *, deadline_s: float, max_bytes: int = MAX_WHOLE_BYTES) -> bytes:
        data = request_bytes("GET", target, self._client.address.host_header, self._headers)
        try:
            exchange = await self._client.request(data, TIMEOUTS, total_s=deadline_s, whole=True)
            try:
                if exchange.status != 200:
                    raise UpstreamError(f"the engine answered {exchange.status}")
                return await exchange.read_all(max_bytes)
            finally:
                exchange.release()
        except HttpFailure as exc:
            raise translated(exc, self.info.name) from exc

    def _refusal(self, status: int, headers: dict[bytes, bytes], body: bytes) -> PilothouseError:
        """The error that an answer other than 200 stands for."""
        return self._refused(status, outbound.read_fault(body), headers.get(b"retry-after", b""))

    def _refusal_within(self, event: bytes) -> PilothouseError | None:
        """vLLM begins a stream before it has checked all of the request: what it refuses then is an event."""
        fault = outbound.read_fault(event)
        return self._refused(400, fault, b"") if fault.code == 400 else None

    def _refused(self, status: int, fault: EngineFault, wait: bytes) -> PilothouseError:
        if fault.type == "exceed_context_size_error" or (fault.n_ctx and fault.n_prompt_tokens):
            return ContextLengthExceeded.counted(fault.n_prompt_tokens, fault.n_ctx)
        if status == 400 and (found := too_long(fault.message or "")):
            return ContextLengthExceeded.counted(found.has, found.holds, unit=found.unit)
        if status == 503 and fault.message == _LOADING:
            return EngineUnavailable("the engine is loading its model", retry_after_s=1.0)
        if status == 400 and fault.code == _TOO_LONG:
            return ContextLengthExceeded("the prompt is too long for the model", param="messages")
        if status == 400 and any(word in (fault.message or "").lower() for word in _OF_A_FORM):
            return InvalidRequest(
                "response_format, or the parameters of a tool: the engine cannot hold an answer to this "
                "schema; make it simpler",
                param="response_format",
            )
        if status == 400 and fault.code == _FILTERED:
            return InvalidRequest("the provider's content filter refused the prompt", param="messages")
        if status in (429, 503):
            return Overloaded(
                "the engine takes no more requests now; try again", retry_after_s=retry_after_s(wait)
            )
        if status in (401, 403):
            return UpstreamError(f"the engine refused the secret of this deployment ({status})")
        if status == 404:
            return UpstreamError("the engine knows no such model, or this deployment's secret may not use it")
        if status in (408, 504):
            return DeadlineExceeded("the engine did not answer in its own time")
        if status in (400, 413, 422):
            return InvalidRequest("the engine refused the request as invalid; check its fields")
        if status == 501 or _NO_TEXT in (fault.message or ""):
            return NotSupported("this model does not do that; see the endpoint's tasks")
        return UpstreamError(f"the engine answered {status}")

    def _head(self, method: str, target: str) -> bytes:
        host = self._client.address.host_header
        return f"{method} {target} HTTP/1.1\r\nhost: {host}\r\n".encode() + self._headers


class _Prompt(msgspec.Struct):
    prompt: str


class _Tokens(msgspec.Struct):
    tokens: list[int]


class _Slot(msgspec.Struct):
    is_processing: bool = False
    n_ctx: int = 0
    n_prompt_tokens: int = 0
    """Of the prompt and of the answer so far."""


def parsed_address(address: str) -> tuple[str, str, Address]:
    """(root path, base path of the OpenAI routes, where to connect)."""
    if address.startswith("unix:"):
        return "", "/v1", Address(path=address.removeprefix("unix:"))
    scheme, _, rest = address.partition("://")
    authority, slash, path = rest.partition("/")
    host, _, port = (
        authority.rpartition(":") if authority.rfind(":") > authority.rfind("]") else (authority, "", "")
    )
    tls = scheme == "https"
    number = int(port) if port else (443 if tls else 80)
    base = (slash + path).rstrip("/")
    where = Address(host=host.strip("[]"), port=number, tls=tls, server_name=host if tls else "")
    return base.removesuffix("/v1"), base, where
