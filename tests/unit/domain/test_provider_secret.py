"""A secret opens for its host, and a spec that would send it elsewhere is refused."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.errors import InvalidRequest, OperationFailed
from pilothouse.domain.provider_secret import (
    SealedSecret,
    check_secret,
    host_of,
    secret_faults,
    unset_secrets,
)
from pilothouse.domain.secret_opening import open_secret, place_of
from pilothouse.domain.spec import CacheSpec, DeploymentSpec, EndpointSpec, RouteSpec, SemanticSpec, Spec
from pilothouse.kit.seal import Sealer, enclose

KEK = Sealer("kek", os.urandom(32))


def sealed(value: str = "sk-1", *, name: str = "s", team: str = "", host: str = "a.example") -> SealedSecret:
    shut = enclose(value.encode(), place_of(name, team, host), lambda key: KEK.seal(key, b""))
    return SealedSecret(name=name, team=team, host=host, sealed=shut, created_at=1.0, changed_at=1.0)


def opened(secret: SealedSecret | None, url: str, *, wanted: str = "s") -> str | None:
    found = open_secret(secret, wanted, url, unwrap=lambda wrapped: KEK.open(wrapped, b""))
    return found.reveal() if found is not None else None


def deployment(url: str = "https://a.example/v1", secret: str = "s", **more: object) -> DeploymentSpec:  # noqa: S107 - a name
    return DeploymentSpec(engine="openai", engine_options={"base_url": url, "secret": secret, **more})


def endpoint(*names: str, cache: CacheSpec = CacheSpec()) -> EndpointSpec:  # noqa: B008 - frozen
    return EndpointSpec(routes=[RouteSpec(deployment=name) for name in names], cache=cache)


@pytest.mark.parametrize(
    "url", ["https://a.example", "https://A.example:443/v1/x?y", "https://a.example./v1"]
)
def test_it_opens_for_every_address_of_its_host(url: str):
    assert opened(sealed(), url) == "sk-1"


@pytest.mark.parametrize(
    "url",
    [
        "https://b.example/v1",
        "https://a.example:8443/v1",
        "http://a.example/v1",
        "https://a.example@b.example/v1",
        "https://a.example.b.example",
        "not an address",
        "https://[",
        "",
    ],
)
def test_it_does_not_open_for_another_address(url: str):
    with pytest.raises(OperationFailed, match="is bound to"):
        opened(sealed(), url)


@pytest.mark.parametrize("change", [{"name": "t"}, {"team": "red"}])
def test_it_does_not_open_under_another_name_or_for_another_team(change: dict[str, str]):
    there = sealed()
    moved = SealedSecret(
        **{**{n: getattr(there, n) for n in there.__struct_fields__}, **change}  # type: ignore[arg-type]
    )

    with pytest.raises(OperationFailed):
        opened(moved, "https://a.example")


def test_one_that_is_not_there_is_told_with_the_command_that_sets_it():
    with pytest.raises(OperationFailed, match="pilothouse secret set s --host a"):
        opened(None, "https://a.example/v1")
    assert opened(None, "https://a.example/v1", wanted="") is None


def test_nothing_that_prints_it_shows_it():
    assert "sk-1" not in f"{sealed()!r} {sealed()}"
    assert sealed().sealed.hex() not in repr(sealed())


def test_a_spec_that_leads_elsewhere_is_refused_and_names_both_hosts():
    spec = Spec(deployments={"d": deployment("https://evil.example/v1")})

    (fault,) = secret_faults(spec, {"s": sealed()})

    assert fault.startswith("deployments.d.engine_options.secret:")
    assert "a.example" in fault
    assert "evil.example" in fault


def test_a_secret_goes_over_http_only_into_a_private_network():
    secrets = {"s": sealed(host="gpu:8000")}

    assert secret_faults(Spec(deployments={"d": deployment("http://gpu:8000/v1")}), secrets)
    assert not secret_faults(
        Spec(deployments={"d": deployment("http://gpu:8000/v1", allow_private_network=True)}), secrets
    )


def test_one_that_is_not_set_yet_is_a_warning():
    spec = Spec(deployments={"d": deployment()})

    assert not secret_faults(spec, {})
    assert "pilothouse secret set s --host a.example" in unset_secrets(spec, {})[0]
    assert not unset_secrets(spec, {"s": sealed()})


def test_an_endpoint_of_two_teams_secrets_is_refused():
    secrets = {"s": sealed(team="red"), "t": sealed(name="t", team="blue"), "u": sealed(name="u")}
    spec = Spec(
        deployments={name: deployment(secret=name) for name in "stu"},
        endpoints={"one": endpoint("s", "u"), "two": endpoint("s", "t")},
    )

    (fault,) = secret_faults(spec, secrets)

    assert fault.startswith("endpoints.two:")


def test_vectors_for_the_cache_count_as_its_endpoints_own():
    secrets = {"s": sealed(team="red"), "t": sealed(name="t", team="blue")}
    semantic = CacheSpec(exact_ttl="1h", semantic=SemanticSpec(embedder="vectors", threshold=0.9))
    spec = Spec(
        deployments={name: deployment(secret=name) for name in "st"},
        endpoints={"chat": endpoint("s", cache=semantic), "vectors": endpoint("t")},
    )

    assert [fault.partition(":")[0] for fault in secret_faults(spec, secrets)] == ["endpoints.chat"]


@pytest.mark.parametrize("host", ["", "https://a.example", "a.example/x", "A.example", "a b", "a:443", "x@y"])
def test_a_host_that_no_address_has_is_refused(host: str):
    with pytest.raises(InvalidRequest, match="host"):
        check_secret("s", host, "v")


def test_a_refused_value_is_never_repeated():
    with pytest.raises(InvalidRequest) as caught:
        check_secret("s", "a.example", "secret-part\x00")

    assert "secret-part" not in caught.value.message


@given(st.text(max_size=60))
def test_any_text_has_a_host_or_none(url: str):
    assert isinstance(host_of(url), str)
