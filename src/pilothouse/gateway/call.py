"""One request on its way through the pipeline: what the stages learn of it, in one place."""

import time
from collections.abc import Sequence
from typing import Final, TypeAlias, cast

from pilothouse.domain.chat import Aside, EmbedRequest
from pilothouse.domain.fairness import Priority
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.ledger import Reservation
from pilothouse.domain.principal import Principal
from pilothouse.domain.record import CacheResult
from pilothouse.domain.tensors import InferRequest
from pilothouse.domain.used_tokens import Usage
from pilothouse.gateway.flight import Flight
from pilothouse.gateway.route import EndpointRoutes
from pilothouse.kit.http1.message import Request
from pilothouse.kit.http1.responder import Responder
from pilothouse.wire.dialect import EmbedDialect, GenerateDialect, TensorDialect, Writer

_PREFIX: Final = 4
"""Length of `req_`."""
_NOTHING: Final = Usage()
_perf_counter_ns: Final = time.perf_counter_ns
_time: Final = time.time

Ask: TypeAlias = GenerateRequest | EmbedRequest | InferRequest
AnyDialect: TypeAlias = GenerateDialect | EmbedDialect | TensorDialect


class Call:
    """Filled stage by stage; `keep` reads it last. Times ending in `_ns` are `perf_counter_ns`."""

    id = ""
    """Given once it is known who asks; of nobody's, when it is refused."""
    principal: Principal | None = None
    routes: EndpointRoutes | None = None
    """Of the endpoint, once it is known that the caller may use it."""
    ask: Ask | None
    text: GenerateRequest | None = None
    """`ask`, where that is for text; within the endpoint's bounds, once that is known."""
    has_form = False
    """What is answered has to keep to a form (`wire.openai.formats`)."""
    priority: Priority = "normal"
    subject_hash = ""
    deployment = ""
    replica = ""
    code = "ok"
    usage: Usage
    finish_reason = ""
    engine_ns = 0
    """Time that was spent waiting for a place or for the engine: not our overhead."""
    first_token_ns = 0
    overhead_us = 0
    is_kept = False
    is_unstored = False
    """Its caller wants neither prompt nor answer to be kept."""
    cache: CacheResult = "bypass"
    flight: Flight | None = None
    """What this call generates for others as well, where the endpoint has a cache."""
    reservation: Reservation | None = None
    life = 0
    cost_micro_usd = 0
    limit_headers = ""
    answers: Sequence[Sequence[str]] = ()
    """The pieces of each choice's text."""
    asides: Sequence[Aside] = ()
    """What was said beside the text of each choice; empty where nothing was."""
    failed_first = ""
    """The deployment of the first attempt, where that failed and another was made."""
    asked_twice = False
    """A second replica read the prompt as well: that costs as much as the first did."""
    second_won = False
    writer: Writer | None = None
    """What a stream is written with, once it has begun."""

    def __init__(self, request: Request, responder: Responder, dialect: AnyDialect) -> None:
        self.request = request
        self.responder = responder
        self.dialect = dialect
        self.kind = dialect.kind
        self.ask = None  # here, for mypyc takes no None as the default of a union of several
        self.created_at = _time()
        self.usage = _NOTHING

    @property
    def generating(self) -> GenerateDialect:
        """The dialect of a request for text, which no other could have read."""
        return cast(GenerateDialect, self.dialect)

    @property
    def answer_id(self) -> str:
        """The answer's id leads to its record."""
        return self.dialect.id_prefix + self.id[_PREFIX:]

    def begin_writer(self, ask: GenerateRequest) -> Writer:
        self.writer = self.generating.writer(ask, answer_id=self.answer_id, created=int(self.created_at))
        return self.writer

    def measure_overhead(self) -> int:
        """Microseconds since the request was complete that Pilothouse itself took."""
        spent_ns = _perf_counter_ns() - self.request.received_ns - self.engine_ns
        self.overhead_us = max(0, spent_ns // 1000)
        return self.overhead_us

    def answer_headers(self, content_type: str) -> bytes:
        """The head's lines that every answer carries."""
        return self.with_overhead(self.known_headers(content_type))

    def known_headers(self, content_type: str) -> bytes:
        """Those of them that are known before there is an answer."""
        return (
            f"content-type: {content_type}\r\nx-request-id: {self.id}\r\n"
            f"x-pilothouse-cache: {self.cache}\r\nx-pilothouse-deployment: {self.deployment}\r\n"
            f"{self.limit_headers}"
        ).encode()

    def with_overhead(self, headers: bytes) -> bytes:
        """And the one that is known last."""
        return b"%sx-pilothouse-overhead-us: %d\r\n" % (headers, self.measure_overhead())
