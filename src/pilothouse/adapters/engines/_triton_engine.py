"""
A generating model on Triton, whichever door of the server it is asked by.

Belongs here: requests, load and the healing of a model whose process ended. Does not:
what is said (`wire.triton`), how it goes over the wire (`_triton_http`, `_triton_grpc`),
who is cut when that process ends (`_triton_watch`). Triton itself goes on calling such a
model ready, and ends none of its streams: so a model of ours is asked by name, and loaded
anew by whoever finds it dead.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Protocol

from pilothouse.adapters.engines._own_request import generator_request
from pilothouse.adapters.engines._probing import PROBE, says_a_token
from pilothouse.adapters.engines._triton_watch import Call, Watch
from pilothouse.domain.chat import Embeddings
from pilothouse.domain.chunk import Chunk
from pilothouse.domain.errors import EngineUnavailable, NotSupported, PilothouseError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.status import Health, Load
from pilothouse.kit.http1.peer import Timeouts
from pilothouse.ports.engine import EngineInfo, Placement
from pilothouse.wire.triton import outbound, said

HEAL_AFTER_S = 2.5
"""Longer than two looks of `Watch`: every worker has seen the dead process before a new one answers."""


class Door(Protocol):
    """How one model of one server is asked. What goes wrong is an error of `domain.errors`."""

    def say(
        self, fields: outbound.Fields, call: Call, *, deadline_s: float, timeouts: Timeouts | None
    ) -> AsyncGenerator[said.Event, None]:
        """One answer. Closing it before its end cancels the answer; each wait is one of the call's."""
        ...

    async def ask(self, fields: outbound.Fields) -> said.Event:
        """What is answered at once."""
        ...

    async def counts(self) -> said.Counts: ...

    async def load_anew(self) -> None: ...

    async def aclose(self) -> None: ...


class TritonEngine:
    """
    Implements `ports.engine.Engine`.

    Args:
        backend: What kind of repository the model is of.
        is_ours: We started the server, and may load its model anew.
    """

    def __init__(self, info: EngineInfo, door: Door, *, backend: outbound.Backend, is_ours: bool) -> None:
        self.info = info
        self.door = door
        self._backend = backend
        self._is_ours = is_ours
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
        fields, reader = self._fields(request), said.Reader(request.max_tokens)
        call = Call() if self._watch is None else self._watch.begin()
        events = self.door.say(fields, call, deadline_s=deadline_s, timeouts=timeouts)
        try:
            async with aclosing(events):
                async for event in events:
                    if (chunk := reader.read(event)) is not None:
                        yield chunk
                    if reader.has_ended:
                        return
            if (rest := reader.end()) is not None:
                yield rest
        finally:
            call.end()

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
        if self._is_ours:
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
        await self.door.aclose()

    def _fields(self, request: GenerateRequest) -> outbound.Fields:
        if self._backend == "python":
            return outbound.own_fields(generator_request(request, engine=self.info.name))
        return outbound.fields_of(request, self._backend)

    async def _ask_load(self) -> said.LoadSaid | None:
        """None where the model's process has ended."""
        return said.read_load(await self.door.ask(outbound.LOAD_QUESTION))

    async def _suspect(self) -> None:
        """
        An answer that only failed since the last look is none; one that succeeded takes it back.

        Triton calls a model ready whose process has ended, and this asks for no token.
        """
        counts = await self.door.counts()
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
        await asyncio.sleep(HEAL_AFTER_S)
        await self.door.load_anew()
