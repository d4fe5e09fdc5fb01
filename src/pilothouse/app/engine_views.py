"""The engines as people see them: installed or not, what each can do, and what is missing."""

from collections.abc import Mapping

from pilothouse.http.plane import EngineView
from pilothouse.kit.plugins import BrokenPlugin
from pilothouse.ports.engine import EngineDriver, NotedDriver


def list_engines(drivers: Mapping[str, EngineDriver]) -> list[EngineView]:
    """All that deployments may name, and what is missing where one cannot run here."""
    return [_view(name, drivers) for name in sorted(drivers)]


def _view(name: str, drivers: Mapping[str, EngineDriver]) -> EngineView:
    try:
        driver = drivers[name]
    except BrokenPlugin as exc:
        return EngineView(
            name=name,
            installed=False,
            missing=str(exc),
            install_command="update or uninstall the package that brings it",
        )
    found = driver.installed()
    return EngineView(
        name=name,
        installed=found.ok,
        version=found.version,
        capabilities=tuple(sorted(driver.abilities)),
        missing=found.missing,
        install_command=found.install_command,
        note=driver.note if isinstance(driver, NotedDriver) else "",
    )
