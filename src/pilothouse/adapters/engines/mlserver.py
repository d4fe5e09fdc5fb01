"""
ONNX models through MLServer and onnxruntime: text, or vectors.

Belongs here: how a replica is started and spoken to. Does not: the server's doors
(`_mlserver_child`) and the model class that it runs (`_mlserver_runtime`).
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from pilothouse.adapters.engines._environment import declared, look, python_of
from pilothouse.adapters.engines._kserve import Settings, Task
from pilothouse.adapters.engines._kserve_http import KServeEngine
from pilothouse.adapters.engines._launching import check_fits, context_of, threads_of, world
from pilothouse.adapters.engines._probing import read_load
from pilothouse.domain.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    NotSupported,
    PilothouseError,
)
from pilothouse.domain.model import Artifact, ModelFormat
from pilothouse.domain.options import Count, EngineOptions, read_options
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.domain.status import Load
from pilothouse.domain.tensors import Inferred
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
from pilothouse.wire.kserve_v2.text import PARAMETERS, Convention

VERSION = "1.7.1"
"""Of mlserver; what is taken out of it is no public interface, so each version is tried first."""
PROCESS_BYTES = 220_000_000
"""MLServer and onnxruntime before any weights."""
DEFAULT_CONTEXT_TOKENS = 4096
DEFAULT_PLACES = 2
MODEL, LOAD = "model", "/load"
"""As the child has them, which is not imported: its own imports are MLServer's."""
RUNTIME = "pilothouse_onnx"
_CONVENTION = Convention(
    parameters={**PARAMETERS, "stop": "stop"}, messages_input="messages", text_output="text_output"
)


class MLServerOptions(EngineOptions, frozen=True, kw_only=True):
    """`engine_options` of `engine: mlserver`."""

    threads: Count = 0
    """Processor threads of each request; by default one less than there are, for the gateway's sake."""


class MLServerDriver:
    """Implements `ports.engine.EngineDriver`."""

    name = "mlserver"
    options = MLServerOptions
    abilities: frozenset[EngineAbility] = frozenset({"launch", "stream", "cancel", "embeddings"})
    formats: frozenset[ModelFormat] = frozenset({"onnx"})
    cannot: Mapping[Promise, str] = MappingProxyType({})
    environment = declared("mlserver", f"mlserver=={VERSION}", "onnxruntime", "tokenizers", "jinja2", "onnx")

    def __init__(self, *, cohort: Cohort | None = None) -> None:
        self._cohort = cohort

    def installed(self) -> Installed:
        return look(self.name, package="mlserver", known=VERSION)

    def launch(
        self,
        name: str,  # noqa: ARG002 - the target fills it in
        spec: DeploymentSpec,
        artifact: Artifact,
        machine: Machine,
    ) -> Launch:
        options = read_options(MLServerOptions, spec.engine_options)
        context = context_of(options.context_tokens, artifact, default=DEFAULT_CONTEXT_TOKENS)
        # onnxruntime packs weights for the processor beside those of the file while it loads.
        need = PROCESS_BYTES + 2 * artifact.bytes
        check_fits(need, machine, f"twice its {artifact.bytes / 1e6:.0f} MB and MLServer")
        threads = threads_of(options.threads, machine)
        extra = {
            "threads": threads,
            "context_tokens": context,
            "places": options.slots or DEFAULT_PLACES,
        }
        return Launch(
            argv=(python_of(self.name), "-I", str(_beside("_mlserver_child.py")), "{socket}"),
            files=_files(artifact.path, extra),
            env=world(threads),
            address="unix:{socket}",
            slots=0,
            context_tokens=context,
            memory_bytes=need,
            options={"task": "embedding" if artifact.header.pooling else "text"},
        )

    def connect(
        self,
        address: str,
        *,
        model: str,  # noqa: ARG002 - a replica has one, by a name of ours
        context_tokens: int,
        secret: Secret | None = None,  # noqa: ARG002 - a private socket needs none
        allow_private: bool = False,  # noqa: ARG002 - nor an egress policy
        options: Mapping[str, Any] = NO_OPTIONS,
    ) -> "MLServerEngine":
        task: Task = options.get("task", "text")
        names = {"text": "text_output", "embedding": "embedding"}
        convention = msgspec.structs.replace(_CONVENTION, text_output=names[task])
        settings = Settings(model=MODEL, task=task, convention=convention)
        info = EngineInfo(name=self.name, context_tokens=context_tokens)
        return MLServerEngine(info, address, settings, cohort=self._cohort)


class MLServerEngine(KServeEngine):
    """MLServer with our model class, which says what it cannot do in its answers."""

    def read(self, body: bytes) -> Inferred:
        inferred = super().read(body)
        raise_fault(inferred)
        return inferred

    async def load(self) -> Load:
        data = f"GET {LOAD} HTTP/1.1\r\n{self.lines}\r\n".encode()
        return await self.whole(data, read_load, deadline_s=5.0)


def raise_fault(inferred: Inferred) -> None:
    """
    Raises:
        PilothouseError: What `_mlserver_runtime.Fault` stands for.
    """
    fault = inferred.parameters.get("fault")
    if fault is not None:
        raise _fault(str(fault), inferred)


def _fault(fault: str, inferred: Inferred) -> PilothouseError:
    if fault == "too_long":
        said = inferred.parameters
        return ContextLengthExceeded.counted(said.get("prompt_tokens"), said.get("limit"))
    if fault == "no_template":
        return NotSupported("the model has no chat template; use /v1/completions", param="messages")
    if fault == "template_refused":
        return InvalidRequest("the model's chat template takes no such messages", param="messages")
    return NotSupported("this model does not do that; see the endpoint's tasks")


def _files(path: str, extra: dict[str, int]) -> dict[str, str]:
    """What MLServer reads in its folder: its settings, the model's, and the class that runs it."""
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        "parallel_workers": 0,
        "metrics_endpoint": None,
        "gzip_enabled": False,  # it would hold back what is streamed
        "load_models_at_startup": False,
    }
    model = {
        "name": MODEL,
        "implementation": f"{RUNTIME}.OnnxModel",
        "parameters": {"uri": path, "extra": extra},
    }
    runtime = _beside("_mlserver_runtime.py").read_text()
    return {
        "settings.json": msgspec.json.encode(settings).decode(),
        "model-settings.json": msgspec.json.encode(model).decode(),
        f"{RUNTIME}.py": runtime,
    }


def _beside(name: str) -> Path:
    return Path(__file__).with_name(name)
