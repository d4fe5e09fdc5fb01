"""
Triton Inference Server: started here with a model repository of ours, or attached where it runs.

Belongs here: how a replica is started and spoken to. Does not: the repository
(`_triton_repository`), the model in it (`_triton_model`), the protocol (`_triton_engine`).
Triton has no authentication: it listens at private sockets, and at no port.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from pilothouse.adapters.engines import _triton_child
from pilothouse.adapters.engines._attached import bearer, pinned, token_of
from pilothouse.adapters.engines._environment import declared, environment, look
from pilothouse.adapters.engines._extras import over_grpc
from pilothouse.adapters.engines._launching import (
    OFFLINE,
    cache_bytes,
    check_fits,
    context_of,
    threads_of,
    world,
)
from pilothouse.adapters.engines._triton_engine import Door, TritonEngine
from pilothouse.adapters.engines._triton_http import HttpDoor
from pilothouse.adapters.engines._triton_repository import (
    INPUTS,
    MODEL,
    python_repository,
    vllm_repository,
)
from pilothouse.domain.errors import OperationFailed
from pilothouse.domain.model import Artifact, ModelFormat
from pilothouse.domain.options import AttachOptions, Count, read_options
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.secret import Secret
from pilothouse.ports.engine import (
    NO_OPTIONS,
    EngineAbility,
    EngineInfo,
    Installed,
    Launch,
    Machine,
    Promise,
)
from pilothouse.wire.triton.outbound import Backend

VERSION = "0.7.0"
"""Of nvidia-pytriton, whose wheel carries the server (2.51.0); nothing else of that package is used."""
SERVER_ELSEWHERE = "/opt/tritonserver"
"""Where NVIDIA's images have it, with backends that no wheel has."""
PROCESS_BYTES = 800_000_000
"""The server (42 MB), and torch and transformers in the model's process, before any weights."""
DEFAULT_CONTEXT_TOKENS = 4096
DEFAULT_SLOTS = 4
DEFAULT_QUEUE = 64
READY_TIMEOUT_S = 300.0
EXIT_S = 2
"""After TERM, for what is in flight: Pilothouse drained before, and a stream of a dead model never ends."""
Protocol = Literal["rest", "grpc"]
GRPC_SOCKET = "unix:{folder}/g"
"""Without the port, which gRPC wants and which becomes a part of the name."""


PARALLEL_REFUSED = (
    "tensor_parallel and pipeline_parallel divide a model by Triton's vLLM backend alone; fix: leave them "
    "out, or use backend: vllm, or engine: vllm"
)


class TritonOptions(AttachOptions, frozen=True, kw_only=True):
    """`engine_options` of `engine: triton`."""

    backend: Backend = "python"
    """Of the model: `python` (in the repository that Pilothouse writes), `vllm`, `tensorrtllm`, `text`."""
    protocol: Protocol = "rest"
    """`grpc` needs the extra of that name; `base_url` is the host and port of that then, and https is TLS."""
    threads: Count = 0
    """Processor threads, `python` alone; by default one less than there are, for the gateway's sake."""
    max_queue: Count = 0
    """Requests that wait in the model when every slot is taken, `python` alone; 64 by default."""
    tensor_parallel: Annotated[int, Meta(ge=1, le=64)] = 1
    """Devices that share each layer, `vllm` alone."""
    pipeline_parallel: Annotated[int, Meta(ge=1, le=64)] = 1
    """Devices that have some of the layers each, `vllm` alone."""
    model_name: str = ""
    """Of an attached server's model, where it is not the deployment's `model`."""
    secret_header: Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]*$")] = ""
    """
    Header for the secret of an attached server with `--http-restricted-api` or `--grpc-restricted-protocol`
    (there with `triton-grpc-protocol-` before it); a bearer token by default.
    """

    def __post_init__(self) -> None:
        if self.backend != "vllm" and self.tensor_parallel * self.pipeline_parallel > 1:
            raise ValueError(PARALLEL_REFUSED)


class TritonDriver:
    """Implements `ports.engine.EngineDriver`."""

    name = "triton"
    options = TritonOptions
    abilities: frozenset[EngineAbility] = frozenset({"attach", "launch", "stream", "cancel"})
    formats: frozenset[ModelFormat] = frozenset({"safetensors"})
    cannot: Mapping[Promise, str] = MappingProxyType({})
    environment = declared(
        "triton", f"nvidia-pytriton=={VERSION}", "torch==2.13.0", "transformers==5.23.0", "jinja2"
    )

    def __init__(self, *, cohort: Cohort | None = None) -> None:
        self._cohort = cohort

    def installed(self) -> Installed:
        return look(self.name, package="nvidia_pytriton", known=VERSION)

    def launch(
        self,
        name: str,  # noqa: ARG002 - the target fills it in
        spec: DeploymentSpec,
        artifact: Artifact,
        machine: Machine,
    ) -> Launch:
        options = read_options(TritonOptions, spec.engine_options)
        if options.protocol == "grpc":
            over_grpc("_triton_grpc")
        if options.backend not in ("python", "vllm"):
            raise OperationFailed(_ATTACH_ONLY[options.backend])
        context = context_of(options.context_tokens, artifact, default=DEFAULT_CONTEXT_TOKENS)
        slots = options.slots or DEFAULT_SLOTS
        need = PROCESS_BYTES + artifact.bytes + slots * cache_bytes(artifact, context)
        weights = f"weights {artifact.bytes / 1e6:.0f} MB"
        parts = f"{weights}, Triton and torch, and {slots} contexts of {context} tokens"
        check_fits(need, machine, parts, lower="slots or context_tokens")
        threads = threads_of(options.threads, machine)
        if options.backend == "vllm":
            files = vllm_repository(
                model_path=artifact.path,
                context_tokens=context,
                slots=slots,
                tensor_parallel=options.tensor_parallel,
                pipeline_parallel=options.pipeline_parallel,
            )
            config = _vllm_server(options.protocol)
        else:
            files = python_repository(
                model_path=artifact.path,
                packages=str(_packages()),
                threads=threads,
                context_tokens=context,
                slots=slots,
                max_queue=options.max_queue or DEFAULT_QUEUE,
            )
            config = _python_server(options.protocol)
        return Launch(
            argv=(sys.executable, "-I", "-S", _triton_child.__file__, "{config}"),
            config=msgspec.json.encode(config).decode(),
            files={f"models/{path}": text for path, text in files.items()},
            env=world(threads, **OFFLINE, VLLM_NO_USAGE_STATS="1", LD_LIBRARY_PATH=str(config["libraries"])),
            address=f"{GRPC_SOCKET}:1" if options.protocol == "grpc" else "unix:{socket}",
            slots=0,
            context_tokens=context,
            memory_bytes=need,
            ready_timeout_s=READY_TIMEOUT_S,
            options={"backend": options.backend, "model_name": MODEL, "protocol": options.protocol},
        )

    def connect(
        self,
        address: str,
        *,
        model: str,
        context_tokens: int,
        secret: Secret | None = None,
        allow_private: bool = False,
        options: Mapping[str, Any] = NO_OPTIONS,
    ) -> TritonEngine:
        """
        Raises:
            OperationFailed: The address is malformed or not allowed, the secret is no token, or the extra
                is missing.
        """
        said = read_options(TritonOptions, dict(options))
        token = token_of(secret)
        named = f"{said.secret_header}: {token}" if said.secret_header and token else bearer(token)
        is_ours = address.startswith("unix:")
        pin = None if is_ours else pinned(address, allow_private=allow_private)
        name = said.model_name or model
        if said.protocol == "grpc":
            inputs = INPUTS if said.backend == "python" else ()
            door: Door = over_grpc("_triton_grpc").GrpcDoor(
                address, model=name, credential=named, inputs=inputs, pin=pin
            )
        else:
            door = HttpDoor(address.rstrip("/"), model=name, credential=named, pin=pin, cohort=self._cohort)
        info = EngineInfo(name=self.name, context_tokens=context_tokens)
        return TritonEngine(info, door, backend=said.backend, is_ours=is_ours)


_ATTACH_ONLY = {
    "tensorrtllm": (
        "engine_options.backend: tensorrtllm serves engines that were compiled for one kind of GPU, which no "
        "model of the registry is; fix: start Triton with its repository and give its base_url"
    ),
    "text": (
        "engine_options.backend: text is for a repository that is there already; fix: give the base_url of "
        "its server, or leave backend out"
    ),
}


def _python_server(protocol: Protocol = "rest") -> dict[str, Any]:
    """What the child lays out and runs, of the wheel's server."""
    packages = _packages()
    server = packages / "pytriton" / "tritonserver"
    backend = server / "backends" / "python"
    stub = server / "python_backend_stubs" / packages.parent.name.removeprefix("python")
    parts = [backend / "libtriton_python.so", backend / "triton_python_backend_utils.py"]
    parts.append(stub / "triton_python_backend_stub")
    return {
        "links": {f"backends/python/{part.name}": str(part) for part in parts},
        "libraries": str(packages / "nvidia_pytriton.libs"),
        "fix": "pilothouse engine install triton",
        "argv": _argv(str(server / "bin" / "tritonserver"), "backends", protocol),
    }


def _vllm_server(protocol: Protocol) -> dict[str, Any]:
    backends = f"{SERVER_ELSEWHERE}/backends"
    return {
        "links": {"backends/vllm": f"{backends}/vllm", "backends/python": f"{backends}/python"},
        "libraries": f"{SERVER_ELSEWHERE}/lib",
        "fix": "run Pilothouse in an image of Triton that has the vLLM backend",
        "argv": _argv(f"{SERVER_ELSEWHERE}/bin/tritonserver", "backends", protocol),
    }


def _argv(program: str, backends: str, protocol: Protocol) -> list[str]:
    # Each wants a port as well; HTTP has no use for it.
    if protocol == "grpc":
        doors = [f"--grpc-address={GRPC_SOCKET}", "--grpc-port=1", "--allow-http=false"]
    else:
        doors = ["--http-address=unix:{socket}", "--http-port=1", "--allow-grpc=false"]
    return [
        program,
        "--model-repository=models",
        f"--backend-directory={backends}",
        "--model-control-mode=explicit",
        f"--load-model={MODEL}",
        "--disable-auto-complete-config",
        *doors,
        "--allow-metrics=false",
        f"--exit-timeout-secs={EXIT_S}",
        "--backend-config=python,shm-region-prefix-name={shared_memory}",
    ]


def _packages() -> Path:
    """Of the engine's environment; its Python is the one that Pilothouse runs on."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return environment("triton") / "lib" / version / "site-packages"
