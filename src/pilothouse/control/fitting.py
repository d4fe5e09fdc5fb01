"""
Whether what is declared can have the memory that it needs, before anything is started.

The arithmetic is each engine driver's own: what its `launch` refuses here would be
refused at the start of a replica too, only later. The one idea: refuse what can
never fit, warn of what may not, and look only at what a change brings, so that an
unrelated edit is not refused on a day when memory is short.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from pilothouse.control.ability import launch_of
from pilothouse.domain.catalogue import CATALOGUE
from pilothouse.domain.catalogue_shapes import shape_of
from pilothouse.domain.errors import NotFound, OperationFailed
from pilothouse.domain.model import Artifact, ModelVersion
from pilothouse.domain.model_ref import find_version
from pilothouse.domain.spec import DeploymentSpec, Spec
from pilothouse.ports.engine import EngineDriver, Machine

HERE = "local"
"""The target whose memory is this machine's."""
_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Faults begin with their field; warnings do too, and refuse nothing."""

    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Need:
    """Of one deployment whose model is here: the least that a replica takes."""

    name: str
    digest: str
    file_bytes: int
    own_bytes: int
    """Without the file, whose pages all replicas on a machine share."""
    always: int
    """Replicas that run whatever happens."""
    most: int


class Fitting:
    """
    Args:
        machine: This machine, with the memory that models could have now: what is free
            and what Pilothouse's own replicas hold.
        versions: The model versions that are here, newest first.
    """

    def __init__(
        self,
        drivers: Mapping[str, EngineDriver],
        *,
        machine: Callable[[], Machine],
        versions: Callable[[], Collection[ModelVersion]],
    ) -> None:
        self._drivers = drivers
        self._machine = machine
        self._versions = versions

    def fit(self, spec: Spec, present: Spec) -> Fit:
        """What `spec` asks for beyond `present`, against this machine."""
        versions = self._versions()
        new = [name for name in spec.deployments if self._is_new(name, spec, present, versions)]
        if not new:
            return Fit()
        found = Fit()
        machine = self._machine()
        for name in new:
            if not self._starts_here(spec.deployments[name]):
                continue
            version = _meant(name, spec, versions)
            if version is None:
                found.warnings.extend(self._unknown(name, spec, machine))
            elif fault := self._fault(name, spec, version, machine):
                found.faults.append(fault)
        if not found.faults:
            self._together(spec, versions, machine, found)
        return found

    def _is_new(self, name: str, spec: Spec, present: Spec, versions: Collection[ModelVersion]) -> bool:
        before = present.deployments.get(name)
        if before != spec.deployments[name]:
            return True
        was, now = _meant(name, present, versions), _meant(name, spec, versions)
        return now is not None and (was is None or was.digest != now.digest)

    def _starts_here(self, deployment: DeploymentSpec) -> bool:
        return deployment.engine in self._drivers and not deployment.is_attached and deployment.target == HERE

    def _fault(self, name: str, spec: Spec, version: ModelVersion, machine: Machine) -> str:
        """Why it can never run with all its replicas; "" when it can."""
        deployment = spec.deployments[name]
        artifact = _artifact(version)
        if refusal := self._refusal(name, deployment, artifact, machine):
            return f"deployments.{name}: {refusal}"
        most = _most(deployment)
        if most < 2:
            return ""
        room = machine.memory_available_bytes
        each = version.bytes + max(0, room - version.bytes) // most
        refusal = self._refusal(name, deployment, artifact, replace(machine, memory_available_bytes=each))
        if not refusal:
            return ""
        return (
            f"deployments.{name}.replicas.max: {most} replicas do not fit into {_mb(room)}: they share the "
            f"file's {_mb(version.bytes)}, and each may take {_mb(each)} with it: {refusal}"
        )

    def _refusal(self, name: str, deployment: DeploymentSpec, artifact: Artifact, machine: Machine) -> str:
        try:
            launch_of(name, deployment, artifact, machine, drivers=self._drivers)
        except OperationFailed as exc:
            return exc.message
        return ""

    def _unknown(self, name: str, spec: Spec, machine: Machine) -> Iterator[str]:
        """Of a model that is not here yet: what the catalogue says of it, else how to find out."""
        deployment = spec.deployments[name]
        declared = spec.models.get(deployment.model)
        if declared is None:
            return
        listed = next((one for one in CATALOGUE if declared.source == one.source), None)
        header = shape_of(listed) if listed else None
        if listed is None or header is None:
            yield (
                f"deployments.{name}: whether it fits is known once its model is here; to know it before: "
                f"pilothouse model pull {declared.source} --name {deployment.model}, then apply"
            )
            return
        artifact = Artifact(name=listed.name, digest="", path="", bytes=listed.bytes, header=header)
        if refusal := self._refusal(name, deployment, artifact, machine):
            yield f"deployments.{name}: by the catalogue's rounded sizes, {refusal}"

    def _together(self, spec: Spec, versions: Collection[ModelVersion], machine: Machine, found: Fit) -> None:
        needs = list(self._needs(spec, versions, machine))
        room = machine.memory_available_bytes
        always = _sum([(need, need.always) for need in needs])
        if always > room:
            found.faults.append(
                f"deployments: what always runs does not fit together: {_listed(needs)} = "
                f"{_mb(always)}, but {_mb(room)} are free for models; lower replicas.min, context_tokens or "
                "slots, or let some sleep (replicas.scale_to_zero_after)"
            )
            return
        most = _sum([(need, need.most) for need in needs])
        if most > room:
            found.warnings.append(
                f"deployments: not all can have replicas.max at once: that would take {_mb(most)}, and "
                f"{_mb(room)} are free for models; who comes last then waits for memory"
            )

    def _needs(self, spec: Spec, versions: Collection[ModelVersion], machine: Machine) -> Iterator[_Need]:
        for name, deployment in spec.deployments.items():
            version = _meant(name, spec, versions)
            if version is None or not self._starts_here(deployment):
                continue
            least = self._least(name, deployment, version, machine)
            if least is None:  # an earlier declaration, of a day with more memory: its start says so
                continue
            replicas = deployment.replicas
            sleeps = replicas.scale_to_zero_after != "never"
            yield _Need(
                name=name,
                digest=version.digest,
                file_bytes=version.bytes,
                own_bytes=max(0, least - version.bytes),
                always=0 if sleeps else replicas.min,
                most=_most(deployment),
            )

    def _least(
        self, name: str, deployment: DeploymentSpec, version: ModelVersion, machine: Machine
    ) -> int | None:
        """A driver that chooses takes less where less is free, so it is offered what it last took."""
        artifact = _artifact(version)
        free, least = machine.memory_available_bytes, None
        while True:
            offered = replace(machine, memory_available_bytes=free)
            try:
                taken = launch_of(name, deployment, artifact, offered, drivers=self._drivers).memory_bytes
            except OperationFailed:
                return least
            if least is not None and taken >= least:
                return least
            free = least = taken


def _meant(name: str, spec: Spec, versions: Collection[ModelVersion]) -> ModelVersion | None:
    deployment = spec.deployments.get(name)
    if deployment is None or not deployment.model:
        return None
    try:
        return find_version(deployment.model, spec, versions)
    except NotFound:
        return None


def _artifact(version: ModelVersion) -> Artifact:
    """For arithmetic only: nothing is loaded."""
    return Artifact(
        name=version.name,
        digest=version.digest,
        path="",
        bytes=version.bytes,
        header=version.header,
        format=version.format,
    )


def _most(deployment: DeploymentSpec) -> int:
    replicas = deployment.replicas
    return max([replicas.max, *(window.max for window in replicas.schedule)])


def _sum(needs: list[tuple[_Need, int]]) -> int:
    files = {need.digest: need.file_bytes for need, replicas in needs if replicas}
    return sum(files.values()) + sum(replicas * need.own_bytes for need, replicas in needs)


def _listed(needs: list[_Need]) -> str:
    """The sum: replicas by deployment, and each file once."""
    running = [need for need in needs if need.always]
    parts = [f"{need.name} {need.always} x {_mb(need.own_bytes)}" for need in running[:_NAMED]]
    if others := running[_NAMED:]:
        parts.append(f"{len(others)} others {_mb(sum(one.always * one.own_bytes for one in others))}")
    files = {need.digest: need.file_bytes for need in running}
    return " + ".join([*parts, f"files {_mb(sum(files.values()))}"])


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.0f} MB"
