"""
llama.cpp's server, through xllamacpp: one child process a replica.

Pure: it says how a replica is started and how it is spoken to. The child's own
code is `_llama_child`; where it runs is a target's affair.
"""

import sys

import msgspec

from pilothouse.adapters.engines._openai_http import OpenAIEngine
from pilothouse.domain.model import Artifact
from pilothouse.domain.sizing import size
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.ports.engine import Launch, Machine

BATCH_TOKENS = 512
"""Tokens computed at once: a cancel is seen between two batches."""
CHILD = "pilothouse.adapters.engines._llama_child"


class LlamaCppDriver:
    """Implements `ports.engine.EngineDriver`."""

    name = "llama.cpp"
    launches = True

    def launch(self, name: str, spec: DeploymentSpec, artifact: Artifact, machine: Machine) -> Launch:
        options = spec.engine_options
        sizing = size(
            artifact.header,
            artifact.bytes,
            free_bytes=machine.memory_available_bytes,
            slots=options.slots,
            context_tokens=options.context_tokens,
            least_slots=machine.workers,
        )
        embeds = bool(artifact.header.pooling)
        config = {
            "model_path": artifact.path,
            "model_name": artifact.name,
            "slots": sizing.slots,
            "context_tokens": sizing.context_tokens,
            "threads": options.threads or max(1, machine.cpus - 1),
            # A text is embedded in one batch, so that has to hold the longest.
            "batch_tokens": sizing.context_tokens if embeds else BATCH_TOKENS,
            "embeds": embeds,
        }
        return Launch(
            argv=(
                sys.executable,
                "-I",
                "-m",
                CHILD,
                "--replica",
                name,
                "--home-id",
                "{home_id}",
                "--socket",
                "{socket}",
                "--config",
                "{config}",
                "--log",
                "{log}",
            ),
            config=msgspec.json.encode(config).decode(),
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
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
        return OpenAIEngine(self.name, address, model=model, context_tokens=context_tokens, slots=True)
