"""
A generating model on Triton, over its generate extension (HTTP).

Belongs here: requests, refusals, load and the healing of a model whose process ended.
Does not: what is said (`wire.triton`), who is cut when that process ends
(`_triton_watch`). Triton itself goes on calling such a model ready, and ends none of its
streams: so a model of ours is asked by name, and loaded anew by whoever finds it dead.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any
from urllib.parse import quote

import msgspec

from pilothouse.adapters.engines._asking import TIMEOUTS, client_of, translated
from pilothouse.adapters.engines._openai_http import parsed_address
from pilothouse.adapters.engines._own_request import generator_request
from pilothouse.adapters.engines._probing import PROBE, says_a_token
from pilothouse.adapters.engines._triton_watch import Call, Watch
from pilothouse.domain.chat import Chunk, Embeddings, GenerateRequest
from pilothouse.domain.errors import EngineUnavailable, NotSupported, PilothouseError, UpstreamError
from pilothouse.domain.status import Health, Load
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.http1.client import Exchange, HttpFailure
from pilothouse.kit.http1.peer import Timeouts
from pilothouse.kit.http1.sweep import Sweeper
from pilothouse.kit.sse import EventParser, EventTooLarge
from pilothouse.ports.engine import EngineInfo, Placement
from pilothouse.wire.triton import outbound, said

_LOADING = Timeouts(connect_s=5.0, idle_s=300.0, first_byte_s=300.0)
LOAD_S = 300.0
ASK_S = 5.0
MAX_BYTES = 1024 * 1024
HEAL_AFTER_S = 2.5
"""Longer than two looks of `Watch`: every worker has seen the dead process before a new one answers."""


class TritonEngine:
    """
    Implements `ports.engine.Engine`.

    Args:
        address: `unix:<path>`, of a server that we started, or `http(s)://host[:port]`.
        backend: What kind of repository the model is of.
        credential: A header line that proves who asks, "" without one.
        pin: Resolves and checks the host of `address` before each connection.
    """

    def __init__(
        self,
        info: EngineInfo,
        address: str,
        *,
        model: str,
        backend: outbound.Backend,
        credential: str = "",
        pin: Callable[[], Awaitable[str]] | None = None,
        cohort: Cohort | None = None,
    ) -> None:
        self.info = info
        self._backend = backend
        self._is_started_by_us = address.startswith("unix:")
        self._sweeper = Sweeper()
        _, base, where = parsed_address(address)
        self._client = client_of(where, self._sweeper, pin=pin, cohort=cohort)
        name = quote(model, safe="")
        self._base = "" if self._is_started_by_us else base
        self._model = f"/v2/models/{name}"
        self._load_path = f"/v2/repository/models/{name}/load"
        line = f"{credential}\r\n" if credential else ""
        self._headers = f"host: {where.host_header}\r\ncontent-type: application/json\r\n{line}"
        self._generate = self._head("POST", f"{self._model}/generate_stream")
        self._watch = Watch(self._ask_load) if backend == "python" else None
        self._healing: asyncio.Task[None] | None = None
        self._counts = said.Counts()
        self._is_suspected = False

    async def stream(
        self,
        request: GenerateRequest,
        placement: Placement,  # noqa: ARG002 - Triton has no slots of ours
        *,
        deadline_s: float,
        timeouts: Timeouts | None = None,
    ) -> AsyncGenerator[Chunk, None]:
        data = _whole(self._generate, self._body(request))
        call = Call() if self._watch is None else self._watch.begin()
        exchange: Exchange | None = None
        try:
            asking = self._client.request(data, timeouts or TIMEOUTS, total_s=deadline_s)
            exchange = await call.answered(asking)
            if exchange.status != 200:
                raise await self._refusal(exchange)
            parser, reader = EventParser(), said.Reader(request.max_tokens)
            while data := await exchange.read():
                for event in parser.feed(data):
                    if (chunk := reader.read(event)) is not None:
                        yield chunk
                    if reader.has_ended:
                        exchange.finish()
                        return
            if parser.is_mid_event:
                raise UpstreamError("Triton ended its stream before the answer was complete")
            if (rest := reader.end()) is not None:
                yield rest
        except HttpFailure as exc:
            raise translated(exc, self.info.name) from exc
        except EventTooLarge as exc:
            raise UpstreamError(f"Triton's stream holds an event that is too large: {exc}") from exc
        finally:
            call.end()
            if exchange is not None:
                exchange.release()

    async def complete(self, *_: Any, **__: Any) -> Chunk:
        raise NotSupported("a decoupled model of Triton answers in pieces alone")

    async def embed(self, *_: Any, **__: Any) -> Embeddings:
        raise NotSupported("this model does not do that; see the endpoint's tasks")

    async def load(self) -> Load:
        if self._backend != "python":
            await self._suspect()
            return Load()
        found = await self._ask_load()
        if found is not None:
            return Load(running=found.running, waiting=found.waiting)
        if self._is_started_by_us:
            await self._heal()
        raise EngineUnavailable("the process of this model on Triton had ended", retry_after_s=1.0)

    async def health(self, *, deadline_s: float) -> Health:
        try:
            if await says_a_token(self.stream(PROBE, Placement(), deadline_s=deadline_s)):
                return Health(ok=True)
        except PilothouseError as exc:
            return Health(ok=False, reason=exc.message)
        return Health(ok=False, reason="the engine answered without a token")

    async def aclose(self) -> None:
        if self._healing is not None:
            self._healing.cancel()
        if self._watch is not None:
            self._watch.close()
        self._client.close()
        self._sweeper.stop_when_empty()

    def _body(self, request: GenerateRequest) -> bytes:
        if self._backend == "python":
            return outbound.write_own(generator_request(request, engine=self.info.name))
        return outbound.write_request(request, self._backend)

    async def _ask_load(self) -> said.LoadSaid | None:
        """None where the model's process has ended."""
        return said.read_load(await self._ask("POST", f"{self._model}/generate", outbound.LOAD_QUESTION))

    async def _suspect(self) -> None:
        """
        An answer that only failed since the last look is none; one that succeeded takes it back.

        Triton calls a model ready whose process has ended, and this asks for no token.
        """
        counts = said.read_counts(await self._ask("GET", f"{self._model}/stats"))
        if counts.success != self._counts.success:
            self._is_suspected = False
        elif counts.fail > self._counts.fail:
            self._is_suspected = True
        self._counts = counts
        if self._is_suspected:
            raise EngineUnavailable("every request to this model has failed of late", retry_after_s=1.0)

    async def _heal(self) -> None:
        if self._healing is None or self._healing.done():
            self._healing = asyncio.create_task(self._load_anew())
        await asyncio.shield(self._healing)

    async def _load_anew(self) -> None:
        """Triton loads what has changed and nothing else: so something has to."""
        await asyncio.sleep(HEAL_AFTER_S)
        config: dict[str, Any] = msgspec.json.decode(await self._ask("GET", f"{self._model}/config"))
        config.setdefault("parameters", {})["loaded_at"] = {"string_value": str(time.time_ns())}
        body = msgspec.json.encode({"parameters": {"config": msgspec.json.encode(config).decode()}})
        await self._ask("POST", self._load_path, body, deadline_s=LOAD_S)

    async def _ask(self, method: str, path: str, body: bytes = b"", *, deadline_s: float = ASK_S) -> bytes:
        """The body of an answer, a refusal's too."""
        exchange: Exchange | None = None
        timeouts = _LOADING if deadline_s > ASK_S else TIMEOUTS
        try:
            data = _whole(self._head(method, path), body)
            exchange = await self._client.request(data, timeouts, total_s=deadline_s, whole=True)
            return exchange.whole_body()
        except HttpFailure as exc:
            raise translated(exc, self.info.name) from exc
        finally:
            if exchange is not None:
                exchange.release()

    async def _refusal(self, exchange: Exchange) -> PilothouseError:
        body = await exchange.read_all(MAX_BYTES)
        if exchange.status in (401, 403):
            return UpstreamError(f"Triton refused the secret of this deployment ({exchange.status})")
        try:
            why = said.decoded(body.removeprefix(b"data:").strip()).error
        except UpstreamError:
            why = ""
        return said.refused(why)

    def _head(self, method: str, path: str) -> bytes:
        return f"{method} {self._base}{path} HTTP/1.1\r\n{self._headers}".encode()


def _whole(head: bytes, body: bytes) -> bytes:
    return b"%scontent-length: %d\r\n\r\n%s" % (head, len(body), body)
