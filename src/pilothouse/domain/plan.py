"""
The plan: what to do next so that what is becomes what was declared.

`plan` looks at the whole state each time and remembers nothing, so that a crash
anywhere is repaired by the next call. It decides; `control.act` does. Phases
and messages for people are in `domain.phase`.

A replica is named `<deployment>-<digest>-<n>`, where the digest is that of all
that it is started with. So a name says whether a replica is the wanted one: a
changed spec wants other names, and nothing else has to be compared.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256

import msgspec
from msgspec import Struct, field

from pilothouse.domain.spec import DeploymentSpec, Spec
from pilothouse.domain.status import Replica


class StartReplica(Struct, frozen=True, tag=True):
    name: str
    deployment: str


class StopReplica(Struct, frozen=True, tag=True):
    """End it and clear its traces; nobody is using it."""

    name: str
    reason: str


class DrainReplica(Struct, frozen=True, tag=True):
    """Give it no new requests."""

    name: str
    reason: str


class ServeReplica(Struct, frozen=True, tag=True):
    """Give a draining replica requests again: it is wanted after all."""

    name: str


class PullModel(Struct, frozen=True, tag=True):
    name: str
    source: str


Action = StartReplica | StopReplica | DrainReplica | ServeReplica | PullModel


class Retry(Struct, frozen=True):
    """Failures in a row of one subject, and when (on the clock of `now`) it may be tried again."""

    failures: int
    next_at: float
    reason: str = ""


class Observed(Struct, frozen=True, kw_only=True):
    """What is, at one moment. Mappings by name hold only what is known."""

    replicas: tuple[Replica, ...] = ()
    models: dict[str, str] = field(default_factory=dict)
    """Digest of each model that is here, by the words that the spec means it with."""
    attached: frozenset[str] = frozenset()
    """Deployments whose engine runs elsewhere: they are observed, never started or stopped."""
    draining: dict[str, float] = field(default_factory=dict)
    """Since when (on the clock of `now`) each draining replica gets no new requests."""
    unused: frozenset[str] = frozenset()
    """Replicas that surely have no request in flight."""
    busy: frozenset[str] = frozenset()
    """Subjects of the actions in flight."""
    retries: dict[str, Retry] = field(default_factory=dict)
    """By subject."""
    desired: dict[str, int] = field(default_factory=dict)
    """Replicas by deployment, as scaling decided; one that is absent gets its least."""


class Policy(Struct, frozen=True, kw_only=True):
    replica_actions: int = 4
    """Starts and stops at once: a start reads the whole model file."""
    pulls: int = 1
    """Downloads at once; their own limit, for they must never hold back a restart."""
    drain_grace_s: float = 60.0
    """How long a drained replica's requests may go on: the default time limit of a request."""


def subject(action: Action) -> str:
    """What an action is about; two actions on one subject never run at once."""
    return pull_subject(action.name, action.source) if isinstance(action, PullModel) else action.name


def pull_subject(model: str, source: str) -> str:
    return f"pull:{model}@{source}"


def launch_digest(deployment: DeploymentSpec, model_digest: str) -> str:
    """Eight hex digits over all that a replica is started with; how many there are is not part of it."""
    parts = (deployment.engine, deployment.target, deployment.provider_model, model_digest)
    text = msgspec.json.encode((*parts, deployment.engine_options), order="sorted")
    return sha256(text).hexdigest()[:8]


def replica_name(name: str, deployment: DeploymentSpec, model_digest: str, number: int) -> str:
    return f"{name}-{launch_digest(deployment, model_digest)}-{number}"


def generations(spec: Spec, observed: Observed) -> dict[str, str]:
    """What the names of wanted replicas begin with, by deployment: absent while its model is not here."""
    found: dict[str, str] = {}
    for name, deployment in spec.deployments.items():
        digest = "" if name in observed.attached else observed.models.get(deployment.model)
        if digest is not None:
            found[name] = f"{name}-{launch_digest(deployment, digest)}-"
    return found


def wanted_replicas(spec: Spec, observed: Observed) -> dict[str, list[str]]:
    """Wanted replica names by deployment. A deployment whose model is not here is absent: unknown."""
    return {
        name: [first + str(number) for number in range(_count(name, spec, observed))]
        for name, first in generations(spec, observed).items()
    }


def _count(name: str, spec: Spec, observed: Observed) -> int:
    return 1 if name in observed.attached else observed.desired.get(name, spec.deployments[name].replicas.min)


def plan(spec: Spec, observed: Observed, now: float, *, policy: Policy = Policy()) -> list[Action]:  # noqa: B008
    """
    The actions that bring `observed` nearer to `spec`, most urgent first.

    Idempotent: nothing is planned for a subject that is busy, so the same call
    may be made at any time, and as often as one likes. `now` is monotonic.
    """
    wanted = wanted_replicas(spec, observed)
    actions = [
        *_retire(spec, wanted, observed, now, policy=policy),
        *_start(wanted, observed, now),
        *_pull(spec, wanted, observed, now),
    ]
    return _within_limits(actions, observed.busy, policy)


def _retire(
    spec: Spec, wanted: Mapping[str, list[str]], observed: Observed, now: float, *, policy: Policy
) -> Iterable[Action]:
    ready = {replica.name for replica in observed.replicas if replica.state == "ready"}
    complete = {deployment for deployment, names in wanted.items() if ready.issuperset(names)}
    kept = {name for names in wanted.values() for name in names}
    first = generations(spec, observed)
    for replica in observed.replicas:
        if replica.deployment not in spec.deployments:
            reason = "deployment_removed"
        elif replica.deployment not in wanted:  # unknown what is wanted: what runs goes on running
            continue
        elif replica.name in kept:
            yield from _keep(replica, observed, now)
            continue
        elif replica.deployment in complete:
            reason = "scaled_down" if replica.name.startswith(first[replica.deployment]) else "replaced"
        else:  # its successors are not ready yet: it goes on serving
            if replica.state == "draining":
                yield ServeReplica(replica.name)
            elif _is_dead(replica):
                yield StopReplica(replica.name, "replaced")
            continue
        yield from _end(replica, reason, observed, now, policy=policy)


def _keep(replica: Replica, observed: Observed, now: float) -> Iterable[Action]:
    # A dead replica keeps its traces (its log, its reason) until its next start is due.
    if _is_dead(replica) and _is_due(replica.name, observed, now):
        yield StopReplica(replica.name, "failed")
    elif replica.state == "draining":
        yield ServeReplica(replica.name)


def _end(
    replica: Replica, reason: str, observed: Observed, now: float, *, policy: Policy
) -> Iterable[Action]:
    since = observed.draining.get(replica.name)
    if _is_dead(replica):
        yield StopReplica(replica.name, reason)
    elif since is None:
        yield DrainReplica(replica.name, reason)
    elif replica.name in observed.unused or now - since >= policy.drain_grace_s:
        yield StopReplica(replica.name, reason)


def _start(wanted: Mapping[str, list[str]], observed: Observed, now: float) -> Iterable[Action]:
    present = {replica.name for replica in observed.replicas}
    for deployment, names in wanted.items():
        if deployment in observed.attached:
            continue
        for name in names:
            if name not in present and _is_due(name, observed, now):
                yield StartReplica(name, deployment)


def _pull(spec: Spec, wanted: Mapping[str, list[str]], observed: Observed, now: float) -> Iterable[Action]:
    needed = {deployment.model: None for name, deployment in spec.deployments.items() if name not in wanted}
    for model in needed:
        declared = spec.models.get(model)
        if declared and _is_due(pull_subject(model, declared.source), observed, now):
            yield PullModel(model, declared.source)


def _within_limits(actions: Iterable[Action], busy: frozenset[str], policy: Policy) -> list[Action]:
    pulling = sum(name.startswith("pull:") for name in busy)
    room = {"pull": policy.pulls - pulling, "replica": policy.replica_actions - (len(busy) - pulling)}
    chosen: list[Action] = []
    for action in actions:
        if subject(action) in busy:
            continue
        if not isinstance(action, DrainReplica | ServeReplica):  # those two are done in no time
            kind = "pull" if isinstance(action, PullModel) else "replica"
            if room[kind] <= 0:
                continue
            room[kind] -= 1
        chosen.append(action)
    return chosen


def _is_dead(replica: Replica) -> bool:
    return replica.state in ("failed", "stopped")


def _is_due(name: str, observed: Observed, now: float) -> bool:
    retry = observed.retries.get(name)
    return retry is None or now >= retry.next_at
