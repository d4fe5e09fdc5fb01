"""
Which version of a model a deployment means.

    assistant                the one from the source that the spec declares
    assistant@production     the version that the spec gives that stage
    assistant@2              that version
    assistant@sha256:ab12..  that file, by the first 12 or more digits of its digest

Pure. Stages stand in the spec, so that moving one is a revision like any other
change: with who and when, and a way back.
"""

from collections.abc import Iterable

from pilothouse.domain.errors import NotFound
from pilothouse.domain.model import ModelVersion
from pilothouse.domain.model_name import split_reference
from pilothouse.domain.spec import Spec

MIN_DIGITS = 12


def find_version(reference: str, spec: Spec, versions: Iterable[ModelVersion]) -> ModelVersion:
    """
    The version that is meant.

    Args:
        versions: All that are here, newest first.

    Raises:
        NotFound: It is not here; the message says what is, and what to do.
    """
    name, selector = split_reference(reference)
    here = [version for version in versions if version.name == name]
    declared = spec.models.get(name)
    if not selector:
        source = declared.source if declared else ""
        # The one that was recorded first: a newer file from the same address is another version.
        found = [version for version in here if version.source == source and source][-1:]
        missing = f"model {name!r} was not pulled yet"
    elif selector.startswith("sha256:"):
        found = [version for version in here if _is_digest(selector, version.digest)]
        missing = f"no version of model {name!r} has the digest {selector[:80]}"
    else:
        stage = declared.stages.get(selector) if declared else None
        wanted = stage or selector
        found = [version for version in here if version.version == wanted]
        kind = (
            f"version {wanted!r}, which stage {selector!r} names,"
            if stage
            else f"stage or version {wanted!r}"
        )
        missing = f"no {kind} of model {name!r} is here"
    if not found:
        raise NotFound(f"{missing}; {_known(here)}")
    return found[0]


def stages_of(version: ModelVersion, spec: Spec) -> list[str]:
    declared = spec.models.get(version.name)
    stages = declared.stages if declared else {}
    return sorted(stage for stage, named in stages.items() if named == version.version)


def users_of_version(version: ModelVersion, spec: Spec, versions: Iterable[ModelVersion]) -> list[str]:
    """Paths of what runs or names exactly this version."""
    all_versions = list(versions)
    users = [f"models.{version.name}.stages.{stage}" for stage in stages_of(version, spec)]
    for name, deployment in spec.deployments.items():
        if not deployment.model:
            continue
        try:
            found = find_version(deployment.model, spec, all_versions)
        except NotFound:
            continue
        if (found.name, found.version) == (version.name, version.version):
            users.append(f"deployments.{name}.model")
    return users


def _is_digest(selector: str, digest: str) -> bool:
    return len(selector) >= len("sha256:") + MIN_DIGITS and digest.startswith(selector)


def _known(here: Iterable[ModelVersion]) -> str:
    versions = ", ".join(version.version for version in here)
    return f"there are: {versions}" if versions else "pull it first: pilothouse model pull SOURCE --name NAME"
