"""Which deployment answers. One route each for now; weights and fallbacks come with routing (issue 3)."""

from pilothouse.domain.errors import EngineUnavailable
from pilothouse.domain.snapshot import EndpointEntry
from pilothouse.gateway.call import Call
from pilothouse.gateway.permit import Places
from pilothouse.gateway.state import GatewayState


def choose(state: GatewayState, endpoint: EndpointEntry, call: Call) -> Places:
    """
    The places of the heaviest route that is known.

    Raises:
        EngineUnavailable: None is.
    """
    for deployment, places in state.routes[endpoint.name]:
        call.deployment = deployment
        return places
    raise EngineUnavailable(
        f"no deployment of endpoint {endpoint.name} is known to this worker yet", retry_after_s=1.0
    )
