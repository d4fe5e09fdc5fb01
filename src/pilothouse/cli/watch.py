"""
The eyes on a server that starts: `/readyz`, and the status once there is a key.

They only look. Not reachable yet is one of the states.
"""

from pathlib import Path

import msgspec
from msgspec import Struct

from pilothouse.cli.client import Server
from pilothouse.config import Settings
from pilothouse.control.status import StatusReport
from pilothouse.domain.status import DeploymentStatus

SERVING = ("ready", "degraded")


class Seen(Struct, frozen=True, kw_only=True):
    """One look at a server that starts."""

    is_ready: bool = False
    reasons: tuple[str, ...] = ()
    deployments: tuple[DeploymentStatus, ...] = ()
    endpoints: tuple[str, ...] = ()
    is_empty: bool = False
    """No endpoint is declared: there is nothing to be ready for."""

    @property
    def failure(self) -> str:
        """What stands in the way by itself, where nothing that still moves is waited for."""
        failed = [one for one in self.deployments if one.phase == "failed"]
        if not failed or len(failed) < len(self.deployments):
            return ""
        return "; ".join(f"{one.name}: {one.message or one.reason}" for one in failed)


class Watch:
    """Looks at a starting server. Never raises: not reachable yet is one of the states."""

    def __init__(self, url: str, settings: Settings) -> None:
        self._server = Server(url, "", certificate=settings.tls_certificate)
        self._key_file = settings.admin_key_file

    def look(self) -> Seen:
        status, body = self._server.probe("/readyz", timeout_s=2.0)
        reasons = body.get("reasons", []) if isinstance(body, dict) else []
        is_ready = status == 200
        if is_ready and not reasons and (names := self._names()):
            return Seen(is_ready=True, endpoints=names)
        report = self._report()
        return Seen(
            is_ready=is_ready,
            reasons=tuple(map(str, reasons)) if isinstance(reasons, list) else (),
            deployments=report.deployments if report else (),
            endpoints=tuple(e.name for e in report.endpoints if e.phase in SERVING) if report else (),
            is_empty=report is not None and report.spec_revision > 0 and not report.endpoints,
        )

    def _names(self) -> tuple[str, ...]:
        """From a worker, which knows them: the admin API is still being loaded when all is ready."""
        if not self._server.api_key:
            self._server.api_key = _read_key(self._key_file)
        status, body = self._server.probe("/v1/models", timeout_s=2.0)
        data = body.get("data", []) if status == 200 and isinstance(body, dict) else []
        return tuple(str(one["id"]) for one in data if isinstance(one, dict) and "id" in one)

    def _report(self) -> StatusReport | None:
        if not self._server.api_key:
            self._server.api_key = _read_key(self._key_file)
            if not self._server.api_key:
                return None
        status, body = self._server.probe("/admin/v1/status", timeout_s=2.0)
        if status == 401:  # the file is of another life of this home: it is being written anew
            self._server.api_key = ""
        try:
            return msgspec.convert(body, StatusReport, strict=False) if status == 200 else None
        except msgspec.ValidationError:
            return None


def _read_key(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
