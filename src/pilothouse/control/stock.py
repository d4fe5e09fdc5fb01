"""
The models that are here, as the control loop knows them: by name and version.

Held in memory, because the loop looks at them in each round; the store has the
same, and the files are with `control.models`.
"""

from collections.abc import Iterable

from pilothouse.domain.errors import NotFound
from pilothouse.domain.model import ModelVersion
from pilothouse.domain.model_ref import find_version
from pilothouse.domain.spec import Spec


class Stock:
    def __init__(self) -> None:
        self._versions: dict[tuple[str, str], ModelVersion] = {}
        self._newest_first: tuple[ModelVersion, ...] = ()

    @property
    def versions(self) -> tuple[ModelVersion, ...]:
        """Newest first."""
        return self._newest_first

    def add(self, versions: Iterable[ModelVersion]) -> None:
        for version in versions:
            self._versions[version.name, version.version] = version
        self._sort()

    def drop(self, versions: Iterable[ModelVersion]) -> None:
        for version in versions:
            self._versions.pop((version.name, version.version), None)
        self._sort()

    def of(self, spec: Spec) -> dict[str, ModelVersion]:
        """The versions that the spec means, by the words that it means them with."""
        names = [*spec.models, *(one.model for one in spec.deployments.values() if "@" in one.model)]
        found = {}
        for name in names:
            try:
                found[name] = find_version(name, spec, self._newest_first)
            except NotFound:
                continue
        return found

    def _sort(self) -> None:
        by_age = sorted(self._versions.values(), key=lambda one: one.created_at)
        self._newest_first = tuple(reversed(by_age))
