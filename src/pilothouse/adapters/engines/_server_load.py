"""
How busy a server of the OpenAI dialect is that somebody else runs, where it says so.

Belongs here: which series mean what, and an engine that reads them. Does not: their
format (`wire.prometheus`). It is asked by probes, off the request path, and others
may use the server too: what it says holds for all of its callers.

Sources: the published metrics of vLLM (`vllm:`), SGLang (`sglang:`) and llama.cpp's
server (`llamacpp:`, and its `/slots`). LM Studio publishes none.
"""

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from pilothouse.adapters.engines._openai_http import OpenAIEngine
from pilothouse.domain.errors import UpstreamError
from pilothouse.domain.status import Load
from pilothouse.wire import prometheus

LoadKind = Literal["none", "auto", "vllm", "sglang", "llama"]
MAX_BYTES = 4 * 1024 * 1024
"""Of metrics; a server with many models and adapters has some hundred kB."""
ASIDE_S = 3.0


class LoadSeries(Struct, frozen=True):
    """Names of what runs, what waits, and how much of the cache is used (0..1); "" where it does not say."""

    running: str
    waiting: str
    kv_used: str = ""


VLLM = LoadSeries("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
SGLANG = LoadSeries("sglang:num_running_reqs", "sglang:num_queue_reqs", "sglang:token_usage")
LLAMA = LoadSeries("llamacpp:requests_processing", "llamacpp:requests_deferred")
_SERIES: Mapping[LoadKind, LoadSeries] = {"vllm": VLLM, "sglang": SGLANG, "llama": LLAMA}


def load_of(metrics: bytes, series: LoadSeries) -> Load | None:
    """
    What they say; None where they do not say what runs.

    A server of several ranks has samples of each: their requests are added up, and of
    their caches the mean is taken.
    """
    found = prometheus.samples(
        metrics.decode(errors="replace"), {series.running, series.waiting, series.kv_used}
    )
    if series.running not in found:
        return None
    used = found.get(series.kv_used)
    return Load(
        running=max(0, int(sum(found[series.running]))),
        waiting=max(0, int(sum(found.get(series.waiting, ())))),
        kv_used=min(1.0, max(0.0, sum(used) / len(used))) if used else None,
    )


class ServerEngine(OpenAIEngine):
    """
    Implements `ports.engine.Engine`, with the server's load.

    Args:
        kind: Of the server. `auto` finds out once, and asks no more where the server says nothing.
    """

    def __init__(self, *positional: Any, kind: LoadKind, **named: Any) -> None:
        super().__init__(*positional, **named)
        self._kind = kind

    async def load(self) -> Load:
        """
        Zeros where the server does not say: a server is not worse for it.

        Raises:
            EngineUnavailable: It cannot be reached.
            DeadlineExceeded: It does not answer.
        """
        if self._kind == "none":
            return Load()
        metrics = await self._metrics()
        kinds = list(_SERIES) if self._kind == "auto" else [self._kind]
        for kind in kinds:
            if (found := load_of(metrics, _SERIES[kind])) is not None:
                self._kind = kind
                return found if kind != "llama" else replace(found, kv_used=(await self._slots()).kv_used)
        if "llama" in kinds:
            try:
                found = await self._slots()
            except UpstreamError:
                pass
            else:
                self._kind = "llama"
                return found
        if self._kind == "auto":
            self._kind = "none"
        return Load()

    async def _metrics(self) -> bytes:
        """Empty where there are none."""
        try:
            return await self._get(f"{self._root}/metrics", deadline_s=ASIDE_S, max_bytes=MAX_BYTES)
        except UpstreamError:
            return b""
