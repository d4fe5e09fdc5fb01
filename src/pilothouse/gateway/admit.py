"""
May this caller have this now: endpoint, scope, task, size, and room for its record.

Limits and budgets come with the ledger (issue 3) and belong here as well.
"""

from typing import Final

from pilothouse.domain.chat import Sampling
from pilothouse.domain.errors import InvalidRequest, ModelNotFound, NotSupported, PermissionDenied
from pilothouse.domain.fairness import PRIORITIES, Priority
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.policy import GRANTS
from pilothouse.domain.principal import Principal
from pilothouse.domain.snapshot import EndpointEntry
from pilothouse.gateway.route import EndpointRoutes

INVOKING_ROLES: Final = frozenset({"admin", "operator", "developer"})


def routes_for(
    known: dict[str, EndpointRoutes], principal: Principal, name: str, task: str
) -> EndpointRoutes:
    """
    Of the endpoint that the caller asked for.

    An endpoint out of the key's scope looks like one that is not there, so that
    a key cannot be used to learn what else exists.

    Raises:
        ModelNotFound, PermissionDenied, NotSupported
    """
    if principal.role not in INVOKING_ROLES:
        raise PermissionDenied(f"keys of role {principal.role} may not call models")
    routes = known.get(name)
    if routes is None or not _is_in_scope(principal, routes.name, routes.team):
        shown = name if len(name) <= 100 else name[:100] + "..."
        raise ModelNotFound(
            f"the model {shown!r} does not exist or this key may not use it; GET /v1/models lists yours",
            param="model",
        )
    if task not in routes.tasks:
        raise NotSupported(
            f"the model {name!r} does not do {task}; it does {', '.join(routes.tasks)}", param="model"
        )
    return routes


def may_see(principal: Principal, endpoint: EndpointEntry) -> bool:
    return _is_in_scope(principal, endpoint.name, endpoint.team)


def _is_in_scope(principal: Principal, name: str, team: str) -> bool:
    """
    Args:
        team: The one that the endpoint belongs to; "" is all.
    """
    if team and team != principal.team:
        return False
    return principal.endpoints is None or name in principal.endpoints


def priority_of(asked: bytes, principal: Principal) -> Priority:
    """
    What `x-pilothouse-priority` asks for.

    Raises:
        InvalidRequest: Another word.
        PermissionDenied: The role may not go before its colleagues.
    """
    priority = _PRIORITIES.get(asked.strip().lower())
    if priority is None:
        raise InvalidRequest("x-pilothouse-priority is high, normal or low", param="x-pilothouse-priority")
    if priority == "high" and "invoke.high" not in GRANTS.get(principal.role, ()):
        raise PermissionDenied(
            f"keys of role {principal.role} may not use x-pilothouse-priority: high; leave it out"
        )
    return priority


_PRIORITIES: dict[bytes, Priority] = {priority.encode(): priority for priority in PRIORITIES}


def bounded(ask: GenerateRequest, most: int) -> GenerateRequest:
    """The request with its endpoint's bound on new tokens; a larger wish is cut to it, as documented."""
    wished = ask.max_tokens
    if wished is not None and wished <= most:
        return ask
    return ask.within(most)


def asks_for_form(sampling: Sampling) -> bool:
    """Whether what is answered has to keep to a form (`wire.openai.formats`)."""
    return sampling.response_format is not None or sampling.tools is not None


def is_unstored(store: bool, endpoint: EndpointRoutes) -> bool:  # noqa: FBT001 - a field of requests
    """
    Whether nothing of its content may be kept.

    Raises:
        InvalidRequest: It shall be kept, and the endpoint keeps nothing.
    """
    if store and not endpoint.is_sealed:
        raise InvalidRequest(
            f"store: endpoint {endpoint.name} keeps no prompts and answers; leave it out or send false",
            param="store",
        )
    return not store
