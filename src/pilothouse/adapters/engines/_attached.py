"""
What all engines share that somebody else runs: where they may be, and their key.

Where one may be is decided by the egress policy at every new connection: a private
address only where the deployment allows it.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import ClassVar

from pilothouse.domain.chat import Ability
from pilothouse.domain.errors import NotSupported, OperationFailed
from pilothouse.domain.model import Artifact, ModelFormat
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.kit import egress
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.secret import Secret
from pilothouse.ports.engine import KEEPS_ALL, Installed, Launch, Machine, Promise

RESOLVE_S = 5.0
LONGEST_WAIT_S = 3600.0


def pinned(base_url: str, *, allow_private: bool) -> Callable[[], Awaitable[str]]:
    """
    What finds and checks the address behind a URL before each connection.

    Raises:
        OperationFailed: The URL is malformed or not allowed.
    """
    try:
        where = egress.parse_url(base_url, schemes=("http", "https"), allow_private=allow_private)
    except ValueError as exc:
        raise OperationFailed(f"base_url {base_url!r}: {exc}") from exc

    async def pin() -> str:
        found = await egress.resolve_async(
            where.host, where.port, allow_private=allow_private, timeout_s=RESOLVE_S
        )
        return found[0].ip

    return pin


def token_of(secret: Secret | None) -> str:
    """
    The bearer token that a secret is, "" without one.

    Raises:
        OperationFailed: It is something else.
    """
    if secret is None:
        return ""
    token = secret.reveal().strip()
    if not token.isascii() or not token.isprintable() or " " in token or not token:
        raise OperationFailed("the secret of this engine must be one token of visible ASCII characters")
    return token


def bearer(token: str) -> str:
    """As a header line, "" without a token."""
    return f"authorization: Bearer {token}" if token else ""


def retry_after_s(value: bytes) -> float:
    """What a `retry-after` header asks for, in seconds; 1 where it says nothing that can be read."""
    text = value.decode("latin-1").strip()
    return min(float(text), LONGEST_WAIT_S) if text.isascii() and text.isdigit() else 1.0


class AttachedDriver:
    """What drivers of such engines share: `ports.engine.EngineDriver`, but for `connect`."""

    name: ClassVar[str]
    formats: frozenset[ModelFormat] = frozenset()
    cannot: Mapping[Promise, str] = KEEPS_ALL

    def __init__(self, cohort: Cohort | None = None) -> None:
        self.cohort = cohort

    def installed(self) -> Installed:
        return Installed(ok=True)

    def launch(self, name: str, spec: DeploymentSpec, artifact: Artifact, machine: Machine) -> Launch:  # noqa: ARG002 - the port's shape
        raise NotSupported(f"engine {self.name} attaches to a server that runs already; it starts none")


READS_ALL: frozenset[Ability] = frozenset({"tools", "image", "audio", "file"})
"""For engines whose model is somebody else's: what it cannot read, the server says itself."""
OPENAI_TAKES: frozenset[Ability] = READS_ALL | {"logit_bias", "token_ids"}
"""In OpenAI's dialect. Not `echo`: servers that do not know it leave it out without a word."""
