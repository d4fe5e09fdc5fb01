"""What monitors read: liveness of the controller, and the metrics of everything."""

from typing import Any

from litestar import Request, get
from litestar.types import ControllerRouterHandler

from pilothouse.http.access import PUBLIC_ROUTE, needs
from pilothouse.http.plane import plane_of

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


@get("/livez", opt=PUBLIC_ROUTE, include_in_schema=False)
async def livez() -> dict[str, str]:
    """It answers, so it lives; load and readiness are other questions."""
    return {"status": "ok"}


@get("/metrics", opt=needs("metrics.read"), media_type=PROMETHEUS)
async def metrics(request: Request[Any, Any, Any]) -> str:
    """All workers and the controller as one, in the Prometheus text format."""
    return await plane_of(request).metrics()


ROUTES: list[ControllerRouterHandler] = [livez, metrics]
