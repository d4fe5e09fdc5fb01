"""
The door of the admin API: who asks, and whether he may. Before any body is read.

Every route declares its policy action; a route without one does not start
(`refuse_routes_without_action`), and would be denied all the same. The key is
always in a header, never in a cookie, so a browser brings none by itself; what
can be read without a key is refused to foreign names of this machine, for a web
page may have pointed its own name here (DNS rebinding).
"""

import ipaddress
from typing import Any, get_args
from urllib.parse import urlsplit

from litestar import Litestar, Request
from litestar.connection import ASGIConnection
from litestar.datastructures import Headers
from litestar.handlers.base import BaseRouteHandler

from pilothouse.domain.errors import InvalidApiKey, InvalidRequest, NotFound, PermissionDenied
from pilothouse.domain.policy import ACTIONS, Action, Decision, Deny, sees_all_teams
from pilothouse.domain.principal import Principal
from pilothouse.http.plane import Plane, plane_of

PUBLIC = "public"
"""The action of what anybody may read who reaches the port: no state and no secret is in it."""
_LONGEST_KEY = 512

Asked = Request[Principal, Any, Any]
"""A request that passed the guard: `request.user` is its principal."""


def needs(action: Action) -> dict[str, object]:
    """For a route's `opt`."""
    return {"action": action}


PUBLIC_ROUTE: dict[str, object] = {"action": PUBLIC}


def refuse_routes_without_action(app: Litestar) -> None:
    """
    Raises:
        ValueError: A route declares no action, or one that is not in `domain.policy`.
    """
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            if getattr(handler, "http_methods", None) == {"OPTIONS"}:  # the library's own; it tells methods
                continue
            action = handler.opt.get("action")
            if action not in ACTIONS and action != PUBLIC:
                raise ValueError(
                    f"route {route.path} declares no policy action (opt has {action!r}); "
                    f"give it one of: {', '.join(sorted(get_args(Action)))}"
                )


async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Let the request through, with its principal as `request.user`, or raise."""
    plane = plane_of(connection)
    _refuse_foreign_origin(connection.headers)
    action = handler.opt.get("action")
    if action == PUBLIC or (action == "metrics.read" and _metrics_are_open(plane, connection.headers)):
        return
    principal = plane.keyring.authenticate(_presented(connection.headers))
    if action not in ACTIONS:
        raise PermissionDenied("this route has no policy; it is closed to everybody")
    allow(plane.policy(principal, action))
    connection.scope["user"] = principal
    _refuse_unknown_parameters(connection, handler)


def allow(decision: Decision, *, missing: str = "") -> None:
    """
    Go on, or raise.

    Args:
        missing: What to say when the thing is to look as if it were not there.
    """
    if isinstance(decision, Deny):
        if decision.hidden:
            raise NotFound(missing or "there is no such thing, or this key may not see it")
        raise PermissionDenied(decision.reason)


def allow_on(request: Asked, action: Action, team: str, *, missing: str) -> None:
    """Whether the principal may do that to a thing of `team`; NotFound with `missing` for another's."""
    allow(plane_of(request).policy(request.user, action, team), missing=missing)


def team_filter(request: Asked, action: Action, asked: str | None) -> str | None:
    """The team that a list is about: the asked one, else all for who may see all, else his own."""
    if asked is None:
        return None if sees_all_teams(request.user) else request.user.team
    allow_on(request, action, asked, missing=f"no team {asked[:64]!r}, or this key may not see it")
    return asked


def _presented(headers: Headers) -> str:
    """The key as it was sent: as a bearer token, else as `x-api-key`."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    presented = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    if not presented or len(presented) > _LONGEST_KEY:
        raise InvalidApiKey("the API key is missing or wrong; send it as: Authorization: Bearer ph_...")
    return presented


def _metrics_are_open(plane: Plane, headers: Headers) -> bool:
    if plane.settings.metrics == "auto":
        names = [plane.settings.host, _hostname(headers.get("host", ""))]
        # The worker puts the client's address here, a trusted proxy's client included.
        names += [name.strip() for name in headers.get("x-forwarded-for", "127.0.0.1").split(",")]
        return all(map(_is_local, names))
    return plane.settings.metrics == "open"


def _refuse_foreign_origin(headers: Headers) -> None:
    """A page of another site has no business here, whatever it sends along."""
    origin = headers.get("origin")
    known = {headers.get("host", ""), headers.get("x-forwarded-host", "")} - {""}
    if headers.get("sec-fetch-site") == "cross-site" or (
        origin is not None and _authority(origin).lower() not in {host.lower() for host in known}
    ):
        raise PermissionDenied(
            "requests from pages of other sites are refused; open this server's own address"
        )


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _hostname(host: str) -> str:
    """The name in a Host header, without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_local(name: str) -> bool:
    if name.strip("[]").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _refuse_unknown_parameters(
    connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> None:
    """A mistyped filter must not quietly give the whole list."""
    known = handler.parsed_fn_signature.parameters.keys() - {"request", "data"}
    for name in connection.query_params:
        if name not in known:
            there = ", ".join(sorted(known)) or "none"
            raise InvalidRequest(f"{name[:64]!r} is no parameter here; there are: {there}", param=name[:64])
