"""
SGLang: attached to where it runs, or started by its published arguments.

It speaks the OpenAI protocol as vLLM does, and is probed by the same engine. Its
start was not run by us, for it needs a GPU: `docs/howto/serve-with-vllm.md` says so.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from pilothouse.adapters.engines import _server_load, _sglang_child
from pilothouse.adapters.engines._environment import environment, python_of
from pilothouse.adapters.engines._holes import SGLANG, why_refused
from pilothouse.adapters.engines._launching import OFFLINE, context_of, world
from pilothouse.adapters.engines._vllm_http import SERVED, Dialect, ParserName, Ranks, VllmFamily, handed_on
from pilothouse.domain.model import Artifact
from pilothouse.domain.options import AttachOptions, read_options
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.ports.engine import (
    EngineAbility,
    Installed,
    Launch,
    Machine,
    Promise,
)

PROCESS_BYTES = 4_000_000_000
"""Of this machine's memory; weights and cache are the GPU's. Estimated, for it was not run here."""
READY_TIMEOUT_S = 900.0
DEFAULT_CONTEXT_TOKENS, DEFAULT_SLOTS = 4096, 8
DIALECT = Dialect(
    holes=SGLANG,
    version_path="/server_info",
    version_field="version",
    load=_server_load.SGLANG,
)


class SglangOptions(AttachOptions, frozen=True, kw_only=True):
    """`engine_options` of `engine: sglang`. With `base_url`, only those of an attached server count."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of weights and arithmetic."""
    quantization: Literal["", "awq", "gptq", "fp8", "compressed-tensors", "mxfp4", "w8a8_int8"] = ""
    """How the weights are quantized, where the model's own configuration does not say it."""
    tensor_parallel: Ranks = 1
    """GPUs that each layer is divided among."""
    pipeline_parallel: Ranks = 1
    """Groups of them that each have some of the layers."""
    memory_share: Annotated[float, Meta(ge=0.0, le=0.95)] = 0.0
    """Of a GPU's memory, for weights and cache; 0 is SGLang's choice."""
    kv_cache_dtype: Literal["auto", "fp8_e4m3", "fp8_e5m2"] = "auto"
    """Of the cache of keys and values."""
    prefix_caching: bool = False
    """Begin where an earlier prompt began alike; the cache belongs to all who ask this deployment."""
    tool_parser: ParserName = ""
    """How this model writes calls of tools, by SGLang's name for it; "" takes no tools."""


class SglangDriver(VllmFamily):
    """Implements `ports.engine.EngineDriver`."""

    name = "sglang"
    options = SglangOptions
    abilities: frozenset[EngineAbility] = frozenset(
        {"launch", "attach", "stream", "cancel", "tools", "logprobs"}
    )
    cannot: Mapping[Promise, str] = dict.fromkeys(
        get_args(Promise), "its server was not run here, for it needs a GPU"
    )
    dialect = DIALECT

    def installed(self) -> Installed:
        folder = environment(self.name)
        command = f"python -m venv {folder} && {folder}/bin/pip install sglang"
        found = sorted(folder.glob("lib/python*/site-packages/sglang-*.dist-info"))
        if not found:
            return Installed(ok=False, missing="an environment with sglang", install_command=command)
        version = found[0].name.removeprefix("sglang-").removesuffix(".dist-info")
        reason = why_refused(self.name, version, SGLANG)
        return Installed(
            ok=not reason,
            version=version,
            missing=f"a newer one ({reason})" if reason else "",
            install_command=f"{command} --upgrade" if reason else "",
        )

    def launch(
        self,
        name: str,  # noqa: ARG002 - the target fills it in
        spec: DeploymentSpec,
        artifact: Artifact,
        machine: Machine,  # noqa: ARG002 - what counts is the GPU's
    ) -> Launch:
        options = read_options(SglangOptions, spec.engine_options)
        context = context_of(options.context_tokens, artifact, default=DEFAULT_CONTEXT_TOKENS)
        told = [
            *("--model-path", artifact.path, "--served-model-name", SERVED, "--load-format", "safetensors"),
            *("--host", "127.0.0.1", "--port", "{port.http}", "--nccl-port", "{port.nccl}"),
            *("--context-length", str(context)),
            *("--max-running-requests", str(options.slots or DEFAULT_SLOTS)),
            *_arguments(options),
        ]
        return Launch(
            argv=(python_of(self.name), "-I", _sglang_child.__file__, "{config}"),
            config=msgspec.json.encode({"arguments": told, "key": "{token}"}).decode(),
            ports=("http", "nccl"),
            env=world(0, **OFFLINE),
            address="http://127.0.0.1:{port.http}/v1",
            slots=0,
            context_tokens=context,
            memory_bytes=PROCESS_BYTES,
            ready_timeout_s=READY_TIMEOUT_S,
            options=handed_on(SERVED, takes_tools=bool(options.tool_parser), takes_bias=True),
        )


def _arguments(options: SglangOptions) -> list[str]:
    said = [
        *("--dtype", options.dtype, "--kv-cache-dtype", options.kv_cache_dtype, "--enable-metrics"),
        *("--tensor-parallel-size", str(options.tensor_parallel)),
        *("--pipeline-parallel-size", str(options.pipeline_parallel)),
    ]
    if not options.prefix_caching:
        said.append("--disable-radix-cache")
    if options.quantization:
        said += ["--quantization", options.quantization]
    if options.memory_share:
        said += ["--mem-fraction-static", f"{options.memory_share:g}"]
    if options.tool_parser:
        said += ["--tool-call-parser", options.tool_parser]
    return said
