"""The engine suite on the real thing."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pilothouse.adapters.engines._openai_http import OpenAIEngine
from pilothouse.adapters.engines.llama_cpp import LlamaCppDriver
from pilothouse.domain.status import Replica
from pilothouse.testing.conformance_engine import EmbeddingConformance, EngineConformance

pytestmark = pytest.mark.engine


class LlamaLab:
    def __init__(self, replica: Replica, folder: Path) -> None:
        self.driver = LlamaCppDriver()
        self.context_tokens = replica.context_tokens
        self.engine = self.driver.connect(replica.address, model="m", context_tokens=replica.context_tokens)
        self._nowhere = f"unix:{folder / 'nobody.sock'}"

    def dead(self) -> OpenAIEngine:
        return self.driver.connect(self._nowhere, model="m", context_tokens=0)


@pytest.fixture
async def smollm2_lab(smollm2_replica: tuple[object, Replica], tmp_path: Path) -> AsyncIterator[LlamaLab]:
    lab = LlamaLab(smollm2_replica[1], tmp_path)
    yield lab
    await lab.engine.aclose()


@pytest.fixture
async def minilm_lab(minilm_replica: tuple[object, Replica], tmp_path: Path) -> AsyncIterator[LlamaLab]:
    lab = LlamaLab(minilm_replica[1], tmp_path)
    yield lab
    await lab.engine.aclose()


class TestLlamaCpp(EngineConformance):
    @pytest.fixture
    def lab(self, smollm2_lab: LlamaLab) -> LlamaLab:
        return smollm2_lab


class TestLlamaCppEmbeddings(EmbeddingConformance):
    @pytest.fixture
    def lab(self, minilm_lab: LlamaLab) -> LlamaLab:
        return minilm_lab
