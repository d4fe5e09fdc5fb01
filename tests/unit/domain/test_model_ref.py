import pytest
from msgspec.structs import replace

from pilothouse.domain.errors import NotFound
from pilothouse.domain.licence import licence_fault
from pilothouse.domain.model import ModelHeader, ModelVersion
from pilothouse.domain.model_ref import find_version, stages_of, users_of_version
from pilothouse.domain.spec import DeploymentSpec, ModelSpec, Spec

ONE = ModelVersion(
    name="assistant",
    version="1",
    digest="sha256:" + "a" * 64,
    format="gguf",
    bytes=1,
    quantization="Q4",
    context_tokens=1,
    licence="MIT",
    source="file:/one.gguf",
    source_digest="",
    header=ModelHeader(architecture="llama", context_tokens=1, quantization="Q4", parameters=1),
    created_at=1.0,
)
TWO = replace(ONE, version="2", digest="sha256:" + "b" * 64, source="file:/two.gguf", created_at=2.0)
VERSIONS = [TWO, ONE]
SPEC = Spec(
    models={"assistant": ModelSpec(source="file:/one.gguf", stages={"production": "2", "previous": "1"})},
    deployments={
        "live": DeploymentSpec(model="assistant@production"),
        "old": DeploymentSpec(model="assistant"),
        "other": DeploymentSpec(engine="openai", provider_model="x"),
    },
)


@pytest.mark.parametrize(
    ("reference", "version"),
    [
        ("assistant", ONE),
        ("assistant@production", TWO),
        ("assistant@previous", ONE),
        ("assistant@1", ONE),
        ("assistant@sha256:bbbbbbbbbbbb", TWO),
        (f"assistant@{ONE.digest}", ONE),
    ],
)
def test_a_version_is_meant_by_source_stage_version_or_digest(reference: str, version: ModelVersion) -> None:
    assert find_version(reference, SPEC, VERSIONS) == version


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("assistant@3", "no stage or version '3' of model 'assistant' is here; there are: 2, 1"),
        ("assistant@sha256:bb", "no version of model 'assistant' has the digest"),
        ("nobody@1", "pull it first"),
        ("nobody", "was not pulled yet"),
    ],
)
def test_what_is_not_here_is_told_with_what_is(reference: str, reason: str) -> None:
    with pytest.raises(NotFound, match=reason):
        find_version(reference, SPEC, VERSIONS)


def test_a_newer_file_from_the_same_address_does_not_take_the_place_of_the_first() -> None:
    newer = replace(ONE, version="3", digest="sha256:" + "c" * 64, created_at=3.0)

    assert find_version("assistant", SPEC, [newer, *VERSIONS]) == ONE
    assert find_version("assistant@3", SPEC, [newer, *VERSIONS]) == newer


def test_a_version_knows_its_stages_and_its_users() -> None:
    assert stages_of(TWO, SPEC) == ["production"]
    assert users_of_version(TWO, SPEC, VERSIONS) == [
        "models.assistant.stages.production",
        "deployments.live.model",
    ]
    assert users_of_version(ONE, SPEC, VERSIONS) == [
        "models.assistant.stages.previous",
        "deployments.old.model",
    ]


@pytest.mark.parametrize(
    ("licence", "is_allowed"),
    [
        ("MIT", True),
        ("mit", True),
        ("Apache-2.0 OR GPL-3.0", True),
        ("(MIT OR GPL-3.0)", True),
        ("MIT AND Apache-2.0", True),
        ("MIT AND GPL-3.0", False),
        ("GPL-3.0", False),
        ("", False),
        ("  ", False),
        ("MIT-like", False),
    ],
)
def test_a_licence_is_held_against_the_allowed_ones(licence: str, is_allowed: bool) -> None:
    assert (licence_fault(licence, ["MIT", "Apache-2.0"]) == "") is is_allowed


def test_without_a_policy_any_licence_will_do() -> None:
    assert licence_fault("", []) == ""
