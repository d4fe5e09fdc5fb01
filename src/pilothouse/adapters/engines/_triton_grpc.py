"""A model on Triton over gRPC: its streams, its statistics and its repository. Stands on the extra `grpc`."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing

from pilothouse.adapters.engines._grpc import IDLE_S, Channel
from pilothouse.adapters.engines._inference_grpc import FINAL, InferenceService
from pilothouse.adapters.engines._openai_http import parsed_address
from pilothouse.adapters.engines._triton_watch import Call
from pilothouse.domain.errors import InvalidRequest, UpstreamError
from pilothouse.kit.http1.peer import Timeouts
from pilothouse.wire.kserve_v2.about import TensorSpec
from pilothouse.wire.triton import outbound, said, tensors

LOAD_S = 300.0
ASK_S = 5.0


class GrpcDoor:
    """
    Implements `_triton_engine.Door`.

    Args:
        address: `unix:<path>`, of a server that we started, or `http(s)://host:port`; https is TLS.
        credential: A header line that proves who asks, "" without one.
        inputs: What the model takes, where that is known; else the server is asked.
        pin: Resolves and checks the host of `address` before each connection.
    """

    def __init__(
        self,
        address: str,
        *,
        model: str,
        credential: str = "",
        inputs: Sequence[TensorSpec] = (),
        pin: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        _, _, where = parsed_address(address)
        self._channel = Channel("triton", where, credential=credential, pin=pin, known=said.known)
        self._service = InferenceService(self._channel, model=model)
        self._given = self._inputs = inputs

    async def say(
        self, fields: outbound.Fields, call: Call, *, deadline_s: float, timeouts: Timeouts | None
    ) -> AsyncGenerator[said.Event, None]:
        try:
            with call:
                inputs = await self._known(deadline_s)
            idle_s = timeouts.idle_s if timeouts is not None else IDLE_S
            asked = tensors.asked_as(fields, inputs)
            answers = self._service.told(asked, deadline_s=deadline_s, idle_s=idle_s)
            call.hang_up = lambda: asyncio.ensure_future(answers.aclose())
            async with aclosing(answers):
                while True:
                    with call:
                        one = await anext(answers, None)
                    if one is None:
                        return
                    if isinstance(one, str):
                        yield said.Event(error=one)
                        return
                    if one.outputs:
                        yield tensors.event_of(one)
                    if one.parameters.get(FINAL) is True:
                        return
        except InvalidRequest:
            self._inputs = self._given  # a model that was loaded anew may take other tensors
            raise

    async def ask(self, fields: outbound.Fields) -> said.Event:
        answers = self.say(fields, Call(), deadline_s=ASK_S, timeouts=None)
        async with aclosing(answers):
            async for event in answers:
                return event
        raise UpstreamError("Triton ended its stream before it said anything")

    async def counts(self) -> said.Counts:
        return await self._service.counts(deadline_s=ASK_S)

    async def load_anew(self) -> None:
        await self._service.load_anew(deadline_s=LOAD_S)

    async def aclose(self) -> None:
        await self._channel.aclose()

    async def _known(self, deadline_s: float) -> Sequence[TensorSpec]:
        """What the model takes."""
        if not self._inputs:
            self._inputs = (await self._service.model(deadline_s=deadline_s)).inputs
        return self._inputs
