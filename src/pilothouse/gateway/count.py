"""
How many tokens a prompt has, by the tokenizer of the engine that would read it.

Costs no place in an engine and no tokens; it is bounded all the same, for a caller
may ask as often as he likes.
"""

from pilothouse.domain.errors import EngineUnavailable, NotSupported, Overloaded
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.snapshot import EndpointEntry
from pilothouse.gateway.state import GatewayState
from pilothouse.ports.engine import TokenCounter

_AT_ONCE = 8
"""Of each worker: a tokenizer is quick, and no queue is worth its while."""
_DEADLINE_S = 10.0


class Counting:
    def __init__(self, state: GatewayState) -> None:
        self._state = state
        self._running = 0

    async def count(self, ask: GenerateRequest, endpoint: EndpointEntry) -> int:
        """
        Raises:
            NotSupported: No replica's engine can say it.
            EngineUnavailable: No replica is ready.
            Overloaded: Too many are counted now.
        """
        engine = self._engine(endpoint)
        if self._running >= _AT_ONCE:
            raise Overloaded("too many prompts are counted at once; try again", retry_after_s=1.0)
        self._running += 1
        try:
            return await engine.count(ask, deadline_s=_DEADLINE_S)
        finally:
            self._running -= 1

    def _engine(self, endpoint: EndpointEntry) -> TokenCounter:
        replicas = [
            replica
            for route in endpoint.routes
            if (places := self._state.places.get(route.deployment)) is not None
            for replica in places.replicas.values()
        ]
        if not replicas:
            raise EngineUnavailable(f"no replica of {endpoint.name} is ready to count", retry_after_s=1.0)
        for replica in replicas:
            if isinstance(replica.engine, TokenCounter):
                return replica.engine
        raise NotSupported("the engine of this model does not say how many tokens a prompt has")
