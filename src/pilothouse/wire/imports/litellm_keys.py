"""
Keys and teams of a LiteLLM proxy, from exports of its database or its admin API.

Its table of keys holds the SHA-256 of each key, which is enough to let the key go
on working here (`domain.apikey.carried`). Source: the proxy's published Prisma
schema, tables LiteLLM_VerificationToken and LiteLLM_TeamTable.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from pilothouse.domain.limits import LimitWords
from pilothouse.wire.imports.carried import Carried, CarriedKey, CarriedTeam, Fields, budget_words, free_name

DEFAULT_TEAM = "litellm"
"""Of keys that belong to no team: here each belongs to one."""
ALL_MODELS = frozenset({"all-team-models", "all-proxy-models", "*"})
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TEAM_CHARS = re.compile(r"[^a-z0-9-]+")
_SILENT = (
    "created_at", "updated_at", "created_by", "updated_by", "key_name", "last_active", "user_id", "token_id",
    "object_permission_id", "budget_id", "user", "team", "team_alias", "organization_id", "router_settings",
)  # fmt: skip
"""Columns that say nothing of what a key may do."""
_NOTES = {
    "spend": "what was spent so far is not counted here: budgets begin anew",
    "aliases": "aliases are those of endpoints",
    "config": "a key has no settings of its own",
    "permissions": "a key carried over is a developer's",
    "metadata": "a key carries no metadata",
    "model_max_budget": "budgets for one model are those of its endpoint",
    "model_spend": "what was spent so far is not counted here",
    "soft_budget": "watch the metric of spending instead",
    "members": "people are not imported; give each a key of the team",
    "members_with_roles": "people are not imported; give each a key of the team",
    "admins": "people are not imported; see pilothouse role list",
    "budget_reset_at": "periods are calendar days, weeks and months in UTC",
    "allowed_routes": "a developer's key calls endpoints only",
}


def read_teams(export: object, carried: Carried) -> dict[str, str]:
    """Fills `carried.teams`; the names here by their `team_id` there."""
    names: dict[str, str] = {}
    for fields in _rows(export, "teams", carried):
        team_id = fields.text("team_id")
        wanted = fields.text("team_alias") or team_id
        name = _team_name(wanted, carried)
        names[team_id] = name
        if fields.take("blocked"):
            carried.note(fields.path, f"team {name} was blocked: its keys are not carried over")
            names[team_id] = ""
        carried.teams[name] = CarriedTeam(name=name, limits=_limits(fields, carried))
        if set(fields.texts("models")) - ALL_MODELS:
            carried.note(fields.at("models"), "a team may call every endpoint; its keys name those they may")
        _close(fields)
    return names


def read_keys(export: object, carried: Carried, teams: Mapping[str, str], *, now: float) -> None:
    """
    Fills `carried.keys`.

    Args:
        teams: As `read_teams` gave them.
        now: Unix seconds; keys that ended before are left out.
    """
    served = {
        name: endpoint for endpoint, spec in carried.endpoints.items() for name in (endpoint, *spec.aliases)
    }
    for fields in _rows(export, "keys", carried):
        token = fields.text("token")
        called = fields.text("key_alias") or token[:8]
        where = f"{fields.path} ({called[:40]})"
        if not _SHA256.fullmatch(token):
            carried.note(where, "no SHA-256 in its token: make a new key for its owner")
            continue
        if fields.take("blocked"):
            carried.note(where, "it was blocked")
            continue
        team_id = fields.text("team_id")
        team = teams.get(team_id, "") if team_id else _default_team(carried)
        if not team:
            carried.note(where, "its team is not in the teams' export, or was blocked")
            continue
        expires = fields.text("expires")
        expires_at = _moment(expires) if expires else None
        if expires and expires_at is None:
            carried.note(where, "its expiry cannot be read: make a new key for its owner")
            continue
        if expires_at is not None and expires_at <= now:
            carried.note(where, "it has expired")
            continue
        models = [model for model in fields.texts("models") if model not in ALL_MODELS]
        endpoints = tuple(dict.fromkeys([served[model] for model in models if model in served]))
        for model in models:
            if model not in served:
                carried.note(where, f"it may call {model[:60]!r}, which was not carried over")
        if models and not endpoints:
            carried.note(where, "nothing that it may call was carried over: it was left out")
            continue
        carried.keys.append(
            CarriedKey(
                token_sha256=token,
                team=team,
                name="".join([char for char in called if char.isprintable()])[:100],
                endpoints=endpoints or None,
                expires_at=expires_at,
                limits=_limits(fields, carried),
            )
        )
        _close(fields)


def _rows(export: object, kind: str, carried: Carried) -> list[Fields]:
    """A list of rows, or an answer of the admin API that holds one."""
    if isinstance(export, Mapping):
        export = next((export[name] for name in (kind, "data", "items") if name in export), None)
    if not isinstance(export, list):
        carried.note(kind, "expected a list of rows, or an object that holds one")
        return []
    return [
        Fields(row.get("team_info", row) if isinstance(row, Mapping) else row, f"{kind}[{place}]", carried)
        for place, row in enumerate(export)
    ]


def _limits(fields: Fields, carried: Carried) -> LimitWords:
    usd, duration = fields.number("max_budget"), fields.text("budget_duration")
    budget = budget_words(usd, duration or "1mo")
    if budget is None:
        carried.note(
            fields.at("budget_duration"), f"{duration[:20]}: budgets are for a day, a week or a month"
        )
    elif budget and not duration:
        carried.note(fields.at("max_budget"), "it was for all time: it is for each month here")
    return LimitWords(
        rpm=fields.whole("rpm_limit"),
        tpm=fields.whole("tpm_limit"),
        parallel=fields.whole("max_parallel_requests"),
        budget=budget or "",
    )


def _close(fields: Fields) -> None:
    for name in fields.names():
        if name in _SILENT:
            fields.take(name)
    for name in _NOTES:
        if not _matters(fields, name):
            fields.take(name)
    fields.refuse_known(_NOTES)
    for name in fields.names():
        if not _matters(fields, name):
            fields.take(name)
    fields.rest()


def _matters(fields: Fields, name: str) -> bool:
    """Whether a column says anything: most of a row are empty ones."""
    value = fields.peek(name)
    return value not in ({}, [], "", 0, False, None)


def _team_name(wanted: str, carried: Carried) -> str:
    plain = _TEAM_CHARS.sub("-", wanted.lower()).strip("-")[:50] or "team"
    return free_name(plain, carried.teams)


def _default_team(carried: Carried) -> str:
    carried.teams.setdefault(DEFAULT_TEAM, CarriedTeam(name=DEFAULT_TEAM))
    return DEFAULT_TEAM


def _moment(text: str) -> float | None:
    """Unix seconds of an ISO 8601 time, which is UTC unless it says otherwise."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
