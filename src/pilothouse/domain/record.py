"""
What is kept of a request: facts for everyone who may look, content for the few.

`InferenceRecord` holds no prompt and no answer; `Content` holds both and is
sealed wherever it rests.
"""

from typing import Literal

from msgspec import Struct

from pilothouse.domain.chat import Aside

CacheResult = Literal["hit", "semantic", "miss", "bypass"]

FOUND: frozenset[CacheResult] = frozenset({"hit", "semantic"})
"""Answered without a generation of its own: its tokens are those of an earlier answer."""


class InferenceRecord(Struct, frozen=True, omit_defaults=True, gc=False):
    """
    One request as it ended. Times are Unix seconds, durations milliseconds.

    `code` is "ok" or an error code of `domain.errors`; `overhead_us` is the time
    spent in Pilothouse itself; `cost_micro_usd` is an integer of millionths.
    `subject_hash` is keyed, so that a database alone names nobody.
    """

    id: str
    time: float
    team: str
    key_id: str
    endpoint: str
    deployment: str = ""
    replica: str = ""
    kind: str = "chat"
    code: str = "ok"
    subject_hash: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    ttft_ms: float | None = None
    duration_ms: float = 0.0
    overhead_us: int = 0
    cost_micro_usd: int = 0
    cache: CacheResult = "bypass"
    finish_reason: str = ""
    streamed: bool = False
    shadow_of: str = ""
    """The record that this one is the shadow of: no caller saw its answer, and it counts nowhere."""


class Content(Struct, frozen=True, omit_defaults=True, gc=False):
    """The request body as it came and the text of the answer (choices in order)."""

    request: bytes
    answers: list[str]
    protocol: str = "openai"
    """What the request is written in."""
    asides: list[Aside] = []
    """What was said beside each choice's text, such as calls of tools; empty where nothing was."""


class Shadowed(Struct, frozen=True):
    """The request that a shadow was sent beside: what both are compared by stands in one frame."""

    record: InferenceRecord
    answers: list[str] = []
    """Empty where the endpoint keeps none."""
    is_retried: bool = False
    """Its first attempt failed, and another answered."""


class JournalEntry(Struct, frozen=True, omit_defaults=True, gc=False):
    """What the journal keeps of one request; frames hold some of them (`domain.entries`)."""

    record: InferenceRecord
    content: Content | None = None
    shadowed: Shadowed | None = None
    """Of a shadow: what it is compared with."""
    life: int = 0
    """The worker's lease that the cost is settled against (`domain.leasing.LedgerAsk.life`)."""
