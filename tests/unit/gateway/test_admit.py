"""Who may have what, and what a refusal gives away."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_rig import endpoint_entry
from pilothouse.domain.errors import ModelNotFound, NotSupported, PermissionDenied, PilothouseError
from pilothouse.domain.policy import Deny, decide
from pilothouse.domain.principal import Principal
from pilothouse.gateway.admit import INVOKING_ROLES, bounded, may_see, routes_for
from pilothouse.gateway.route import EndpointRoutes
from pilothouse.wire.openai.inbound import read_chat

SERVED = {
    "chat": EndpointRoutes(endpoint_entry("chat"), {}),
    "vectors": EndpointRoutes(endpoint_entry("vectors", tasks=("embedding",)), {}),
}


def principal(role: str = "developer", endpoints: frozenset[str] | None = None) -> Principal:
    return Principal("k", "a", role, endpoints, None)


def refusal(who: Principal, name: str, task: str = "chat") -> PilothouseError:
    with pytest.raises(PilothouseError) as caught:
        routes_for(SERVED, who, name, task)
    return caught.value


def test_a_developer_gets_the_endpoint():
    assert routes_for(SERVED, principal(), "chat", "chat").name == "chat"


def test_an_auditor_may_not_call_models():
    assert isinstance(refusal(principal("auditor"), "chat"), PermissionDenied)


@pytest.mark.parametrize("name", ["chat", "nothing"])
def test_a_role_that_may_not_call_learns_nothing_of_names(name):
    assert refusal(principal("auditor"), name).message == refusal(principal("auditor"), "other").message


def test_an_endpoint_out_of_scope_looks_like_one_that_is_not_there():
    scoped = principal(endpoints=frozenset({"vectors"}))

    hidden, absent = refusal(scoped, "chat"), refusal(scoped, "nope")

    assert isinstance(hidden, ModelNotFound)
    assert hidden.message.replace("chat", "nope") == absent.message
    assert hidden.param == "model"


def test_a_task_that_the_endpoint_does_not_do_is_named_with_those_it_does():
    error = refusal(principal(), "vectors", "chat")

    assert isinstance(error, NotSupported)
    assert "embedding" in error.message


def test_a_long_name_is_not_repeated_whole():
    assert len(refusal(principal(), "x" * 100_000).message) < 400


def test_scope_decides_what_is_seen():
    assert may_see(principal(), endpoint_entry("chat"))
    assert may_see(principal(endpoints=frozenset({"chat"})), endpoint_entry("chat"))
    assert not may_see(principal(endpoints=frozenset()), endpoint_entry("chat"))


def test_what_a_teams_secret_pays_for_is_there_for_that_team_alone():
    assert may_see(principal(), endpoint_entry("chat", team="a"))
    assert not may_see(principal(), endpoint_entry("chat", team="b"))


def test_the_roles_that_may_call_are_those_of_the_policy():
    roles = ("admin", "operator", "developer", "auditor", "viewer", "")
    allowed = {role for role in roles if not isinstance(decide(principal(role), "invoke", "a"), Deny)}

    assert allowed == INVOKING_ROLES


@settings(max_examples=30)
@given(wish=st.none() | st.integers(1, 10_000), bound=st.integers(1, 10_000))
def test_new_tokens_are_bounded_by_the_endpoint(wish, bound):
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}]%s}'
    ask = read_chat(body % (b"" if wish is None else b',"max_tokens":%d' % wish))

    given_tokens = bounded(ask, bound).max_tokens

    assert given_tokens == min(wish or bound, bound)
