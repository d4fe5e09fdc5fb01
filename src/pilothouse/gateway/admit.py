"""
May this caller have this now: endpoint, scope, task, size, and room for its record.

Limits and budgets come with the ledger (issue 3) and belong here as well.
"""

from collections.abc import Mapping
from typing import Protocol

import msgspec

from pilothouse.domain.chat import GenerateRequest
from pilothouse.domain.errors import InvalidRequest, ModelNotFound, NotSupported, PermissionDenied
from pilothouse.domain.fairness import PRIORITIES, Priority
from pilothouse.domain.policy import GRANTS
from pilothouse.domain.principal import Principal
from pilothouse.domain.snapshot import EndpointEntry

INVOKING_ROLES = frozenset({"admin", "operator", "developer"})


class Known(Protocol):
    """A snapshot, or what a worker made of one."""

    @property
    def endpoints(self) -> Mapping[str, EndpointEntry]: ...


def endpoint_for(known: Known, principal: Principal, name: str, task: str) -> EndpointEntry:
    """
    The endpoint that the caller asked for.

    An endpoint out of the key's scope looks like one that is not there, so that
    a key cannot be used to learn what else exists.

    Raises:
        ModelNotFound, PermissionDenied, NotSupported
    """
    if principal.role not in INVOKING_ROLES:
        raise PermissionDenied(f"keys of role {principal.role} may not call models")
    endpoint = known.endpoints.get(name)
    if endpoint is None or not may_see(principal, endpoint):
        shown = name if len(name) <= 100 else name[:100] + "..."
        raise ModelNotFound(
            f"the model {shown!r} does not exist or this key may not use it; GET /v1/models lists yours",
            param="model",
        )
    if task not in endpoint.tasks:
        raise NotSupported(
            f"the model {name!r} does not do {task}; it does {', '.join(endpoint.tasks)}", param="model"
        )
    return endpoint


def may_see(principal: Principal, endpoint: EndpointEntry) -> bool:
    if endpoint.team and endpoint.team != principal.team:
        return False
    return principal.endpoints is None or endpoint.name in principal.endpoints


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


def bounded(ask: GenerateRequest, endpoint: EndpointEntry) -> GenerateRequest:
    """The request with the endpoint's bound on new tokens; a larger wish is cut to it, as documented."""
    if ask.max_tokens is not None and ask.max_tokens <= endpoint.max_tokens:
        return ask
    return msgspec.structs.replace(ask, max_tokens=endpoint.max_tokens)


def is_unstored(store: bool, endpoint: EndpointEntry) -> bool:  # noqa: FBT001 - a field of requests
    """
    Whether nothing of its content may be kept.

    Raises:
        InvalidRequest: It shall be kept, and the endpoint keeps nothing.
    """
    if store and endpoint.records != "sealed":
        raise InvalidRequest(
            f"store: endpoint {endpoint.name} keeps no prompts and answers; leave it out or send false",
            param="store",
        )
    return not store
