from collections.abc import AsyncIterator

import pytest

from pilothouse.domain.errors import UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.ports.engine import Placement
from pilothouse.testing.conformance_engine import (
    EmbeddingConformance,
    EngineConformance,
    WholeConformance,
    answer,
    ask,
    text_of,
    usage_of,
)
from pilothouse.testing.scripted_engine import Script, ScriptedEngine


class ScriptedLab:
    def __init__(self, engine: ScriptedEngine) -> None:
        self.engine = engine
        self.context_tokens = engine.context_tokens

    def dead(self) -> ScriptedEngine:
        return ScriptedEngine(down="nobody listens")


class TestScriptedEngine(EngineConformance, WholeConformance):
    @pytest.fixture
    async def lab(self) -> AsyncIterator[ScriptedLab]:
        engine = ScriptedEngine(token_pause_s=0.005, prompt_token_pause_s=0.001)
        yield ScriptedLab(engine)
        await engine.aclose()

    async def test_it_answers_by_script(self) -> None:
        engine = ScriptedEngine(lambda _: Script(("Ahoy", ", sailor"), cached=2))

        chunks = await answer(engine, ask())

        assert text_of(chunks) == "Ahoy, sailor"
        assert usage_of(chunks).cached == 2

    async def test_it_fails_by_script_after_what_it_said(self) -> None:
        engine = ScriptedEngine(lambda _: Script(("Ahoy",), error=UpstreamError("cut")))
        stream = engine.stream(ask(), Placement(), deadline_s=1)

        assert text_of([await anext(stream)]) == "Ahoy"
        with pytest.raises(UpstreamError, match="cut"):
            await anext(stream)

    async def test_it_can_fail_before_it_says_anything(self) -> None:
        engine = ScriptedEngine(lambda _: Script((), error=UpstreamError("cut")))

        with pytest.raises(UpstreamError):
            await answer(engine, ask())

    async def test_it_remembers_what_it_was_asked_and_who_hung_up(self) -> None:
        engine = ScriptedEngine()
        request: GenerateRequest = ask()
        stream = engine.stream(request, Placement(1, True), deadline_s=1)

        await anext(stream)
        await stream.aclose()

        assert [(one.request, one.placement) for one in engine.asked] == [(request, Placement(1, True))]
        assert engine.cancelled == 1


class TestScriptedEmbeddings(EmbeddingConformance):
    @pytest.fixture
    def lab(self) -> ScriptedLab:
        return ScriptedLab(ScriptedEngine(embeds=True))
