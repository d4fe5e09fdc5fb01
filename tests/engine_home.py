"""Homes for real llama.cpp replicas, started by the real driver and the real target."""

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path

from pilothouse.adapters.engines._openai_http import OpenAIEngine
from pilothouse.adapters.engines.llama_cpp import LlamaCppDriver
from pilothouse.adapters.targets.local import LocalTarget
from pilothouse.domain.model import Artifact
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.domain.status import Replica
from pilothouse.ports.engine import Launch, Machine

CONTEXT_TOKENS = 1024
SLOTS = 2
READY_S = 120.0


@dataclass
class Home:
    """Where replicas of a test run; nothing of it is left at the end."""

    folder: Path

    def target(self) -> LocalTarget:
        return LocalTarget(self.folder / "run", self.folder / "logs")

    async def start(self, launch: Launch, *, name: str = "m-1-0", digest: str = "sha256:aa") -> Replica:
        return await self.target().start(
            name, launch, deployment="m", engine="llama.cpp", model_digest=digest, model_version="m:1"
        )

    async def stop_all(self) -> None:
        target = self.target()
        for replica in await target.observe():
            await target.stop(replica.name, grace_s=1.0)


def launch_of(artifact: Artifact, *, slots: int = SLOTS, context_tokens: int = CONTEXT_TOKENS) -> Launch:
    options = {"slots": slots, "context_tokens": context_tokens}
    machine = Machine(cpus=os.cpu_count() or 1, memory_available_bytes=4 * 10**9)
    return LlamaCppDriver().launch("", DeploymentSpec(model="m", engine_options=options), artifact, machine)


def connected(replica: Replica) -> OpenAIEngine:
    return LlamaCppDriver().connect(replica.address, model="m", context_tokens=replica.context_tokens)


async def ready(home: Home, replica: Replica) -> float:
    """Seconds until it produced a token; a failed test when it dies before."""
    began = time.monotonic()
    engine = connected(replica)
    try:
        while not (health := await engine.health(deadline_s=30.0)).ok:
            (seen,) = [one for one in await home.target().observe() if one.name == replica.name]
            assert seen.state == "starting", seen.reason
            assert time.monotonic() - began < READY_S, health.reason
            await asyncio.sleep(0.02)
    finally:
        await engine.aclose()
    return time.monotonic() - began
