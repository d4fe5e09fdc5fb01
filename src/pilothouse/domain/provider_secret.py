"""
Secrets of providers: what one is bound to, and who may use it.

Pure: values and refusals. How one is opened is in `domain.secret_opening`, apart,
for what only passes sealed ones on needs no cryptography.
"""

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from msgspec import Struct

from pilothouse.domain.errors import InvalidRequest
from pilothouse.domain.spec import DeploymentSpec, EndpointSpec, Spec

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_HOST = re.compile(r"(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:]+\])(?::[0-9]{1,5})?")
MAX_CHARS = 16 * 1024
"""A service account's key file has about 2400."""
_PORTS = {"https": 443, "http": 80}


class SealedSecret(Struct, frozen=True, kw_only=True):
    """A secret at rest and on its way to the workers. `sealed` opens for this name, team and host only."""

    name: str
    team: str
    """Whose endpoints may use it; "" is the server's own, for all."""
    host: str
    """`host`, or `host:port` where the port is not 443."""
    sealed: bytes
    created_at: float
    changed_at: float

    def __repr__(self) -> str:
        return f"SealedSecret({self.name!r}, team={self.team!r}, host={self.host!r}, ***)"


def host_of(url: str) -> str:
    """What a secret must be bound to for this address; "" where none could be."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return ""
    name = (parts.hostname or "").lower().rstrip(".")
    shown = f"[{name}]" if ":" in name else name
    return shown if port == _PORTS["https"] else f"{shown}:{port}"


def check_secret(name: str, host: str, value: str) -> None:
    """
    Raises:
        InvalidRequest: No secret can be like that. The value is not repeated.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            "name: a secret's is 1 to 63 letters, digits, dots, dashes or underscores", param="name"
        )
    if not _HOST.fullmatch(host) or host_of(f"https://{host}") != host:
        raise InvalidRequest(
            "host: write it as addresses have it, in lower case, such as api.openai.com or gpu-1:8000",
            param="host",
        )
    if not value or len(value) > MAX_CHARS or not value.replace("\n", "").replace("\t", "").isprintable():
        raise InvalidRequest(f"value: 1 to {MAX_CHARS} printable characters", param="value")


def secret_faults(spec: Spec, secrets: Mapping[str, SealedSecret]) -> list[str]:
    """What deployments want of secrets and may not have; and endpoints that nobody could call for it."""
    faults = []
    for name, deployment in spec.deployments.items():
        fault = _deployment_fault(deployment, secrets)
        if fault:
            faults.append(f"deployments.{name}.engine_options.{fault}")
    for name, endpoint in spec.endpoints.items():
        teams = teams_of(endpoint, spec, secrets)
        if len(teams) > 1:
            faults.append(
                f"endpoints.{name}: its deployments use secrets of the teams {' and '.join(sorted(teams))}, "
                "so that nobody could call it; one team's may be used"
            )
    return faults


def _deployment_fault(deployment: DeploymentSpec, secrets: Mapping[str, SealedSecret]) -> str:
    options = deployment.common
    if not options.secret:
        return ""
    host, found = host_of(options.base_url), secrets.get(options.secret)
    if found is not None and found.host != host:
        return (
            f"secret: {options.secret!r} is bound to {found.host}, and base_url leads to {host or 'nowhere'}"
        )
    if options.base_url.startswith("http:") and not options.allow_private_network:
        return (
            "base_url: a secret goes over https only; http is for a private network (allow_private_network)"
        )
    return ""


def unset_secrets(spec: Spec, secrets: Mapping[str, SealedSecret]) -> list[str]:
    """Of a server that is new they can only be set once it runs, so a spec may name them before."""
    wanted = [(name, deployment.common) for name, deployment in spec.deployments.items()]
    return [
        f"deployments.{name}: the secret {options.secret!r} is not set; "
        f"pilothouse secret set {options.secret} --host {host_of(options.base_url)}"
        for name, options in wanted
        if options.secret and options.secret not in secrets
    ]


def teams_of(endpoint: EndpointSpec, spec: Spec, secrets: Mapping[str, SealedSecret]) -> frozenset[str]:
    """Teams whose secrets its requests would use: at most one in a spec that was checked."""
    asked = [endpoint]
    semantic = endpoint.cache.semantic
    if semantic != "off" and semantic.embedder in spec.endpoints:
        asked.append(spec.endpoints[semantic.embedder])
    names = {name for one in asked for name in (*(route.deployment for route in one.routes), *one.fallback)}
    used = [spec.deployments[name].common.secret for name in names if name in spec.deployments]
    return frozenset(secrets[name].team for name in used if name in secrets) - {""}


def users_of(name: str, spec: Spec) -> list[str]:
    """Deployments that name the secret."""
    return sorted(one for one, d in spec.deployments.items() if d.common.secret == name)
