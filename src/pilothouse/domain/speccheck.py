"""
Whether a well-formed declaration makes sense: names, references, ranges.

Pure, and finds all faults at once, so that one round of corrections does.
Shapes and unknown fields are refused earlier, where the spec is read.
"""

import difflib
import itertools
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial

from msgspec.structs import fields

from pilothouse.domain.duration import parse_duration_s
from pilothouse.domain.errors import InvalidRequest, NotFound
from pilothouse.domain.judging import judge_faults
from pilothouse.domain.licence import licence_fault
from pilothouse.domain.limits import limits_of, spec_words
from pilothouse.domain.model import ModelVersion
from pilothouse.domain.model_name import split_reference
from pilothouse.domain.model_ref import find_version
from pilothouse.domain.options import EngineOptions, option_faults
from pilothouse.domain.schedule import parse_hours
from pilothouse.domain.spec import CacheSpec, DeploymentSpec, EndpointSpec, ReplicaRange, RolloutSpec, Spec

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,99}")
"""Longer and freer than a name: it may be the one that another provider gave a model."""
MIN_SHARE, MAX_SHARE = 0.01, 100.0
WHOLE = 100
"""What the weights of an endpoint's routes sum to, where there is more than one."""
_SHOWN = 10
MOST_REPLICAS = 64
"""Of one deployment on one machine."""
_MORE_ENGINES = "others come as packages: see docs/howto/add-an-engine.md, and `pilothouse engine list`"
Engines = Mapping[str, type[EngineOptions]]
_NOT_A_RANGE = f"0 <= min <= max <= {MOST_REPLICAS} does not hold for"


def check_spec(
    spec: Spec,
    *,
    engines: Engines,
    targets: Collection[str],
    versions: Collection[ModelVersion] = (),
) -> None:
    """
    Refuse a spec that cannot be run as declared.

    Args:
        engines: What each engine takes that this server has a driver for, by its name.
        targets: Names of the places where it can run them.
        versions: The model versions that are here, newest first.

    Raises:
        InvalidRequest: With every fault (the first ten), each with its place and the fix.
    """
    refuse([*_faults(spec, engines, targets), *_model_faults(spec, versions)])


def refuse(faults: list[str]) -> None:
    """
    Do nothing when there are none.

    Raises:
        InvalidRequest: With all of them (the first ten in the message).
    """
    if not faults:
        return
    more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    raise InvalidRequest("spec: " + "; ".join(faults[:_SHOWN]) + more, param="spec", faults=faults)


def _faults(spec: Spec, engines: Engines, targets: Collection[str]) -> Iterator[str]:
    for kind, names in (
        ("models", spec.models),
        ("deployments", spec.deployments),
        ("endpoints", spec.endpoints),
    ):
        for name in names:
            if not _NAME.fullmatch(name):
                yield f"{kind}.{name[:64]!r}: a name is 1 to 63 letters, digits, dots, dashes or underscores"
    for name, model in spec.models.items():
        if ":" not in model.source and (model.source or not model.stages):
            yield f"models.{name}.source: write it with its kind, such as file:PATH or pypi:NAME==VERSION"
    for name, deployment in spec.deployments.items():
        for fault in _deployment(deployment, spec, engines, targets):
            yield f"deployments.{name}.{fault}"
    yield from engine_faults(spec, engines)
    for name, endpoint in spec.endpoints.items():
        for fault in (*_endpoint(endpoint, spec), *_routing(endpoint, spec), *_aliases(name, spec)):
            yield f"endpoints.{name}.{fault}"


def _model_faults(spec: Spec, versions: Collection[ModelVersion]) -> Iterator[str]:
    """What is wrong with versions, stages and licences, as far as it can be known before a pull."""
    for name, model in spec.models.items():
        here = [version.version for version in versions if version.name == name]
        for stage, version in model.stages.items():
            if not _NAME.fullmatch(stage) or stage.startswith("sha256"):
                yield f"models.{name}.stages.{stage[:64]!r}: a stage is named as a model is"
            if version not in here:
                yield f"models.{name}.stages.{stage}: {_not_one_of(version, here)}"
    for name, deployment in spec.deployments.items():
        if not deployment.model:
            continue
        base, selector = split_reference(deployment.model)
        declared = spec.models.get(base)
        if not selector and declared and not declared.source:
            stages = ", ".join(f"{base}@{stage}" for stage in declared.stages)
            yield f"deployments.{name}.model: {base!r} has no source, so name a version: {stages}"
        try:
            found = find_version(deployment.model, spec, versions)
        except NotFound as exc:
            if selector:
                yield f"deployments.{name}.model: {exc.message}"
                continue
            licence = declared.licence if declared else ""
            if not licence:
                continue  # of one that is not here yet, the source may tell: it is looked at before a load
        else:
            licence = (declared.licence if declared and not selector else "") or found.licence
        if fault := licence_fault(licence, spec.licences.allowed):
            yield f"deployments.{name}.model: {deployment.model}: {fault}"


def _deployment(
    deployment: DeploymentSpec, spec: Spec, engines: Engines, targets: Collection[str]
) -> Iterator[str]:
    if deployment.target not in targets:
        yield f"target: {_not_one_of(deployment.target, targets)}"
    if deployment.is_attached or "base_url" in _required(engines.get(deployment.engine)):
        if deployment.model:
            yield "model: an engine that runs elsewhere brings its own; name it in provider_model"
    elif "@" not in deployment.model and deployment.model not in spec.models:
        yield f"model: {_not_one_of(deployment.model, spec.models)}"
    yield from _replicas(deployment.replicas)


def _required(shape: type[EngineOptions] | None) -> list[str]:
    return [one.name for one in fields(shape) if one.required] if shape else []


def engine_faults(spec: Spec, engines: Engines) -> Iterator[str]:
    """Engines that nobody knows, and options that theirs does not take."""
    for name, deployment in spec.deployments.items():
        shape = engines.get(deployment.engine)
        if shape is None:
            yield f"deployments.{name}.engine: {_not_one_of(deployment.engine, engines)}; {_MORE_ENGINES}"
            continue
        for fault in option_faults(shape, deployment.engine_options):
            yield f"deployments.{name}.{fault}"


def _replicas(replicas: ReplicaRange) -> Iterator[str]:
    if not 0 <= replicas.min <= replicas.max <= MOST_REPLICAS:
        yield f"replicas: {_NOT_A_RANGE} {replicas.min} and {replicas.max}"
    if replicas.target_inflight < 0:
        yield "replicas.target_inflight: it cannot be negative; 0 is 80 % of the slots"
    yield from _refusals(
        partial(parse_duration_s, replicas.scale_to_zero_after, param="replicas.scale_to_zero_after")
    )
    for place, window in enumerate(replicas.schedule):
        at = f"replicas.schedule[{place}]"
        if not 0 <= window.min <= window.max <= MOST_REPLICAS:
            yield f"{at}: {_NOT_A_RANGE} {window.min} and {window.max}"
        if not window.days:
            yield f"{at}.days: at least one is needed"
        yield from _refusals(partial(parse_hours, window.hours, param=f"{at}.hours"))


def _rollout(rollout: RolloutSpec) -> Iterator[str]:
    rises = all(a < b for a, b in itertools.pairwise(rollout.steps))
    if not rollout.steps or not rises or not 0 < rollout.steps[0] <= rollout.steps[-1] < 100:
        yield f"rollout.steps: per cents that rise within 1..99, such as [5, 25, 50], not {rollout.steps}"
    for field in ("margin", "alpha"):
        if not 0 < getattr(rollout, field) < 1:
            yield f"rollout.{field}: {getattr(rollout, field)} is not between 0 and 1"
    if not 0 <= rollout.shadow_pairs < rollout.max_pairs:
        yield f"rollout.shadow_pairs: {rollout.shadow_pairs} is not within 0 and below max_pairs"
    for field in ("step_pairs", "max_pairs"):
        if getattr(rollout, field) < 1:
            yield f"rollout.{field}: {getattr(rollout, field)} is less than 1"


def _refusals(read: Callable[[], object]) -> Iterator[str]:
    try:
        read()
    except InvalidRequest as exc:
        yield exc.message


def _endpoint(endpoint: EndpointSpec, spec: Spec) -> Iterator[str]:
    if not endpoint.routes:
        yield "routes: at least one is needed"
    for place, route in enumerate(endpoint.routes):
        if route.deployment not in spec.deployments:
            yield f"routes[{place}].deployment: {_no_deployment(route.deployment, spec)}"
        elif route.deployment in (one.deployment for one in endpoint.routes[:place]):
            yield f"routes[{place}].deployment: {route.deployment!r} is named twice; add up its weights"
        if not 0 <= route.weight <= WHOLE:
            yield f"routes[{place}].weight: {route.weight} is not within 0..{WHOLE}"
    yield from _weights([route.weight for route in endpoint.routes])
    if endpoint.limits.max_tokens < 1:
        yield f"limits.max_tokens: {endpoint.limits.max_tokens} is less than 1"
    yield from _refusals(partial(limits_of, spec_words(endpoint.limits)))
    yield from _refusals(partial(limits_of, endpoint.limits.per_subject, param="limits.per_subject"))
    for field, text in (
        ("limits.timeout", endpoint.limits.timeout),
        ("records.retain", endpoint.records.retain),
        ("slo.ttft_p95", endpoint.slo.ttft_p95),
        ("rollout.max_duration", endpoint.rollout.max_duration),
        ("hedge_after", endpoint.hedge_after),
        ("timeouts.connect", endpoint.timeouts.connect),
        ("timeouts.first_byte", endpoint.timeouts.first_byte),
        ("timeouts.idle", endpoint.timeouts.idle),
    ):
        yield from _refusals(partial(parse_duration_s, text, param=field))
    yield from _cache(endpoint.cache, spec)
    yield from _rollout(endpoint.rollout)
    for name, judge in endpoint.judges.items():
        if not _NAME.fullmatch(name):
            yield f"judges.{name[:64]!r}: a name is 1 to 63 letters, digits, dots, dashes or underscores"
        yield from (f"judges.{name[:64]}.{fault}" for fault in judge_faults(judge))


def _weights(weights: list[int]) -> Iterator[str]:
    """A route alone gets all, whatever its weight; several are shares of a hundred."""
    total = sum(weights)
    if not weights or min(weights) < 0:
        return
    if total == 0:
        yield "routes: all weights are 0, so that nothing would be served"
    elif len(weights) > 1 and total != WHOLE:
        given, near = (", ".join(map(str, some)) for some in (weights, shares_of_whole(weights)))
        yield f"routes: the weights {given} sum to {total}, not {WHOLE}; such as {near}"


def shares_of_whole(weights: list[int]) -> list[int]:
    """The whole per cents nearest to these relative weights, which sum to 100 (largest remainders)."""
    total = sum(weights)
    shares = [weight * WHOLE // total for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda place: -(weights[place] * WHOLE % total))
    for place in by_remainder[: WHOLE - sum(shares)]:
        shares[place] += 1
    return shares


def _routing(endpoint: EndpointSpec, spec: Spec) -> Iterator[str]:
    routed = {route.deployment for route in endpoint.routes if route.weight > 0}
    for place, name in enumerate(endpoint.fallback):
        if name not in spec.deployments:
            yield f"fallback[{place}]: {_no_deployment(name, spec)}"
        elif name in routed:
            yield f"fallback[{place}]: {name!r} is a route already; routes stand in for each other"
        elif name in endpoint.fallback[:place]:
            yield f"fallback[{place}]: {name!r} is named twice"
    retries, queue = endpoint.retries, endpoint.queue
    for field, value, most in (
        ("retries.max", retries.max, 10),
        ("retries.budget_percent", retries.budget_percent, 100),
        ("queue.size", queue.size, 10_000),
        ("queue.per_team", queue.per_team, 10_000),
    ):
        if not 0 <= value <= most:
            yield f"{field}: {value} is not within 0..{most}"
    for team, weight in queue.weights.items():
        if not MIN_SHARE <= weight <= MAX_SHARE:
            yield f"queue.weights.{team[:64]}: {weight:g} is not within {MIN_SHARE:g}..{MAX_SHARE:g}"


def _aliases(name: str, spec: Spec) -> Iterator[str]:
    others = [other for other in spec.endpoints if other != name]
    taken = {alias: other for other in others for alias in spec.endpoints[other].aliases}
    own = spec.endpoints[name].aliases
    for place, alias in enumerate(own):
        if not is_alias(alias):
            yield f"aliases[{place}]: a name is 1 to 100 letters, digits and any of . _ - : / @"
        elif alias in spec.endpoints:
            yield f"aliases[{place}]: {alias!r} is the name of an endpoint"
        elif alias in taken:
            yield f"aliases[{place}]: {alias!r} is an alias of {taken[alias]!r} already"
        elif alias in own[:place]:
            yield f"aliases[{place}]: {alias!r} is named twice"


def is_alias(text: str) -> bool:
    """Whether it may be another name of an endpoint."""
    return _ALIAS.fullmatch(text) is not None


def _cache(cache: CacheSpec, spec: Spec) -> Iterator[str]:
    semantic = cache.semantic
    if cache.exact_ttl != "off":
        yield from _refusals(partial(parse_duration_s, cache.exact_ttl, param="cache.exact_ttl"))
    elif semantic != "off":
        yield "cache.exact_ttl: it is off, so there is nothing that a semantic hit could give; such as 1h"
    if semantic == "off":
        return
    yield from _refusals(partial(parse_duration_s, semantic.ttl, param="cache.semantic.ttl"))
    if semantic.embedder not in spec.endpoints:
        yield f"cache.semantic.embedder: {_not_one_of(semantic.embedder, spec.endpoints)}"
    if not 0 < semantic.threshold <= 1:
        yield f"cache.semantic.threshold: {semantic.threshold} is not within 0..1"


def _no_deployment(name: str, spec: Spec) -> str:
    if name not in spec.endpoints:
        return _not_one_of(name, spec.deployments)
    there = ", ".join(sorted(spec.deployments)[:20]) or "none"
    return f"{name!r} is an endpoint, and this is for a deployment; there are: {there}"


def _not_one_of(value: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(value[:64], list(known), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(known)[:20]) or 'none'}"
    return f"{value[:64]!r} is not known; {hint}"
