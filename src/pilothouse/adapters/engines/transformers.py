"""
PyTorch models through the server of transformers (`transformers serve`), safetensors only.

Belongs here: how a replica is started and spoken to. Does not: the server's own
doors (`_transformers_child`). By default it answers one request at a time and lets
the others wait; with more `slots` its own continuous batching answers them together.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from pilothouse.adapters.engines import _transformers_child
from pilothouse.adapters.engines._environment import declared, look, python_of
from pilothouse.adapters.engines._launching import (
    OFFLINE,
    cache_bytes,
    check_fits,
    context_of,
    threads_of,
    world,
)
from pilothouse.adapters.engines._openai_http import OpenAIEngine
from pilothouse.adapters.engines._probing import read_load
from pilothouse.adapters.engines._stops import StopCutter
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.model import Artifact, ModelFormat
from pilothouse.domain.options import Count, EngineOptions, read_options
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.domain.status import Load
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.http1.peer import Timeouts
from pilothouse.kit.secret import Secret
from pilothouse.ports.engine import (
    NO_OPTIONS,
    EngineAbility,
    EngineInfo,
    Installed,
    Launch,
    Machine,
    Placement,
    Promise,
)

VERSION = "5.23.0"
"""Of transformers; its server's handlers are not a public interface, so each version is tried first."""
PROCESS_BYTES = 700_000_000
"""torch and transformers before any weights: 417 MB were measured, and its buffers come on top."""
DEFAULT_CONTEXT_TOKENS = 4096
READY_TIMEOUT_S = 300.0
"""Importing torch took 8 s on an idle machine, and minutes on one that had much else to do."""


class TransformersOptions(EngineOptions, frozen=True, kw_only=True):
    """`engine_options` of `engine: transformers`. `slots` above 1 are answered together (continuous
    batching); a request's `seed` is refused then, for a batch has one."""

    threads: Count = 0
    """Processor threads; by default one less than there are, for the gateway's sake."""
    device: str = "cpu"
    """Where it computes, such as `cpu`, `cuda:0` or `auto`."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the weights in memory; `auto` is as they are in the files."""


class TransformersDriver:
    """Implements `ports.engine.EngineDriver`."""

    name = "transformers"
    options = TransformersOptions
    abilities: frozenset[EngineAbility] = frozenset({"launch", "stream", "cancel", "tools"})
    formats: frozenset[ModelFormat] = frozenset({"safetensors"})
    cannot: Mapping[Promise, str] = MappingProxyType(
        {
            "side_by_side": "by default its server has one seed and one generating thread: others wait. "
            "With `slots` it batches them, and refuses a `seed`",
            "cancel_prompt": "it hears of a hang-up at the first token, when the prompt was read",
        }
    )
    environment = declared("transformers", "torch==2.13.0", f"transformers[serving]=={VERSION}")

    def __init__(self, *, cohort: Cohort | None = None) -> None:
        self._cohort = cohort

    def installed(self) -> Installed:
        return look(self.name, package="transformers", known=VERSION)

    def launch(
        self,
        name: str,  # noqa: ARG002 - the target fills it in
        spec: DeploymentSpec,
        artifact: Artifact,
        machine: Machine,
    ) -> Launch:
        options = read_options(TransformersOptions, spec.engine_options)
        context = context_of(options.context_tokens, artifact, default=DEFAULT_CONTEXT_TOKENS)
        weights = artifact.bytes * (2 if options.dtype == "float32" else 1)
        slots = max(1, options.slots)
        need = PROCESS_BYTES + weights + slots * cache_bytes(artifact, context)
        parts = f"weights {weights / 1e6:.0f} MB, torch, and {slots} contexts of {context} tokens"
        check_fits(need, machine, parts, lower="slots or context_tokens")
        threads = threads_of(options.threads, machine)
        config = {
            "model_path": artifact.path,
            "socket": "{socket}",
            "context_tokens": context,
            "slots": slots,
            "threads": threads,
            "device": options.device,
            "dtype": options.dtype,
        }
        return Launch(
            argv=(python_of(self.name), "-I", _transformers_child.__file__, "{config}"),
            config=msgspec.json.encode(config).decode(),
            env=world(threads, **OFFLINE),
            address="unix:{socket}",
            slots=0,
            context_tokens=context,
            memory_bytes=need,
            ready_timeout_s=READY_TIMEOUT_S,
        )

    def connect(
        self,
        address: str,
        *,
        model: str,
        context_tokens: int,
        secret: Secret | None = None,  # noqa: ARG002 - a private socket needs none
        allow_private: bool = False,  # noqa: ARG002 - nor an egress policy
        options: Mapping[str, Any] = NO_OPTIONS,  # noqa: ARG002 - all of them are the child's
    ) -> "TransformersEngine":
        info = EngineInfo(name=self.name, context_tokens=context_tokens, can=frozenset({"tools"}))
        return TransformersEngine(info, address, model=model, cohort=self._cohort)


class TransformersEngine(OpenAIEngine):
    """An OpenAI server that says stop texts before it ends, and how many wait at `/load`."""

    async def stream(
        self,
        request: GenerateRequest,
        placement: Placement,
        *,
        deadline_s: float,
        timeouts: Timeouts | None = None,
    ) -> AsyncGenerator[Chunk, None]:
        cutter = StopCutter(request.sampling.stop or ())
        stream = super().stream(request, placement, deadline_s=deadline_s, timeouts=timeouts)
        async with aclosing(stream) as chunks:
            async for chunk in chunks:
                if cut := _cut(chunk, cutter):
                    yield cut

    async def load(self) -> Load:
        return read_load(await self._get("/load", deadline_s=5.0))


def _cut(chunk: Chunk, cutter: StopCutter) -> Chunk | None:
    """None when nothing of it may be said yet."""
    deltas = []
    for delta in chunk.deltas:
        was_stopped = cutter.has_stopped
        text = cutter.feed(delta.text)
        end = delta.finish_reason
        if end and not cutter.has_stopped:
            text += cutter.close()
        if text or end or (delta.aside is not None and not was_stopped):
            end = "stop" if end and cutter.has_stopped else end
            deltas.append(Delta(text, delta.index, end, delta.logprobs, delta.aside))
    return Chunk(tuple(deltas), chunk.usage) if deltas or chunk.usage is not None else None
