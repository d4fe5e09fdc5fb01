"""
A replica of TorchServe whose handler is ours: over private sockets, with its keys, in lines of JSON.

Belongs here: one request's way there and back, and every failure as an error of
`domain.errors`. Does not: the keys (`_torchserve_keys`), the other end
(`_torchserve_handler`).
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

import msgspec

from pilothouse.adapters.engines import _torchserve_handler
from pilothouse.adapters.engines._asking import MAX_ERROR_BYTES, TIMEOUTS, translated
from pilothouse.adapters.engines._own_request import generator_request
from pilothouse.adapters.engines._probing import PROBE, read_load
from pilothouse.adapters.engines._torchserve_keys import Keys
from pilothouse.domain.chat import Embeddings, EmbedRequest
from pilothouse.domain.chunk import Chunk
from pilothouse.domain.errors import (
    DeadlineExceeded,
    EngineUnavailable,
    NotSupported,
    PilothouseError,
    UpstreamError,
)
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.status import Health, Load
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.http1.client import Client, Exchange, HttpFailure, request_bytes
from pilothouse.kit.http1.peer import Address, Timeouts
from pilothouse.kit.http1.sweep import Sweeper
from pilothouse.ports.engine import EngineInfo, Placement
from pilothouse.wire.torchserve import answers

MODEL = "model"
"""Its name in every TorchServe that we start: one model each."""
INFERENCE, MANAGEMENT = "inference.sock", "management.sock"
LINE_S = 5.0
KEYS_TRIED = 3
"""Others renew the key too, and each renewal ends the one before."""
NO_WORKER = "TorchServe's worker is not there: it is starting, or it died and is started again"


class TorchServeEngine:
    """
    Implements `ports.engine.Engine`.

    Args:
        folder: Of the replica: its sockets and its key file are there.
    """

    def __init__(self, info: EngineInfo, folder: str, *, cohort: Cohort | None = None) -> None:
        self.info = info
        self._callers = f"{folder}/{_torchserve_handler.SOCKET}"
        self._sweeper = Sweeper()
        self._client = Client(Address(path=f"{folder}/{INFERENCE}"), self._sweeper, cohort=cohort)
        self._management = Client(Address(path=f"{folder}/{MANAGEMENT}"), self._sweeper)
        self._keys = Keys(f"{folder}/key_file.json", self._management)

    async def stream(
        self,
        request: GenerateRequest,
        placement: Placement,  # noqa: ARG002 - it has one place
        *,
        deadline_s: float,
        timeouts: Timeouts | None = None,
    ) -> AsyncGenerator[Chunk, None]:
        caller = secrets.token_hex(8)
        body = msgspec.json.encode(generator_request(request, engine=self.info.name) | {"caller": caller})
        exchange: Exchange | None = None
        line = await self._line(caller.encode())
        try:
            exchange = await self._ask(body, timeouts or TIMEOUTS, deadline_s)
            async with aclosing(chunks_of(exchange)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except HttpFailure as exc:
            raise translated(exc, self.info.name) from exc
        finally:
            line.close()
            if exchange is not None:
                exchange.release()

    async def complete(
        self,
        request: GenerateRequest,  # noqa: ARG002 - `info.whole` says no
        placement: Placement,  # noqa: ARG002
        *,
        deadline_s: float,  # noqa: ARG002
        timeouts: Timeouts | None = None,  # noqa: ARG002
    ) -> Chunk:
        raise NotSupported("TorchServe's answers are streamed")

    async def embed(
        self,
        request: EmbedRequest,  # noqa: ARG002 - its models say text
        *,
        deadline_s: float,  # noqa: ARG002
        timeouts: Timeouts | None = None,  # noqa: ARG002
    ) -> Embeddings:
        raise NotSupported("this model does not do that; see the endpoint's tasks")

    async def load(self) -> Load:
        line = await self._line(_torchserve_handler.ASKS_LOAD)
        try:
            return read_load(line.first)
        finally:
            line.close()

    async def health(self, *, deadline_s: float) -> Health:
        try:
            async with aclosing(self.stream(PROBE, Placement(), deadline_s=deadline_s)) as chunks:
                async for chunk in chunks:
                    if chunk.usage is not None and chunk.usage.output > 0:
                        return Health(ok=True)
        except PilothouseError as exc:
            return Health(ok=False, reason=exc.message)
        return Health(ok=False, reason="the engine answered without a token")

    async def aclose(self) -> None:
        self._client.close()
        self._management.close()
        self._sweeper.stop_when_empty()

    async def _line(self, word: bytes) -> "Line":
        """
        A line to the handler, with its answer to a word.

        Raises:
            EngineUnavailable: There is no worker that could answer, whatever TorchServe says of itself.
        """
        loop, line = asyncio.get_running_loop(), Line(word)
        try:
            async with asyncio.timeout(LINE_S):
                await loop.create_unix_connection(lambda: line, self._callers)
                await line.is_heard.wait()
        except (OSError, TimeoutError) as exc:
            line.close()
            raise EngineUnavailable(NO_WORKER, retry_after_s=1.0) from exc
        except BaseException:
            line.close()
            raise
        if not line.first:
            raise EngineUnavailable(NO_WORKER, retry_after_s=1.0)
        return line

    async def _ask(self, body: bytes, timeouts: Timeouts, deadline_s: float) -> Exchange:
        """
        The head of a good answer.

        Raises:
            PilothouseError: It was refused.
            HttpFailure: It did not come.
        """
        for _ in range(KEYS_TRIED):
            key = await self._keys.current()
            head = f"content-type: application/json\r\nauthorization: Bearer {key.reveal()}\r\n".encode()
            data = request_bytes("POST", f"/predictions/{MODEL}", "localhost", head, body)
            exchange = await self._client.request(data, timeouts, total_s=deadline_s)
            if exchange.status == 200:
                return exchange
            try:
                fault = answers.read_fault(await exchange.read_all(MAX_ERROR_BYTES))
            finally:
                exchange.release()
            if fault.type != answers.REFUSED_KEY:
                raise answers.refusal(exchange.status, fault)
            try:
                async with asyncio.timeout(deadline_s):  # others may be renewing it, one after the other
                    await self._keys.renew(key)
            except TimeoutError as exc:
                raise DeadlineExceeded("TorchServe gave no new key in time") from exc
        raise UpstreamError("TorchServe refuses the key that it made itself")


class Line(asyncio.Protocol):
    """
    Open for as long as its caller listens; the handler looks for it before each token.

    Args:
        word: What is said first: who calls, or a question.
    """

    def __init__(self, word: bytes) -> None:
        self.first = b""
        """What came back at once; nothing when the worker died."""
        self.is_heard = asyncio.Event()
        self._word = word
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._word)

    def data_received(self, data: bytes) -> None:
        self.first = self.first or data
        self.is_heard.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - gone is gone
        self.is_heard.set()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def chunks_of(exchange: Exchange) -> AsyncGenerator[Chunk, None]:
    """
    What the handler says, until its last line.

    Raises:
        UpstreamError: It ended before that, or said what nobody can read.
    """
    lines = answers.Lines()
    while data := await exchange.read():
        for line in lines.feed(data):
            chunk = answers.read_chunk(line)
            if chunk is not None:
                yield chunk
                if chunk.usage is not None:
                    exchange.finish()
                    return
    raise UpstreamError("the engine ended its stream before the answer was complete")
