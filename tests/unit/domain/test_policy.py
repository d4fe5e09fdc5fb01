import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.policy import (
    ACTIONS,
    ALLOW,
    GRANTS,
    ROLES,
    Action,
    Deny,
    Grant,
    Role,
    decide,
    decide_grant,
    sees_all_teams,
)
from pilothouse.domain.principal import Principal
from pilothouse.gateway.admit import INVOKING_ROLES


def who(
    role: str,
    *,
    team: str = "red",
    endpoints: frozenset[str] | None = None,
    expires_at: float | None = None,
) -> Principal:
    return Principal("abcdefgh", team, role, endpoints, expires_at)


def grant(role: str, *, team: str = "red", expires_at: float | None = None) -> Grant:
    return Grant(team=team, role=role, expires_at=expires_at)


@given(st.text(), st.text(), st.none() | st.text())
def test_what_is_not_granted_is_denied(role: str, action: str, team: str | None):
    decision = decide(who(role), action, team)  # type: ignore[arg-type]

    assert (decision == ALLOW) == (role in GRANTS and action in GRANTS[role] and team in (None, "red"))  # type: ignore[index]


@pytest.mark.parametrize("role", [role for role in ROLES if role != "admin"])
def test_another_teams_things_are_hidden_from_everyone_but_admins(role: Role):
    for action in ACTIONS:
        decision = decide(who(role), action, "blue")

        assert isinstance(decision, Deny)
        assert decision.hidden


def test_an_admin_sees_across_teams():
    assert all(decide(who("admin"), action, "blue") == ALLOW for action in ACTIONS)
    assert sees_all_teams(who("admin"))
    assert not sees_all_teams(who("operator"))


def test_prompts_are_for_admins_only():
    may = {role for role in ROLES if decide(who(role), "records.content", "red") == ALLOW}

    assert may == {"admin"}


def test_an_auditor_changes_nothing():
    changing = {
        action for action in ACTIONS if not action.endswith((".read", ".content")) and action != "admin.other"
    }

    assert not changing & GRANTS["auditor"]


@pytest.mark.parametrize("role", ROLES)
def test_a_key_limited_to_endpoints_only_calls_them(role: Role):
    limited = who(role, endpoints=frozenset({"chat"}))

    allowed = {action for action in ACTIONS if decide(limited, action) == ALLOW}

    assert allowed <= {"invoke", "invoke.high", "endpoints.read", "feedback.write", "files.use"}
    assert not sees_all_teams(limited)


def test_a_denial_says_which_roles_may():
    decision = decide(who("developer"), "keys.create", "red")

    assert isinstance(decision, Deny)
    assert "admin or operator" in decision.reason


@given(st.sampled_from(ROLES), st.sampled_from(ROLES), st.sampled_from(["keys.create", "keys.rotate"]))
def test_nobody_hands_out_more_than_he_has(own: Role, other: Role, action: Action):
    if decide_grant(who(own), action, grant(other)) == ALLOW:
        assert GRANTS[other] <= GRANTS[own]


def test_an_operator_hands_out_every_key_but_an_admins():
    given_out = {role for role in ROLES if decide_grant(who("operator"), "keys.create", grant(role)) == ALLOW}

    assert given_out == {"operator", "developer", "auditor"}


def test_an_operator_cannot_take_an_admins_key_by_rotating_it():
    assert isinstance(decide_grant(who("operator"), "keys.rotate", grant("admin")), Deny)


def test_an_unknown_role_is_not_handed_out():
    assert isinstance(decide_grant(who("admin"), "keys.create", grant("king")), Deny)


@pytest.mark.parametrize(
    ("expires_at", "allowed"), [(None, False), (101.0, False), (100.0, True), (5.0, True)]
)
def test_a_key_that_ends_makes_none_that_outlives_it(expires_at: float | None, allowed: bool):
    decision = decide_grant(
        who("admin", expires_at=100.0), "keys.create", grant("developer", expires_at=expires_at)
    )

    assert (decision == ALLOW) == allowed


def test_a_key_that_ends_revokes_those_that_do_not():
    assert decide_grant(who("admin", expires_at=100.0), "keys.revoke", grant("developer")) == ALLOW


def test_the_gateway_lets_call_exactly_the_roles_that_are_granted_it():
    assert {role for role in ROLES if "invoke" in GRANTS[role]} == INVOKING_ROLES
