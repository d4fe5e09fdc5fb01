"""
llama.cpp's server, through xllamacpp: one child process a replica.

Belongs here: how a replica is started and spoken to. Does not: llama.cpp's
parameters (`_llama_child`), the arithmetic (`domain.sizing`), where it runs (a
target). xllamacpp is not imported here: only the child pays for it.
"""

import sys
from collections.abc import Mapping

import msgspec

from pilothouse.adapters.engines._openai_http import OpenAIEngine
from pilothouse.domain.model import Artifact
from pilothouse.domain.sizing import Wish, choose_sizing
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.kit.cohort import Cohort
from pilothouse.ports.engine import EngineInfo, Launch, Machine

CHILD = "pilothouse.adapters.engines._llama_child"
_ARGUMENTS = (
    *("--replica", "{name}", "--home-id", "{home}"),
    *("--socket", "{socket}", "--config", "{config}", "--log", "{log}"),
)


class LlamaCppDriver:
    """
    Implements `ports.engine.EngineDriver`.

    Args:
        python: Interpreter that has Pilothouse installed.
        env: Variables that the child needs, such as a library path; it inherits none.
        cohort: Requests are sent with the others of their stage.
    """

    name = "llama.cpp"
    launches = True

    def __init__(
        self,
        *,
        python: str = sys.executable,
        env: Mapping[str, str] | None = None,
        cohort: Cohort | None = None,
    ) -> None:
        self._python = python
        self._cohort = cohort
        self._env = {"LANG": "C.UTF-8", **(env or {})}

    def launch(
        self,
        name: str,  # noqa: ARG002 - the target fills it in
        spec: DeploymentSpec,
        artifact: Artifact,
        machine: Machine,
    ) -> Launch:
        options = spec.engine_options
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
        token_file: str = "",  # noqa: ARG002 - a private socket needs no token
        allow_private: bool = False,  # noqa: ARG002 - nor an egress policy
    ) -> OpenAIEngine:
        # Not whole: an unstreamed request goes on computing when its caller is gone.
        info = EngineInfo(
            name=self.name,
            context_tokens=context_tokens,
            whole=False,
            slots=True,
            can=frozenset({"tools"}),
        )
        return OpenAIEngine(info, address, model=model, cohort=self._cohort)
