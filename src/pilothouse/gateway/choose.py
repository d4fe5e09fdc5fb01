"""
Which deployments may answer, and in which order they are asked.

One is drawn by weight, or by the subject where the endpoint keeps subjects
together. The others of the split follow, then the fallbacks. Whether one of
them can answer is found out when its place is taken (`attempt`).
"""

from collections.abc import Callable

from pilothouse.domain.errors import EngineUnavailable
from pilothouse.domain.routing import sticky_draw
from pilothouse.gateway.call import Call
from pilothouse.gateway.permit import Places
from pilothouse.gateway.route import EndpointRoutes


def choose(routes: EndpointRoutes, call: Call, draw: Callable[[], float]) -> tuple[Places, ...]:
    """
    Args:
        draw: Gives a number, 0..1 (1 excluded), even.

    Raises:
        EngineUnavailable: No deployment of the endpoint is known here.
    """
    if routes.is_sticky and call.subject_hash:
        order = routes.order(sticky_draw(routes.entry.name, call.subject_hash))
    else:
        order = routes.order(draw())
    if not order:
        raise EngineUnavailable(
            f"no deployment of endpoint {routes.entry.name} is known to this worker yet", retry_after_s=1.0
        )
    return order
