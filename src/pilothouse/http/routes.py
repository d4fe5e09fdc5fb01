"""
The data plane's routes: path -> handler and policy, and nothing else.

A route without a policy fails at start. What is not the hot path is passed
through to the controller, which has policies of its own.
"""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pilothouse.kit.http1.message import Request
from pilothouse.kit.http1.responder import Responder

Handler = Callable[[Request, Responder], Coroutine[Any, Any, None]]
Policy = Literal["key", "open", "controller"]
"""`key`: the handler authenticates first. `open`: no key. `controller`: decided there."""


@dataclass(frozen=True)
class Route:
    methods: frozenset[str]
    handler: Handler
    policy: Policy


class Routes:
    """Exact paths, then prefixes (longest first)."""

    def __init__(self, exact: Mapping[str, Route], prefixes: Mapping[str, Route]) -> None:
        for path, route in (*exact.items(), *prefixes.items()):
            if route.policy not in ("key", "open", "controller"):
                raise ValueError(f"route {path} has no policy")
        self._exact = dict(exact)
        self._prefixes = sorted(prefixes.items(), key=lambda item: -len(item[0]))

    def find(self, path: str) -> Route | None:
        route = self._exact.get(path)
        if route is None:
            for prefix, candidate in self._prefixes:
                if path.startswith(prefix):
                    return candidate
        return route


PASSED_PATHS = ("/metrics", "/v1/feedback", "/v1/files", "/v1/batches")
PASSED_PREFIXES = ("/admin/", "/v1/files/", "/v1/batches/")
"""No hot paths: the controller answers them."""

NOT_BUILT_PATHS = (
    "/v1/fine_tuning",
    "/v1/audio",
    "/v1/images",
    "/v1/watermark",
)
"""Named in the contract, brought by later issues: 501 in the protocol's own shape."""
