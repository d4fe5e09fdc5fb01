from hashlib import sha256
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pilothouse.wire.imports import litellm, litellm_keys
from pilothouse.wire.imports.carried import Carried

NOW = 1_800_000_000.0
TOKEN = sha256(b"sk-1234567890abcdefghij").hexdigest()


def carried_config() -> Carried:
    config = {"model_list": [{"model_name": "gpt/4o", "litellm_params": {"model": "openai/gpt-4o"}}]}
    return litellm.read(config, variables={})


def keys(*rows: dict[str, Any], teams: Any = ()) -> Carried:
    carried = carried_config()
    names = litellm_keys.read_teams(list(teams), carried) if teams else {}
    litellm_keys.read_keys(list(rows), carried, names, now=NOW)
    return carried


def test_a_key_keeps_its_team_its_models_its_limits_and_its_end():
    carried = keys(
        {
            "token": TOKEN, "key_alias": "batch job", "team_id": "t1", "models": ["gpt/4o"], "rpm_limit": 60,
            "tpm_limit": 9000, "max_parallel_requests": 4, "max_budget": 12.5, "budget_duration": "7d",
            "expires": "2100-01-01T00:00:00Z", "spend": 3.2, "metadata": {}, "blocked": None,
        },
        teams=[{"team_id": "t1", "team_alias": "Data Science", "max_budget": 100, "budget_duration": "30d"}],
    )  # fmt: skip

    (key,) = carried.keys
    assert (key.token_sha256, key.team, key.name) == (TOKEN, "data-science", "batch job")
    assert key.endpoints == ("gpt-4o",)
    assert (key.limits.rpm, key.limits.tpm, key.limits.parallel) == (60, 9000, 4)
    assert (key.limits.budget, carried.teams["data-science"].limits.budget) == (
        "12.5usd/week",
        "100usd/month",
    )
    assert key.expires_at == 4102444800.0
    assert [note.path for note in carried.notes] == ["keys[0].spend"]


def test_a_key_without_a_team_or_models_gets_a_team_and_all_endpoints():
    carried = keys({"token": TOKEN, "models": ["all-proxy-models"]})

    (key,) = carried.keys
    assert (key.team, key.endpoints, key.expires_at) == ("litellm", None, None)


def test_no_key_is_widened_and_each_that_is_left_out_is_told():
    carried = keys(
        {"token": "sk-plain", "key_alias": "no hash"},
        {"token": TOKEN, "key_alias": "blocked", "blocked": True},
        {"token": TOKEN, "key_alias": "expired", "expires": "2001-01-01"},
        {"token": TOKEN, "key_alias": "odd end", "expires": "soon"},
        {"token": TOKEN, "key_alias": "other models", "models": ["not-here"]},
        {"token": TOKEN, "key_alias": "lost team", "team_id": "gone"},
        {"token": TOKEN, "key_alias": "blocked team", "team_id": "t1"},
        teams=[{"team_id": "t1", "blocked": True}],
    )

    assert carried.keys == []
    assert {
        name for name in range(7) if any(n.path.startswith(f"keys[{name}]") for n in carried.notes)
    } == set(range(7))


def test_a_budget_for_another_time_is_told_and_not_made_up():
    carried = keys({"token": TOKEN, "max_budget": 5, "budget_duration": "90d"})

    assert carried.keys[0].limits.budget == ""
    assert [note.path for note in carried.notes] == ["keys[0].budget_duration"]


def test_an_answer_of_the_admin_api_is_read_as_its_rows():
    carried = carried_config()
    litellm_keys.read_keys({"keys": [{"token": TOKEN}], "total_count": 1}, carried, {}, now=NOW)

    assert len(carried.keys) == 1


COLUMNS = st.sampled_from(["keys", "token", "models", "expires", "team_id", "max_budget", "x"])
anything = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(COLUMNS, inner, max_size=4),
)


@given(anything)
def test_no_export_whatever_breaks_the_import(export: object):
    carried = carried_config()
    litellm_keys.read_keys(export, carried, litellm_keys.read_teams(export, carried), now=NOW)

    assert all(key.team in carried.teams and len(key.token_sha256) == 64 for key in carried.keys)
