"""Whether an engine can be started here for a model at all, before anybody counts memory."""

from collections.abc import Mapping

from pilothouse.domain.errors import OperationFailed
from pilothouse.domain.model import Artifact, ModelFormat
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.kit.plugins import BrokenPlugin
from pilothouse.ports.engine import EngineDriver, Launch, Machine


def launch_of(
    name: str,
    deployment: DeploymentSpec,
    artifact: Artifact,
    machine: Machine,
    *,
    drivers: Mapping[str, EngineDriver],
) -> Launch:
    """
    How a replica is started here.

    Raises:
        OperationFailed: It cannot be; the message says what to do.
    """
    try:
        driver = drivers[deployment.engine]
    except BrokenPlugin as exc:
        raise OperationFailed(f"engine {exc}") from exc
    if fault := _why_not(driver, artifact.format):
        raise OperationFailed(fault)
    return driver.launch(name, deployment, artifact, machine)


def _why_not(driver: EngineDriver, format_: ModelFormat) -> str:
    if not driver.formats:
        return f"engine {driver.name} attaches to a server that runs already: give engine_options.base_url"
    if format_ not in driver.formats:
        loads = ", ".join(sorted(driver.formats))
        return (
            f"engine {driver.name} loads {loads}, and the model is {format_}; choose another engine or model"
        )
    found = driver.installed()
    if not found.ok:
        return (
            f"engine {driver.name} cannot run here, {found.missing} is missing; run: {found.install_command}"
        )
    return ""
