"""
The admin API as one app, served on the controller's private socket.

Clients reach it through the workers, which pass everything on as it came; who
asks and whether he may is decided here (`http.access`).
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, Request, Router, get
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import ControllerRouterHandler, Message, Scope

import pilothouse
from pilothouse.http import (
    admin_cache,
    admin_feedback,
    admin_keys,
    admin_models,
    admin_records,
    admin_rollouts,
    admin_secrets,
    admin_serving,
    admin_spec,
    admin_status,
    admin_usage,
    files,
    health,
    kept_responses,
)
from pilothouse.http.access import PUBLIC_ROUTE, guard, refuse_routes_without_action
from pilothouse.http.errors import EXCEPTION_HANDLERS, request_id_of
from pilothouse.http.openapi import completed
from pilothouse.http.plane import Plane
from pilothouse.http.pulls import Pulls

MAX_BODY_BYTES = 1024 * 1024
"""A spec with thousands of deployments fits; prompts never come here."""

ADMIN_ROUTES: list[ControllerRouterHandler] = [
    *admin_spec.ROUTES,
    *admin_models.ROUTES,
    *admin_serving.ROUTES,
    *admin_keys.ROUTES,
    *admin_secrets.ROUTES,
    *admin_records.ROUTES,
    *admin_usage.ROUTES,
    *admin_cache.ROUTES,
    *admin_rollouts.ROUTES,
    *admin_feedback.ROUTES,
    *admin_status.ROUTES,
]

PUBLIC_ROUTES: list[ControllerRouterHandler] = [
    *admin_feedback.PUBLIC_ROUTES,
    *files.ROUTES,
    *kept_responses.ROUTES,
    *health.ROUTES,
]


def build_app(plane: Plane, *, more_routes: Sequence[ControllerRouterHandler] = ()) -> Litestar:
    """
    The app, ready to be served.

    Raises:
        ValueError: A route declares no policy action.
    """
    app = Litestar(
        [_router(), *PUBLIC_ROUTES, openapi_json, *more_routes],
        guards=[guard],
        exception_handlers=EXCEPTION_HANDLERS,
        before_send=[_stamp],
        lifespan=[_pulls_end_with_the_app],
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=None,
        logging_config=None,
        debug=False,
        pdb_on_exception=False,
    )
    refuse_routes_without_action(app)
    stand_on(app, plane)
    return app


def stand_on(app: Litestar, plane: Plane) -> None:
    """Let the app's routes reach this plane from now on."""
    app.state["plane"] = plane
    app.state["pulls"] = Pulls(plane.models, plane.log)


def openapi_document() -> dict[str, Any]:
    """
    The OpenAPI document of the admin API.

    Made by an app of its own, for the library would add routes of its own, with
    HTML pages and without a policy, to the one that serves.
    """
    described = Litestar(
        [_router(), *health.ROUTES],
        openapi_config=OpenAPIConfig(
            title="Pilothouse admin API",
            version=pilothouse.__version__,
            components=Components(security_schemes={"key": SecurityScheme(type="http", scheme="bearer")}),
            security=[{"key": []}],
            use_handler_docstrings=True,
        ),
        logging_config=None,
        debug=False,
    )
    return completed(described.openapi_schema.to_schema())


@get("/admin/openapi.json", opt=PUBLIC_ROUTE, include_in_schema=False)
async def openapi_json(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """The same for everybody: it names routes, and nothing of this server."""
    state = request.app.state
    if "openapi" not in state:
        state["openapi"] = openapi_document()
    document: dict[str, Any] = state["openapi"]
    return document


def _router() -> Router:
    return Router("/admin/v1", route_handlers=ADMIN_ROUTES)


@asynccontextmanager
async def _pulls_end_with_the_app(app: Litestar) -> AsyncIterator[None]:
    yield
    await app.state["pulls"].aclose()


async def _stamp(message: Message, scope: Scope) -> None:
    """Every answer has an id to ask about, and is cached by nobody."""
    if message["type"] == "http.response.start":
        message["headers"] = [
            *message.get("headers", []),
            (b"x-request-id", request_id_of(scope).encode()),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ]
