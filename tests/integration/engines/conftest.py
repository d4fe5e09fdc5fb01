"""Real llama.cpp replicas, one a model and session."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from engine_home import CONTEXT_TOKENS, Home, launch_of, ready
from pilothouse.domain.model import Artifact
from pilothouse.domain.status import Replica
from pilothouse.kit.folders import make_private


def _running(artifact: Artifact, folder: Path, context_tokens: int) -> Iterator[tuple[Home, Replica]]:
    home = Home(make_private(folder))

    async def begin() -> Replica:
        replica = await home.start(launch_of(artifact, context_tokens=context_tokens))
        await ready(home, replica)
        return replica

    try:
        yield home, asyncio.run(begin())
    finally:
        asyncio.run(home.stop_all())


@pytest.fixture(scope="session")
def smollm2_replica(
    smollm2: Artifact, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Home, Replica]]:
    """One that all tests share: two slots, nothing of a test may stay in it but its prefix cache."""
    yield from _running(smollm2, tmp_path_factory.mktemp("engine"), CONTEXT_TOKENS)


@pytest.fixture(scope="session")
def minilm_replica(
    minilm: Artifact, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Home, Replica]]:
    yield from _running(minilm, tmp_path_factory.mktemp("embedder"), 256)


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    """For replicas of a test's own."""
    home = Home(tmp_path)
    yield home
    await home.stop_all()
