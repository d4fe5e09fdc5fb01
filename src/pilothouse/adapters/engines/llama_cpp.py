"""
llama.cpp's server, through xllamacpp: one child process a replica.

Belongs here: how a replica is started and spoken to. Does not: llama.cpp's
parameters (`_llama_child`), the arithmetic (`domain.sizing`), where it runs (a
target). xllamacpp is not imported here: only the child pays for it.
"""

import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from importlib import metadata
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from pilothouse.adapters.engines._llama_completion import Completion, Stream, is_needed
from pilothouse.adapters.engines._openai_http import OpenAIEngine
from pilothouse.domain.chunk import Chunk
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.model import Artifact, ModelFormat
from pilothouse.domain.options import Count, EngineOptions, read_options
from pilothouse.domain.sizing import Wish, choose_sizing
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.http1.peer import Timeouts
from pilothouse.kit.ids import new_id
from pilothouse.kit.secret import Secret
from pilothouse.ports.engine import (
    KEEPS_ALL,
    NO_OPTIONS,
    Chunks,
    EngineAbility,
    EngineInfo,
    Installed,
    Launch,
    Machine,
    Placement,
)
from pilothouse.wire.openai.forced import CallReader, forced_call

CHILD = "pilothouse.adapters.engines._llama_child"
_ARGUMENTS = (
    *("--replica", "{name}", "--home-id", "{home}"),
    *("--socket", "{socket}", "--config", "{config}", "--log", "{log}"),
)


Share = Annotated[float, Meta(ge=0.0)]
RPC_REFUSED = (
    "rpc_servers: llama.cpp's RPC sends weights and prompts unencrypted, trusts whoever answers, and obeys "
    "whoever connects; leave it out, and divide the model among the GPUs of one machine (split_mode), or "
    "use engine vllm"
)


class LlamaCppOptions(EngineOptions, frozen=True, kw_only=True):
    """`engine_options` of `engine: llama.cpp`."""

    threads: Count = 0
    """Processor threads; by default one less than there are, for the gateway's sake."""
    split_mode: Literal["layer", "row", "none"] = "layer"
    """What each of several GPUs has of the model: some of its layers, some rows of every matrix, or all of it
    on `main_gpu`. Without GPUs it means nothing."""
    tensor_split: Annotated[tuple[Share, ...], Meta(max_length=128)] = ()
    """Shares of the GPUs in their order, such as `[3, 1]`; by default by their free memory."""
    main_gpu: Annotated[int, Meta(ge=0, le=127)] = 0
    """The GPU that has what is not divided."""
    rpc_servers: tuple[str, ...] = ()
    """Always refused: llama.cpp's RPC is neither encrypted nor authenticated. Named here to say so."""

    def __post_init__(self) -> None:
        if self.rpc_servers:
            raise ValueError(RPC_REFUSED)


class LlamaCppDriver:
    """
    Implements `ports.engine.EngineDriver`.

    Args:
        cohort: Requests are sent with the others of their stage.
        python: Interpreter that has Pilothouse installed.
        env: Variables that the child needs, such as a library path; it inherits none.
    """

    name = "llama.cpp"
    options = LlamaCppOptions
    abilities: frozenset[EngineAbility] = frozenset(
        {"launch", "stream", "cancel", "tools", "logprobs", "embeddings", "watermark_bias", "slots"}
    )
    cannot = KEEPS_ALL
    formats: frozenset[ModelFormat] = frozenset({"gguf"})

    def __init__(
        self,
        *,
        cohort: Cohort | None = None,
        python: str = sys.executable,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._python = python
        self._cohort = cohort
        self._env = {"LANG": "C.UTF-8", **(env or {})}

    def installed(self) -> Installed:
        try:
            return Installed(ok=True, version=metadata.version("xllamacpp"))
        except metadata.PackageNotFoundError:
            return Installed(ok=False, missing="the package xllamacpp", install_command="make setup")

    def launch(
        self,
        name: str,  # noqa: ARG002 - the target fills it in
        spec: DeploymentSpec,
        artifact: Artifact,
        machine: Machine,
    ) -> Launch:
        options = read_options(LlamaCppOptions, spec.engine_options)
        sizing = choose_sizing(
            artifact.header,
            artifact.bytes,
            Wish(slots=options.slots, context_tokens=options.context_tokens, workers=machine.workers),
            free_bytes=machine.memory_available_bytes,
        )
        config = {
            "model_path": artifact.path,
            "model_name": artifact.name,
            "slots": sizing.slots,
            "context_tokens": sizing.context_tokens,
            "batch_tokens": sizing.batch_tokens,
            # One processor stays with the gateway: with more busy threads than processors
            # llama.cpp's barriers spin, and a hundredth of its speed was measured.
            "threads": options.threads or max(1, machine.cpus - 1),
            "embeds": bool(artifact.header.pooling),
            "split_mode": options.split_mode,
            "tensor_split": options.tensor_split,
            "main_gpu": options.main_gpu,
        }
        return Launch(
            # -I: neither the environment nor the working folder adds modules.
            argv=(self._python, "-I", "-m", CHILD, *_ARGUMENTS),
            config=msgspec.json.encode(config).decode(),
            env=self._env,
            address="unix:{socket}",
            slots=sizing.slots,
            context_tokens=sizing.context_tokens,
            memory_bytes=sizing.memory_bytes,
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
    ) -> "LlamaCppEngine":
        # Not whole: an unstreamed request goes on computing when its caller is gone.
        info = EngineInfo(
            name=self.name,
            context_tokens=context_tokens,
            whole=False,
            slots=True,
            can=frozenset({"tools", "logit_bias", "token_ids", "echo"}),
        )
        return LlamaCppEngine(info, address, model=model, cohort=self._cohort)


class LlamaCppEngine(OpenAIEngine):
    """
    llama.cpp takes the wish that a tool be called and does nothing about it: here it is a grammar.

    So it is with `echo`: see `_llama_completion`.
    """

    def stream(
        self,
        request: GenerateRequest,
        placement: Placement,
        *,
        deadline_s: float,
        timeouts: Timeouts | None = None,
    ) -> Chunks:
        if is_needed(request):
            whole = Completion(request, self._as_it_is(timeouts), self._ask_aside, deadline_s)
            return whole.chunks(placement)
        forced = forced_call(request) if request.sampling.tool_choice is not None else None
        asked = request if forced is None else forced.request
        said = super().stream(asked, placement, deadline_s=deadline_s, timeouts=timeouts)
        return said if forced is None else _calling(said, CallReader(forced.only, lambda: new_id("call_")))

    def _as_it_is(self, timeouts: Timeouts | None) -> Stream:
        ask = super().stream
        return lambda request, placement, deadline_s: ask(
            request, placement, deadline_s=deadline_s, timeouts=timeouts
        )

    async def count(self, request: GenerateRequest, *, deadline_s: float) -> int:
        forced = forced_call(request)
        return await super().count(request if forced is None else forced.request, deadline_s=deadline_s)


async def _calling(said: Chunks, reader: CallReader) -> AsyncGenerator[Chunk, None]:
    async with aclosing(said):
        async for chunk in said:
            yield reader.read(chunk)
