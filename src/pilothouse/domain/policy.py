"""
Who may do what: roles, actions, and the decision. Denied unless allowed here.

A decision takes a principal, an action and the team whose thing it is, and
nothing else: the shape that a policy engine (Cedar) takes too, so that one can
replace `decide` without a caller noticing. Only an admin sees across teams;
for everybody else another team's things do not exist (404, never 403).
"""

from typing import Literal, Protocol, get_args

from msgspec import Struct

from pilothouse.domain.principal import Principal

Role = Literal["admin", "operator", "developer", "auditor"]
Action = Literal[
    "invoke",
    "invoke.high",
    "spec.read",
    "spec.write",
    "models.read",
    "models.pull",
    "models.delete",
    "deployments.read",
    "endpoints.read",
    "replicas.read",
    "replicas.logs",
    "engines.read",
    "status.read",
    "metrics.read",
    "teams.read",
    "teams.create",
    "keys.read",
    "keys.create",
    "keys.rotate",
    "keys.revoke",
    "records.read",
    "records.content",
    "rollouts.read",
    "rollouts.write",
    "feedback.write",
    "files.use",
    "usage.read",
    "cache.purge",
    "secrets.read",
    "secrets.write",
    "admin.other",
]
"""`invoke.high` is going before one's own team's other requests, where places are short.
`files.use` is keeping files of prompts and answers, and batches of them; operators see their own alone.
`admin.other` is what no built resource covers: it tells a caller that a feature is not there yet."""

ROLES: tuple[Role, ...] = get_args(Role)
ACTIONS: frozenset[Action] = frozenset(get_args(Action))

_READS: frozenset[Action] = frozenset(
    {"endpoints.read", "models.read", "deployments.read", "engines.read", "admin.other"}
)
_WATCHES: frozenset[Action] = _READS | {
    "spec.read",
    "replicas.read",
    "status.read",
    "metrics.read",
    "teams.read",
    "keys.read",
    "records.read",
    "usage.read",
    "rollouts.read",
    "secrets.read",
}

_OPERATES: frozenset[Action] = frozenset(
    {
        "invoke",
        "invoke.high",
        "spec.write",
        "models.pull",
        "models.delete",
        "replicas.logs",
        "keys.create",
        "keys.rotate",
        "keys.revoke",
        "cache.purge",
        "secrets.write",
        "rollouts.write",
        "feedback.write",
        "files.use",
    }
)
_BUILDS: frozenset[Action] = frozenset(
    {"invoke", "records.read", "usage.read", "feedback.write", "files.use"}
)

GRANTS: dict[str, frozenset[Action]] = {
    "admin": ACTIONS,
    # Runs the machine and hands out keys, but reads nobody's prompts.
    "operator": _WATCHES | _OPERATES,
    # Calls endpoints, and sees what its own team used.
    "developer": _READS | _BUILDS,
    # Sees all that its team did, prompts excepted, and changes nothing.
    "auditor": _WATCHES,
}

_SCOPED: frozenset[Action] = frozenset(
    {"invoke", "invoke.high", "endpoints.read", "feedback.write", "files.use"}
)
"""What a key that is limited to some endpoints may still do: such a key is for calling them."""


class Allow(Struct, frozen=True):
    """Go ahead."""


class Deny(Struct, frozen=True):
    """Do not, and say why. `hidden`: as if the thing were not there."""

    reason: str
    hidden: bool = False


Decision = Allow | Deny
ALLOW = Allow()


class Grant(Struct, frozen=True, kw_only=True):
    """What a key gives to its holder."""

    team: str
    role: str
    expires_at: float | None


class Policy(Protocol):
    """The decision, as callers hold it."""

    def __call__(self, principal: Principal, action: Action, resource_team: str | None = None) -> Decision:
        """`resource_team` is whose thing it is; None where it is no team's alone (models, replicas)."""
        ...


def decide(principal: Principal, action: Action, resource_team: str | None = None) -> Decision:
    """The built-in roles. An unknown role or action is denied."""
    if resource_team is not None and resource_team != principal.team and principal.role != "admin":
        return Deny(f"team {resource_team!r} is another one than the key's own", hidden=True)
    if action not in GRANTS.get(principal.role, frozenset()):
        return Deny(f"role {principal.role!r} does not include {action!r}; it takes {_who_may(action)}")
    if principal.endpoints is not None and action not in _SCOPED:
        return Deny(f"a key that is limited to endpoints may not {action!r}; use one that is not limited")
    return ALLOW


def sees_all_teams(principal: Principal) -> bool:
    """Whether lists show every team's things, or only those of the principal's own."""
    return principal.role == "admin" and principal.endpoints is None


def decide_grant(principal: Principal, action: Action, grant: Grant, *, decide: Policy = decide) -> Decision:
    """
    Whether `principal` may create, rotate or revoke a key that gives `grant`.

    Nobody hands out what he does not have, or a key would be a way to become
    more: no stronger role, no other team, no longer life.
    """
    first = decide(principal, action, grant.team)
    if isinstance(first, Deny):
        return first
    beyond = _granted(grant.role) - _granted(principal.role)
    if grant.role not in GRANTS or beyond:
        return Deny(f"role {principal.role!r} may not hand out role {grant.role!r}: it includes more")
    if action == "keys.revoke" or principal.expires_at is None:
        return ALLOW
    if grant.expires_at is None or grant.expires_at > principal.expires_at:
        return Deny("the new key would outlive the one that makes it; give it an earlier expiry")
    return ALLOW


def _granted(role: str) -> frozenset[Action]:
    return GRANTS.get(role, frozenset())


def _who_may(action: Action) -> str:
    roles = [role for role in ROLES if action in GRANTS[role]]
    return " or ".join(roles) if roles else "nobody"
