"""
Phases: what to tell people about deployments and endpoints, and why it is so.

Pure: from the same values that the plan is made of. A reason is a word of a
closed set, a message a sentence with what to do next.
"""

from collections.abc import Mapping

from msgspec.structs import replace

from pilothouse.domain.plan import Observed, pull_subject, wanted_replicas
from pilothouse.domain.scaling import can_sleep
from pilothouse.domain.spec import DeploymentSpec, EndpointSpec, Spec
from pilothouse.domain.status import DeploymentStatus, EndpointStatus, Phase, Progress, Replica, SystemStatus

_SERVING = ("ready", "degraded")
_WAITING: tuple[Phase, ...] = ("starting", "pulling", "pending")


def system_status(
    spec: Spec, observed: Observed, *, revision: int, progress: Mapping[str, Progress]
) -> SystemStatus:
    """
    The status of everything that `spec` declares.

    Args:
        revision: Of `spec`.
        progress: Of pulls in flight, by `plan.pull_subject`.
    """
    wanted = wanted_replicas(spec, observed)
    deployments = {
        name: replace(
            _deployment(name, spec, observed, wanted=wanted.get(name), progress=progress),
            observed_revision=revision,
        )
        for name in spec.deployments
    }
    endpoints = {
        name: replace(_endpoint(name, endpoint, deployments), observed_revision=revision)
        for name, endpoint in spec.endpoints.items()
    }
    return SystemStatus(
        revision=revision, deployments=deployments, endpoints=endpoints, replicas=observed.replicas
    )


def _deployment(
    name: str, spec: Spec, observed: Observed, *, wanted: list[str] | None, progress: Mapping[str, Progress]
) -> DeploymentStatus:
    declared = spec.deployments[name]
    replicas = [replica for replica in observed.replicas if replica.deployment == name]
    serving = [replica for replica in replicas if replica.state == "ready"]
    status = DeploymentStatus(
        name=name,
        phase="pending",
        wanted=len(wanted or ()),
        ready=len(serving),
        may_wake=can_sleep(declared.replicas) and name not in observed.attached,
    )
    if wanted is None:
        status = _without_model(status, declared, spec, observed=observed, progress=progress)
    else:
        status = _with_model(status, wanted, replicas, observed)
    if serving and status.phase not in _SERVING:  # the old one serves while the new one is not there
        message = f"{len(serving)} replica(s) of the earlier revision serve. {status.message}"
        return replace(status, phase="degraded", message=message)
    return status


def _without_model(
    status: DeploymentStatus,
    declared: DeploymentSpec,
    spec: Spec,
    *,
    observed: Observed,
    progress: Mapping[str, Progress],
) -> DeploymentStatus:
    model = spec.models.get(declared.model)
    if "@" in declared.model:
        message = f"No file of `{declared.model}` is here: pull that version again, or name another one."
        return replace(status, phase="failed", reason="unknown_version", message=message)
    if model is None:
        message = f"The spec declares no model `{declared.model}`: add it under `models`, or name another."
        return replace(status, phase="failed", reason="unknown_model", message=message)
    key = pull_subject(declared.model, model.source)
    if key in observed.busy:
        message = f"Fetching {model.source}."
        return replace(status, phase="pulling", reason="pulling", message=message, progress=progress.get(key))
    if failed := observed.retries.get(key):
        return replace(status, phase="failed", reason="pull_failed", message=failed.reason)
    return replace(status, reason="waiting_for_model", message=f"Waiting to fetch {model.source}.")


def _with_model(
    status: DeploymentStatus, wanted: list[str], replicas: list[Replica], observed: Observed
) -> DeploymentStatus:
    found = {replica.name: replica for replica in replicas}
    ready = [name for name in wanted if name in found and found[name].state == "ready"]
    if len(ready) == len(wanted):
        if wanted:
            return replace(status, phase="ready")
        message = "Asleep: the next request wakes it." if status.may_wake else "Switched off: `max` is 0."
        return replace(status, phase="ready", reason="scaled_to_zero", message=message)
    missing = [name for name in wanted if name not in ready]
    why = [_trouble(name, found, observed) for name in missing]
    waiting = [found[name].reason for name in missing if name in found]
    message = next((text for text in (*why, *waiting) if text), "Waiting for a first token.")
    if ready:
        reason = "start_failed" if any(why) else "replicas_missing"
        return replace(status, phase="degraded", reason=reason, message=message)
    if any(why):
        return replace(status, phase="failed", reason="start_failed", message=message)
    return replace(status, phase="starting", reason="starting", message=message)


def _trouble(name: str, found: Mapping[str, Replica], observed: Observed) -> str:
    """Why a wanted replica is not ready; "" when it only needs more time."""
    replica = found.get(name)
    if replica is not None and replica.state == "failed":
        return f"{name}: {replica.reason}"
    if failed := observed.retries.get(name):
        return f"{name}: {failed.reason}"
    return ""


def _endpoint(
    name: str, endpoint: EndpointSpec, deployments: Mapping[str, DeploymentStatus]
) -> EndpointStatus:
    status = EndpointStatus(name=name, phase="failed")
    routes = [route.deployment for route in endpoint.routes if route.weight > 0]
    if unknown := [route for route in routes if route not in deployments]:
        message = f"The spec declares no deployment `{unknown[0]}`: add it, or change the route."
        return replace(status, reason="unknown_deployment", message=message)
    if not routes:
        return replace(status, reason="no_route", message="No route has a weight above 0.")
    targets = [deployments[route] for route in routes]
    if all(target.phase == "ready" for target in targets):
        return replace(status, phase="ready")
    phases = {target.phase for target in targets}
    phase: Phase = "degraded" if phases & set(_SERVING) else _first(phases)
    worst = next(target for target in targets if target.phase != "ready")
    return replace(status, phase=phase, reason=worst.reason, message=f"{worst.name}: {worst.message}")


def _first(phases: set[Phase]) -> Phase:
    return next((phase for phase in _WAITING if phase in phases), "failed")
