"""
What vLLM and SGLang say beside the OpenAI protocol: their version, their load, what a prompt comes to.

Belongs here: one engine class for both, and how their drivers connect. Does not:
how they are started. All of it is asked by probes, off the request path.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta, Struct

from pilothouse.adapters.engines._attached import OPENAI_TAKES, bearer, pinned, token_of
from pilothouse.adapters.engines._holes import Hole, why_refused
from pilothouse.adapters.engines._openai_http import OpenAIEngine
from pilothouse.adapters.engines._server_load import LoadSeries, load_of
from pilothouse.domain.chat import Ability
from pilothouse.domain.errors import InvalidRequest, NotSupported, PilothouseError, UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.model import ModelFormat
from pilothouse.domain.status import Health, Load
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.secret import Secret
from pilothouse.ports.engine import KEEPS_ALL, NO_OPTIONS, EngineInfo, Promise
from pilothouse.wire.openai.said import EngineFault

Ranks = Annotated[int, Meta(ge=1, le=64)]
"""Processes that share a model."""
ParserName = Annotated[str, Meta(pattern=r"^[a-z0-9_-]{0,40}$")]
SERVED = "model"
"""The name that one of ours knows its one model by, whatever its path is: no request names another."""
ASIDE_S = 5.0
_GREEDY = "n must be 1 when using greedy sampling"
_GUESSES = "not yet supported with speculative decoding"
"""vLLM's words."""


class Dialect(Struct, frozen=True, kw_only=True):
    """Where one of them says what."""

    holes: Sequence[Hole]
    version_path: str
    version_field: str
    load: LoadSeries
    counts: bool = False
    """Whether it says how many tokens a request has, chat template and tools included."""


class VllmEngine(OpenAIEngine):
    """
    Implements `ports.engine.Engine`, and `TokenCounter`.

    Args:
        dialect: Which of the two it is.
    """

    def __init__(self, *positional: Any, dialect: Dialect, **named: Any) -> None:
        super().__init__(*positional, **named)
        self._dialect = dialect

    async def health(self, *, deadline_s: float) -> Health:
        try:
            reason = why_refused(self.info.name, await self._version(deadline_s), self._dialect.holes)
        except PilothouseError as exc:
            return Health(ok=False, reason=exc.message)
        return Health(ok=False, reason=reason) if reason else await super().health(deadline_s=deadline_s)

    async def load(self) -> Load:
        metrics = await self._get(f"{self._root}/metrics", deadline_s=ASIDE_S)
        found = load_of(metrics, self._dialect.load)
        if found is None:
            raise UpstreamError(f"the engine's metrics do not say {self._dialect.load.running}")
        return found

    async def count(self, request: GenerateRequest, *, deadline_s: float) -> int:
        if not self._dialect.counts:
            return await super().count(request, deadline_s=deadline_s)
        asked: dict[str, Any] = {"model": self._model}
        if request.kind == "chat":
            asked |= {"messages": request.prompt, "add_generation_prompt": True}
            if request.sampling.tools is not None:
                asked["tools"] = request.sampling.tools
        else:
            asked["prompt"] = request.prompt
        body = msgspec.json.encode(asked)
        return (await self._ask_aside("/tokenize", body, _Counted, deadline_s=deadline_s)).count

    async def _version(self, deadline_s: float) -> str:
        """ "" where it is not said: then nothing is known against it."""
        try:
            data = await self._get(self._root + self._dialect.version_path, deadline_s=deadline_s)
            return str(msgspec.json.decode(data, type=dict[str, Any]).get(self._dialect.version_field, ""))
        except (UpstreamError, msgspec.DecodeError):
            return ""

    def _refused(self, status: int, fault: EngineFault, wait: bytes) -> PilothouseError:
        if status == 404 and fault.message is None:  # no such route; that there is no such model is said
            return NotSupported("this model does not do that; see the endpoint's tasks")
        if status == 400 and _GREEDY in (fault.message or ""):
            return InvalidRequest(
                "n: several answers at temperature 0 are the same; ask for one, or raise temperature",
                param="n",
            )
        if status == 400 and _GUESSES in (fault.message or ""):
            return InvalidRequest(
                "this deployment guesses tokens ahead (speculative_tokens), and its engine takes neither "
                "logit_bias nor min_p with that; leave them out",
                param="logit_bias",
            )
        return super()._refused(status, fault, wait)


class _Counted(Struct):
    count: int


class VllmFamily:
    """What the drivers of both share of `ports.engine.EngineDriver`."""

    name: ClassVar[str]
    dialect: ClassVar[Dialect]
    formats: frozenset[ModelFormat] = frozenset({"safetensors"})
    cannot: Mapping[Promise, str] = KEEPS_ALL

    def __init__(self, *, cohort: Cohort | None = None) -> None:
        self._cohort = cohort

    def connect(
        self,
        address: str,
        *,
        model: str,
        context_tokens: int,
        secret: Secret | None = None,
        allow_private: bool = False,
        options: Mapping[str, Any] = NO_OPTIONS,
    ) -> VllmEngine:
        """
        Raises:
            OperationFailed: The address is malformed or not allowed, or the secret is no bearer token.
        """
        served = options.get("served")
        return VllmEngine(
            EngineInfo(
                name=self.name,
                context_tokens=context_tokens,
                whole=True,
                can=_abilities(options) if served else OPENAI_TAKES,
            ),
            address.rstrip("/"),
            dialect=self.dialect,
            model=served or model,
            credential=bearer(token_of(secret)),
            pin=None if address.startswith("unix:") else pinned(address, allow_private=allow_private),
            cohort=self._cohort,
        )


def handed_on(served: str, *, takes_tools: bool, takes_bias: bool) -> dict[str, Any]:
    """The `Launch.options` of one that we start: the name that answers, and what it was told it can."""
    return {"served": served, "takes_tools": takes_tools, "takes_bias": takes_bias}


def _abilities(options: Mapping[str, Any]) -> frozenset[Ability]:
    """Of one that we started."""
    can: set[Ability] = {"token_ids"}
    if options.get("takes_tools"):
        can.add("tools")
    if options.get("takes_bias"):
        can.add("logit_bias")
    return frozenset(can)
