from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.config import read_spec_file, write_brief_spec
from pilothouse.domain.speccheck import check_spec
from pilothouse.wire.imports import litellm
from pilothouse.wire.imports.carried import Carried
from spec_trees import ENGINES

VARIABLES = {"AZURE_API_BASE": "https://eu.example/", "OPENAI_API_KEY": "sk-NEVER"}
plain = st.none() | st.booleans() | st.integers(-3, 10**6) | st.floats() | st.text(max_size=12)
anything = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


def entry(name: str, model: str, **params: Any) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": {"model": model, **params}}


def carry(*entries: dict[str, Any], **more: Any) -> Carried:
    config = {"model_list": list(entries), **more}
    return litellm.read(config, variables=VARIABLES)


def noted(carried: Carried) -> set[str]:
    return {note.path for note in carried.notes}


def accepted(carried: Carried) -> None:
    """A spec that the server takes, and that reads back from its file."""
    check_spec(carried.spec, engines=ENGINES, targets=["local"])
    assert read_spec_file(write_brief_spec(carried.spec), name="spec").spec == carried.spec


def test_a_model_group_becomes_an_endpoint_with_shares_as_the_proxy_has_them():
    carried = carry(
        entry("gpt-4o", "openai/gpt-4o", rpm=60),
        entry(
            "gpt-4o",
            "azure/eu",
            rpm=180,
            api_base="os.environ/AZURE_API_BASE",
            api_key="os.environ/AZURE_KEY",
        ),
    )

    accepted(carried)
    routes = carried.endpoints["gpt-4o"].routes
    azure = carried.deployments[routes[1].deployment]
    assert [route.weight for route in routes] == [25, 75]
    assert azure.common.base_url == "https://eu.example/openai/v1"
    assert azure.provider_model == "eu"
    assert carried.secrets["azure-key"].host == "eu.example"
    assert carried.secrets["openai-api-key"].variable == "OPENAI_API_KEY"


def test_a_model_of_anthropic_is_asked_in_its_own_protocol():
    carried = carry(entry("claude", "anthropic/claude-haiku-4-5"), entry("other", "claude-opus-4-5"))

    accepted(carried)
    deployment = carried.deployments[carried.endpoints["claude"].routes[0].deployment]
    assert (deployment.engine, deployment.provider_model) == ("anthropic", "claude-haiku-4-5")
    assert deployment.common.base_url == "https://api.anthropic.com"
    assert carried.secrets["anthropic-api-key"].host == "api.anthropic.com"
    assert len(carried.deployments) == 2


def test_a_model_of_bedrock_is_asked_by_its_engine_with_the_access_key_of_the_file():
    carried = carry(
        entry(
            "claude",
            "bedrock/converse/eu.anthropic.claude-sonnet-4-5-v1:0",
            aws_region_name="eu-central-1",
            aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
            aws_secret_access_key="abcdefghijklmnop/KEY",
        )
    )

    accepted(carried)
    (deployment,) = carried.deployments.values()
    assert (deployment.engine, deployment.provider_model) == (
        "bedrock",
        "eu.anthropic.claude-sonnet-4-5-v1:0",
    )
    assert deployment.common.base_url == "https://bedrock-runtime.eu-central-1.amazonaws.com"
    assert deployment.engine_options["region"] == "eu-central-1"
    (secret,) = carried.secrets.values()
    assert secret.value is not None
    assert msgspec.json.decode(secret.value.reveal()) == {
        "AccessKeyId": "AKIAIOSFODNN7EXAMPLE",
        "SecretAccessKey": "abcdefghijklmnop/KEY",
    }
    assert secret.host == "bedrock-runtime.eu-central-1.amazonaws.com"
    assert carried.notes == []


def test_credentials_that_are_elsewhere_are_named_with_the_command_that_sets_them():
    carried = carry(
        entry("nova", "bedrock/eu-west-1/amazon.nova-lite-v1:0", aws_access_key_id="os.environ/AWS_ID"),
        entry("gemini", "vertex_ai/gemini-2.5-flash", vertex_project="my-project", vertex_location="global"),
    )

    accepted(carried)
    bedrock, vertex = carried.deployments.values()
    assert bedrock.engine_options["region"] == "eu-west-1"
    assert vertex.common.base_url == "https://aiplatform.googleapis.com"
    assert vertex.engine_options["location"] == "global"
    assert carried.secrets == {}
    assert [note.reason.split("`")[-2] for note in carried.notes] == [
        "pilothouse secret set bedrock-credentials --host bedrock-runtime.eu-west-1.amazonaws.com",
        "pilothouse secret set vertex-credentials --host aiplatform.googleapis.com",
    ]


def test_an_api_key_of_bedrock_is_a_secret_like_others():
    carried = carry(
        entry("nova", "bedrock/amazon.nova-lite-v1:0", aws_region_name="us-east-1", api_key="os.environ/KEY")
    )

    accepted(carried)
    (deployment,) = carried.deployments.values()
    assert deployment.engine_options["auth"] == "api_key"
    assert carried.secrets["key"].variable == "KEY"


@pytest.mark.parametrize(
    ("model", "params", "part"),
    [
        ("bedrock/amazon.nova-lite-v1:0", {}, "aws_region_name"),
        (
            "bedrock/amazon.nova-lite-v1:0",
            {"aws_region_name": "us-east-1", "api_base": "bedrock.example"},
            "plain http",
        ),
        ("bedrock/invoke/anthropic.claude", {"aws_region_name": "us-east-1"}, "Converse"),
        ("vertex_ai/gemini-2.5-pro", {}, "vertex_project"),
        ("vertex_ai/claude-sonnet-4", {"vertex_project": "p"}, "Google's own"),
    ],
)
def test_a_model_of_a_cloud_that_cannot_be_asked_is_named_with_the_reason(model, params, part):
    carried = carry(entry("m", model, **params))

    assert carried.deployments == {}
    assert part in carried.notes[0].reason


def test_a_name_that_no_endpoint_can_have_stays_what_callers_write():
    spaced = carry(entry("meta-llama/Llama 3", "hosted_vllm/llama", api_base="http://vllm:8000/v1"))
    slashed = carry(entry("meta-llama/Llama-3", "hosted_vllm/llama", api_base="http://vllm:8000/v1"))

    accepted(slashed)
    assert slashed.endpoints["meta-llama-Llama-3"].aliases == ("meta-llama/Llama-3",)
    assert slashed.notes == []
    accepted(spaced)
    assert spaced.endpoints["meta-llama-Llama-3"].aliases == ()
    assert [note.reason for note in spaced.notes] == ["it cannot be a name here"]


def test_fallbacks_aliases_retries_timeouts_and_cache_are_carried():
    carried = carry(
        entry("big", "openai/big", timeout=90, stream_timeout=7),
        entry("small", "groq/small"),
        litellm_settings={
            "fallbacks": [{"big": ["small"]}],
            "num_retries": 4,
            "request_timeout": 33,
            "cache": True,
            "cache_params": {"ttl": 600},
        },
        router_settings={
            "model_group_alias": {"default": "big", "hidden": {"model": "small", "hidden": True}}
        },
    )

    accepted(carried)
    big, small = carried.endpoints["big"], carried.endpoints["small"]
    assert big.fallback == ("small-groq",)
    assert (big.aliases, small.aliases) == (("default",), ("hidden",))
    assert (big.limits.timeout, small.limits.timeout) == ("90s", "33s")
    assert big.timeouts.first_byte == "7s"
    assert (big.retries.max, big.cache.exact_ttl, big.cache.when) == (4, "600s", "always")
    assert carried.notes == []


def test_prices_of_a_token_become_prices_of_a_million():
    carried = carry(
        entry("a", "openai/a", input_cost_per_token=0.0000025, output_cost_per_token="1e-05"),
        {**entry("b", "openai/b"), "model_info": {"cache_read_input_token_cost": 3e-07}},
    )

    assert float(carried.prices["a-openai"].input_usd) == 2.5
    assert float(carried.prices["a-openai"].output_usd) == 10
    assert float(carried.prices["b-openai"].cached_input_usd or 0) == pytest.approx(0.3)


def test_what_cannot_be_carried_is_named_with_the_reason():
    carried = carry(
        entry("claude", "made-up/claude"),
        entry("all/*", "openai/*"),
        entry("ok", "openai/ok", temperature=0.3, extra_headers={"a": "b"}),
        litellm_settings={"callbacks": ["langfuse"], "made_up": 1, "fallbacks": [{"ok": ["claude"]}]},
        general_settings={"master_key": "sk-NEVER", "database_url": "postgres://NEVER"},
        made_up_section={"x": 1},
    )

    assert noted(carried) == {
        "model_list[0] (claude)",
        "model_list[1] (all/*)",
        "model_list[2].litellm_params.temperature",
        "model_list[2].litellm_params.extra_headers",
        "litellm_settings.callbacks",
        "litellm_settings.made_up",
        "fallbacks of ok",
        "general_settings.master_key",
        "general_settings.database_url",
        "made_up_section",
    }
    assert "NEVER" not in str(carried.notes)


def test_a_key_that_stands_in_the_file_is_in_no_spec_note_or_print():
    carried = carry(
        entry("a", "openai/a", api_key="sk-LITERAL"),
        entry("b", "openai/b", api_key="sk-LITERAL"),
        entry("c", "openai/c", api_key="sk-LITERAL-OTHER"),
        entry("d", "lm_studio/d", api_key="none", api_base="http://127.0.0.1:1234/v1"),
    )

    shown = f"{carried.spec} {carried.notes} {carried.secrets} {msgspec.json.encode(carried.spec)!r}"
    files = [carried.deployments[f"{name}-openai"].common.secret for name in "abc"]
    assert "LITERAL" not in shown
    assert files[0] == files[1] != files[2]
    assert {secret.value.reveal() for secret in carried.secrets.values() if secret.value} == {
        "sk-LITERAL",
        "sk-LITERAL-OTHER",
    }
    assert carried.deployments["d-lm_studio"].common.secret == ""
    assert carried.deployments["d-lm_studio"].common.allow_private_network


def test_a_setting_from_a_variable_that_is_not_set_is_said():
    carried = carry(entry("a", "azure/x", api_base="os.environ/MISSING"), entry("b", "openai/b"))

    assert "MISSING" in str(carried.notes)
    assert set(carried.endpoints) == {"b"}


@given(anything)
def test_no_file_whatever_breaks_the_import(config: object):
    accepted(litellm.read(config, variables={}))


@given(
    st.dictionaries(
        st.sampled_from(["model_name", "litellm_params", "model_info", "x"]), anything, max_size=4
    )
)
def test_no_entry_whatever_breaks_the_import(broken: dict[str, Any]):
    accepted(carry(broken, entry("ok", "openai/ok")))


@given(st.text(min_size=1, max_size=10), anything.filter(lambda value: value is not None))
def test_every_field_is_carried_or_named(name: str, value: object):
    """Also those that a later version of the proxy invents."""
    name = f"zz_{name}"
    carried = carry(
        {**entry("ok", "openai/ok", **{name: value}), name: value, "model_info": {name: value}},
        litellm_settings={name: value},
        router_settings={name: value},
        general_settings={name: value},
    )

    assert noted(carried) == {
        f"model_list[0].{name}",
        f"model_list[0].litellm_params.{name}",
        f"model_list[0].model_info.{name}",
        f"litellm_settings.{name}",
        f"router_settings.{name}",
        f"general_settings.{name}",
    }
